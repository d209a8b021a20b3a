"""How the ranks of a run find each other, and what they say to each other beside their tensors."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from proxsparse.errors import ProxSparseError
from proxsparse.runs.ranks.start import Start, said_here

# What rank 0 tells the others to do, beside calls on their learners.
READ, COMPARE, CHECK, BEGIN, MEET, END = "read", "compare", "check", "begin", "meet", "end"
LONGEST_PAUSE = timedelta(days=365)  # for which the others may wait to be told


def join() -> Start:
    """Become one of the ranks that a launcher started, which has said in the environment who and where they are. All ranks call it."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, count = next(rendezvous("env://", timeout=LONGEST_PAUSE))
    if int(os.environ["LOCAL_WORLD_SIZE"]) == count:  # launchers keep the store: pytorch issue 135712
        store = dist.PrefixStore(f"start {said_here()[1]}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=LONGEST_PAUSE)
    start = Start.of(said_by_all(said_here()))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // start.machines[said_here()[0]]))
    return start


def tell(name: str, *arguments) -> None:
    """Tell the other ranks what to call."""
    dist.broadcast_object_list([(name, arguments)], device=torch.device("cpu"))


def told() -> tuple[str, tuple]:
    """What rank 0 tells."""
    message: list = [None]
    dist.broadcast_object_list(message, device=torch.device("cpu"))
    return message[0]


def said_by_all(value) -> list:
    """What each rank says, on every rank. All ranks call it."""
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def together(problem: str = "") -> None:
    """Go on once all ranks are here; all call it. Raises ProxSparseError on all of them where one says what keeps it from going on."""
    for rank, (machine, said) in enumerate(said_by_all((said_here()[0], problem))):
        if said:
            raise ProxSparseError(f"Process {rank} of {dist.get_world_size()} (from 0), on {machine}: {said}")
