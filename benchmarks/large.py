"""A Llama-2-7B-shaped model with random weights through five lean steps at context 4096: peak memory, seconds a step.

python benchmarks/large.py [--steps 5] [--context 4096] [--memory lean] [--json FILE]
python benchmarks/large.py --device cpu --hidden 256 --blocks 2 --context 512      a small one, to see that it runs

No download: speed and memory depend on the shape alone. The plan's bytes stand beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from proximal import machine, print_table
from transformers import LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import LearnConfig, MaskLearner
from proxsparse.learning.update import learning_bytes
from proxsparse.memory import peak_bytes

VOCABULARY = 32000
ORIGINAL = 2  # bytes of a weight as it came


def shaped_like_llama_2(hidden: int, blocks: int, context: int) -> LlamaConfig:
    """With 4096 and 32 the shape of Llama-2-7B (Touvron et al. 2023, arXiv 2307.09288)."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=hidden * 43 // 16, num_hidden_layers=blocks,
        num_attention_heads=hidden // 128, num_key_value_heads=hidden // 128, max_position_embeddings=context,
    )  # fmt: skip


def random_llama(hidden: int, blocks: int, context: int, device: str):
    """Such a model with random weights in bf16, made where it is to be."""
    torch.manual_seed(0)
    with torch.device(device):
        config = shaped_like_llama_2(hidden, blocks, context)
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--memory", choices=("lean", "full"), default="lean")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no GPU: nothing was measured; --device cpu runs a small model")

    model = random_llama(arguments.hidden, arguments.blocks, arguments.context, arguments.device)
    windows = torch.randint(VOCABULARY, (arguments.steps, arguments.context))
    settings = LearnConfig(
        steps=arguments.steps,
        batch=1,
        metric_windows=1,
        memory=arguments.memory,
        lambda1=0.005,
        ramp=1.0,
        learning_rate=1e-4,
    )
    learner = MaskLearner(model, windows, settings)
    reports = []
    for _ in range(arguments.steps):
        reports.append(learner.step())
        print(f"step {reports[-1].step}: {reports[-1].seconds:.2f} s, loss {reports[-1].loss:.3f}", flush=True)
    warm = reports[1:] or reports
    prunable = sum(layer.numel for layer in learner.layers.values())
    everything = sum(parameter.numel() for parameter in model.parameters())
    rest = (everything - prunable) * (2 if arguments.memory == "lean" else 4)
    checkpoints = arguments.blocks * arguments.context * arguments.hidden * 2
    row = {
        "weights, G": round(everything / 1e9, 2), "memory": arguments.memory, "context": arguments.context,
        "step, s": round(statistics.median(report.seconds for report in warm), 2),
        "forward + backward, s": round(statistics.median(report.seconds_gradient for report in warm), 2),
        "prox, s": round(statistics.median(report.seconds_prox for report in warm), 3),
        "peak memory, GB": round(peak_bytes(learner.device) / 1e9, 1),
        "plan: weights and state, GB": round((prunable * (ORIGINAL + learning_bytes(arguments.memory, settings.loss_at)) + rest) / 1e9, 1),
        "plan: checkpointed activations, GB": round(checkpoints / 1e9, 2),
    }  # fmt: skip
    about = machine(arguments.device)
    print(", ".join(about.values()))
    print_table([row])
    if arguments.json:
        arguments.json.write_text(json.dumps(about | {"rows": [row]}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
