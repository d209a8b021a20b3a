"""The processes that learn one mask together, in `torch.distributed`'s terms: ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """index: which of `count` processes this is. One that is alone needs no process group, and waits for nobody.

    What all ranks call is called by all of them in the same order, or they wait for each other for ever.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> Ranks:
        """Those of the process group that `torch.distributed.init_process_group` has made; alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return ALONE
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def on_this_machine(self) -> int:
        """How many of them are on this machine, as their launcher says."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.count))

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor, in place its sum over all ranks. All ranks call it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def gathered(self, found: Any) -> list[Any]:
        """What each rank has found, on rank 0; nothing on the others. All ranks call it."""
        each: list[Any] | None = [None] * self.count if self.index == 0 else None
        dist.gather_object(found, each)
        return each or []

    def share(self, items: Tensor) -> tuple[Tensor, float]:
        """(this rank's part of `items`, what share of them it is), so that all parts together are `items`.

        Where there are fewer items than ranks, a rank without one gets the first, and the share 0: it has to take part in
        whatever the others do with theirs.
        """
        own = items[self.index :: self.count]
        return (own, len(own) / len(items)) if len(own) else (items[:1], 0.0)

    def own_seed(self, seed: int) -> int:
        """A seed that no other rank has, and none for another `seed`; `seed` itself where this process is alone."""
        return seed * self.count + self.index

    def first_of(self, size: int) -> int:
        """Where this rank's part of a dimension begins, as torch.chunk cuts it: the last parts may be shorter, or empty."""
        return min(self.index * -(-size // self.count), size)


ALONE = Ranks()
