"""What one pass of a step keeps in memory, found without memory: the pass is run on tensors that have a shape alone.

Forward, recomputation and backward are those of the learner (Chen et al. 2016, arXiv 1604.06174, for the lean plan); every
storage is counted from the operation that makes it to its release, as an allocator would. Fake tensors
(`torch._subclasses.FakeTensorMode`) follow the types of autocast and the kernels' own formulas of what they save. What a
kernel takes for itself while it runs is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.pytorch_utils import Conv1D

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers
from proxsparse.learning.gradients import summed_gradients
from proxsparse.learning.lean_update import LeanUpdate
from proxsparse.learning.originals import holding
from proxsparse.learning.recomputed import recomputed
from proxsparse.learning.stochastic_adamw import StochasticAdamW


@dataclass(frozen=True)
class PassBytes:
    """kept: what forward has left for backward when it ends. peak: the most at any moment, gradients included. Weights that were there
    before, logits and the loss are not in it."""

    kept: int
    peak: int


def pass_bytes(
    model: nn.Module,
    layers: PrunableLayers,
    windows: tuple[int, int],
    memory: Literal["full", "lean"],
    loss_at: Literal["masked", "soft"],
    arithmetic: torch.dtype,
    recompute: bool = False,
) -> PassBytes:
    """What a pass over `windows`, (count, length), takes beside the weights.

    Parameters
    ----------
    model
        On the meta device; it is as it was afterwards.
    layers
        Its prunable layers.
    arithmetic
        In which matrices are multiplied.
    recompute
        Of the full plan; the lean one computes each block again anyway.
    """
    trained = layers.parameters()
    soft = torch.bfloat16 if memory == "lean" else torch.float32
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | Conv1D)}
    dtypes = {parameter: soft for parameter in trained}
    others = None if memory == "lean" else torch.float32  # None: as they are
    with FakeTensorMode(), _with_fakes(model, dtypes, others) as fakes:
        learned = {fakes[parameter]: arithmetic if id(parameter) in linear else soft for parameter in trained}
        model.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_(True)

        def masked(parameter: nn.Parameter) -> Tensor:
            return torch.empty_like(parameter, dtype=learned[parameter])

        loss_weight = masked if loss_at == "masked" else None
        moments: list[Tensor] = []
        if memory == "lean":
            originals = {parameter: parameter.data for parameter in learned}
            update = LeanUpdate(model, originals, LearnConfig(memory="lean"))
            update.optimizer = _FirstPiece(list(originals))
            moments = _moments_of(update)
            held, updates, blocks = nullcontext(), update.updating_at_once(), recomputed(model, learned, loss_weight)
        else:
            held = nullcontext() if loss_weight is None else holding(learned, loss_weight)
            updates = summed_gradients({parameter: parameter for parameter in learned})
            blocks = recomputed(model, ()) if recompute else nullcontext()
        cast = torch.autocast("cpu", arithmetic, enabled=arithmetic == torch.bfloat16)
        ids = torch.zeros(windows, dtype=torch.int64)
        with updates, held, blocks, _Counted(ids, *moments, *model.parameters(), *model.buffers()) as counted:
            with cast:
                hidden = model.base_model(input_ids=ids, use_cache=False)[0]
            kept = counted.now
            hidden.backward(torch.empty_like(hidden))
            return PassBytes(kept, counted.peak)


class _FirstPiece(StochasticAdamW):
    """Updates the first piece of each parameter alone. No piece is larger, and each one's memory is released before the next."""

    @staticmethod
    def pieces(*whole: Tensor) -> Iterator[tuple[Tensor, ...]]:
        return islice(StochasticAdamW.pieces(*whole), 1)


def _moments_of(update: LeanUpdate) -> list[Tensor]:
    """Those that it has from the first step on."""
    made = []
    for parameter in update.originals:
        both = {name: torch.empty_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        update.optimizer.state[parameter] = {"step": torch.tensor(1.0)} | both
        made += both.values()
    return made


class _Counted(TorchDispatchMode):
    """While open, counts the bytes of the storages that operations make and that are not released. Those of `given` count as nothing."""

    def __init__(self, *given: Tensor):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


@contextmanager
def _with_fakes(
    model: nn.Module, dtypes: dict[nn.Parameter, torch.dtype], others: torch.dtype | None
) -> Iterator[dict[Tensor, Tensor]]:
    """While open, the model holds fake tensors in place of those on the meta device, floating ones in the dtype given or in `others`:
    {one that it had: its fake}."""
    before = [
        (held, name, tensor)
        for module in model.modules() for held in (module._parameters, module._buffers)
        for name, tensor in held.items() if tensor is not None
    ]  # fmt: skip
    fakes: dict[Tensor, Tensor] = {}
    try:
        for held, name, tensor in before:
            if tensor not in fakes:
                dtype = dtypes.get(tensor, others if tensor.is_floating_point() else None)
                fake = torch.empty(tensor.shape, dtype=dtype or tensor.dtype)
                fakes[tensor] = nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake
            held[name] = fakes[tensor]
        yield fakes
    finally:
        for held, name, tensor in before:
            held[name] = tensor
