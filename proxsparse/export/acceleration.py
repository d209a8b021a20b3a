"""Running 2:4 layers on the sparse tensor cores of a GPU: `torch.sparse.to_sparse_semi_structured`, layer by layer.

Where a layer cannot be taken, the report says why; nothing is approximated. What torch's kernels demand is read from
torch itself (`torch/sparse/semi_structured.py`): two backends, cuSPARSELt and CUTLASS, with a table of shapes each.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.sparse import (
    SparseSemiStructuredTensor,
    SparseSemiStructuredTensorCUSPARSELT,
    SparseSemiStructuredTensorCUTLASS,
)

from proxsparse.layers import PrunableLayer, prunable_layers
from proxsparse.masks.groups import in_planes
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.language_model import dtype_name

N, M = 2, 4  # the only pattern that the hardware knows; 1:4 and 1:2 masks are 2:4 as well
DTYPES = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
CUTLASS_MAJOR = 8  # torch builds its CUTLASS kernels for Ampere and Ada; Hopper and later need cuSPARSELt
PROBE_ROWS = 16
REFUSALS = (RuntimeError, NotImplementedError)  # of a driver, or a card that torch's table does not know of


@dataclass(frozen=True)
class Accelerator:
    """What decides whether a layer can be taken. device: "cuda" or "cpu"; capability: of the GPU; backend:
    "cuSPARSELt" or "CUTLASS"."""

    device: str
    capability: tuple[int, int] | None = None
    backend: str = "cuSPARSELt"

    @classmethod
    def of(cls, device: torch.device) -> Accelerator:
        if device.type != "cuda":
            return cls(device.type)
        usable = torch.backends.cusparselt.is_available() and not SparseSemiStructuredTensor._FORCE_CUTLASS
        return cls("cuda", torch.cuda.get_device_capability(device), "cuSPARSELt" if usable else "CUTLASS")

    @property
    def kernels(self) -> type[SparseSemiStructuredTensor]:
        return (
            SparseSemiStructuredTensorCUSPARSELT if self.backend == "cuSPARSELt" else SparseSemiStructuredTensorCUTLASS
        )

    def obstacle(self) -> str | None:
        """Why no layer at all can be taken here; None when some can."""
        if self.device != "cuda":
            return f"it is on {self.device}: the sparse kernels are CUDA's"
        if self.capability < CAPABILITY:
            return f"this GPU has compute capability {_dotted(self.capability)}: 8.0 is needed"
        if self.backend == "CUTLASS" and self.capability[0] != CUTLASS_MAJOR:
            return (
                f"this torch is without cuSPARSELt, and its CUTLASS kernels run on compute capability 8.x, not "
                f"{_dotted(self.capability)}"
            )
        return None

    def obstacle_to(self, rows: int, columns: int, dtype: torch.dtype) -> str | None:
        """Why a (rows, columns) weight of this dtype cannot be taken here; None when it can."""
        found = self.obstacle()
        if found is not None:
            return found
        if dtype not in DTYPES:
            return f"its weights are {dtype_name(dtype)}: the kernels take float16 and bfloat16"
        demanded = self.kernels._DTYPE_SHAPE_CONSTRAINTS[dtype]
        for what, size, step in (
            ("rows", rows, demanded.sparse_min_rows),
            ("columns", columns, demanded.sparse_min_cols),
        ):
            if size == 0 or size % step:
                return f"it has {size} {what}: {self.backend} demands a multiple of {step}"
        return None


@dataclass(frozen=True)
class AccelerationReport:
    """layers: one dict a prunable layer (name, rows, columns, accelerated, reason); reason: why not, "" where it is.
    backend: torch's kernels that run the accelerated ones. skipped: {name: why it is never pruned} of all other linear
    maps, which stay dense."""

    layers: list[dict]
    backend: str
    skipped: dict[str, str]

    @property
    def accelerated(self) -> list[str]:
        """Names of the layers that are sparse now."""
        return [layer["name"] for layer in self.layers if layer["accelerated"]]

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        done = len(self.accelerated)
        reasons = Counter(layer["reason"] for layer in self.layers if not layer["accelerated"])
        why = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common(3))
        more = "; …" if len(reasons) > 3 else ""
        if not done:
            return f"None of the {len(self.layers)} layers is accelerated, and nothing was changed: {why}{more}."
        rest = f", the others stay dense: {why}{more}" if why else ""
        return f"{done} of {len(self.layers)} layers run as 2:4 with {self.backend}{rest}."

    def to_dict(self) -> dict:
        return {"summary": self.summary} | dataclasses.asdict(self)


@torch.no_grad()
def accelerate(model, masks: MaskSet | None = None) -> AccelerationReport:
    """Turn the weight of every 2:4 layer of `model`, in place, into a sparse one where device, dtype and shape allow it.

    What cannot be taken stays exactly as it is: on a CPU, everything. The dense weights are gone afterwards: load the
    model again to save, move or prune it.

    Parameters
    ----------
    model : transformers model
        With its masks applied; for inference only.
    masks : MaskSet, optional
        If given, layers without a mask and layers that are nonzero where theirs drops stay dense.

    Returns
    -------
    AccelerationReport
        Layer by layer, whether it is sparse now, and why not.

    Raises
    ------
    ProxSparseError
        Where the model has no prunable layer.

    References
    ----------
    torch.sparse.to_sparse_semi_structured, in the documentation of PyTorch.

    Examples
    --------
    >>> print(accelerate(lm.model).summary)  # doctest: +SKIP
    210 of 210 layers run as 2:4 with cuSPARSELt.
    """
    accelerator = Accelerator.of(next(model.parameters()).device)
    owners, skipped, results = _owners(model), prunable_layers(model, M).skipped, []
    for layer, reason in plan(model, accelerator, masks):
        shape = {"rows": layer.out_features, "columns": layer.in_features}
        if reason is None:
            reason = _replace(layer.parameter, owners[id(layer.parameter)], accelerator)
        results.append({"name": layer.name, **shape, "accelerated": reason is None, "reason": reason or ""})
    return AccelerationReport(results, accelerator.backend, skipped)


@torch.no_grad()
def plan(model, accelerator: Accelerator, masks: MaskSet | None = None) -> Iterator[tuple[PrunableLayer, str | None]]:
    """(layer, why it cannot be taken or None) of every prunable layer, if the model were on `accelerator`."""
    owners = _owners(model)
    layers = list(reversed(prunable_layers(model, M).values()))
    while layers:  # none is held on to: what `accelerate` replaces is freed at once
        layer = layers.pop()
        yield layer, _obstacle(layer, owners.get(id(layer.parameter), []), accelerator, masks)


def groups_not_two_four(matrix: Tensor) -> int:
    """How many groups of four in (out, in) have more than two nonzero weights."""
    return int((in_planes(matrix != 0, M).sum(0) > N).sum())


def compress(weight: Tensor, accelerator: Accelerator) -> Tensor:
    """A 2:4 CUDA weight (out, in) as torch's sparse tensor, tried in one product. Raises RuntimeError where torch
    refuses."""
    with warnings.catch_warnings():  # torch says once that this part of it is a prototype
        warnings.simplefilter("ignore", UserWarning)
        sparse = accelerator.kernels.from_dense(weight.contiguous())
        nn.functional.linear(weight.new_zeros(PROBE_ROWS, weight.shape[1]), sparse)
    return sparse


def refusal(error: Exception) -> str:
    """What is said of a layer that torch refused, one of REFUSALS, though its table takes it."""
    return f"torch refuses it ({(str(error).strip().splitlines() or [type(error).__name__])[0][:120]})"


def _obstacle(layer: PrunableLayer, owners: list, accelerator: Accelerator, masks: MaskSet | None) -> str | None:
    parameter = layer.parameter
    found = accelerator.obstacle()  # first: on a CPU nothing else counts
    if found is not None:
        return found
    if isinstance(parameter.data, SparseSemiStructuredTensor):
        return "it is sparse already"
    if layer.expert is not None:
        return "it is an expert in a three-dimensional parameter: the kernels take matrices of their own"
    if layer.transposed:
        return "it is a Conv1D, stored as (in, out): the kernels take (out, in)"
    if not owners or not all(isinstance(module, nn.Linear) for module, _ in owners):
        return "its module is no nn.Linear, and may do more with its weight than multiply"
    for module, _ in owners:
        if module.bias is not None and module.bias.dtype != parameter.dtype:
            return f"its bias is {dtype_name(module.bias.dtype)} and its weights are {dtype_name(parameter.dtype)}"
    found = accelerator.obstacle_to(layer.out_features, layer.in_features, parameter.dtype)
    if found is not None:
        return found
    if parameter.is_meta:  # a model without memory: its shapes are asked about
        return None
    if masks is not None:
        if layer.name not in masks:
            return "it has no mask"
        if bool(((layer.matrix != 0) & ~masks[layer.name].dense(layer.matrix.device)).any()):
            return "it is nonzero where its mask drops: apply the masks first"
    bad = groups_not_two_four(layer.matrix)
    if bad:
        return f"{bad:,} of its {layer.numel // M:,} groups are not 2:4"
    return None


def _replace(parameter: nn.Parameter, owners: list, accelerator: Accelerator) -> str | None:
    """Put a sparse weight in the place of `parameter`; returns why not."""
    try:
        sparse = nn.Parameter(compress(parameter.data, accelerator), requires_grad=False)
    except REFUSALS as error:
        return refusal(error)
    for module, name in owners:
        setattr(module, name, sparse)
    return None


def _owners(model) -> dict[int, list[tuple[nn.Module, str]]]:
    """{id of a parameter: the modules that hold it, and under which name}."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(id(parameter), []).append((module, name))
    return found


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
