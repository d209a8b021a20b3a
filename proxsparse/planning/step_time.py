"""How long a step takes, by arithmetic: multiply-adds, at a speed that the user states. Nothing is measured."""

from __future__ import annotations

from proxsparse.planning.memory import Load
from proxsparse.planning.shapes import Shapes

FORWARD = 2  # floating-point operations a parameter and token: one multiplication, one addition
PASSES = 3  # forward, and a backward that takes twice as many (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)
EXPERTS_OF_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")


def step_flops(shapes: Shapes, memory: str, load: Load, accumulation: int) -> float:
    """Floating-point operations of a step on one GPU: three times forward, once more where blocks are computed again, and
    once for the teacher. The products of attention among themselves are left out."""
    passes = PASSES + (memory == "lean" or load.recompute) + load.teacher
    return FORWARD * passes * active_parameters(shapes) * load.batch * load.length * accumulation


def active_parameters(shapes: Shapes) -> int:
    """The parameters that a token is multiplied with: of experts its own, all of them where the configuration does not say how many
    those are. The embedding is looked up, and counts where it is the head as well."""
    model, idle = shapes.model, 0
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not table.weight:
        idle += table.weight.numel()
    config = model.config.get_text_config(decoder=True)
    chosen = next((value for name in EXPERTS_OF_A_TOKEN if isinstance(value := getattr(config, name, None), int)), None)
    for parameter, experts in shapes.layers.by_parameter().items():
        if experts[0].expert is not None and chosen is not None:
            idle += parameter.numel() - parameter.numel() * min(chosen, len(experts)) // len(experts)
    return shapes.parameters - idle
