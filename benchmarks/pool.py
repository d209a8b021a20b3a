"""Tasks of a benchmark, one after the other or several at once, each worker with a bench of its own."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

Task = TypeVar("Task")


def measured(
    make_bench: Callable, about: tuple, tasks: list[Task], workers: int, minutes: float
) -> Iterator[tuple[Task, dict]]:
    """(task, what `make_bench(*about).measure(task)` gives), as they are done; what fails is told and left out, and so is what is not
    done after so many minutes."""
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    waiting, found = context.Queue(), context.Queue()
    for task in tasks:
        waiting.put(task)
    processes = [
        context.Process(target=_work, args=(make_bench, about, waiting, found), daemon=True) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    missing = len(tasks)
    while missing and (any(process.is_alive() for process in processes) or not found.empty()):
        if time.monotonic() - began > 60 * minutes:
            print(f"time is up, {missing} left", flush=True)
            break
        try:
            task, result = found.get(timeout=1)
        except queue.Empty:
            continue
        missing -= 1
        if isinstance(result, str):
            print(task, "failed:", result, file=sys.stderr, flush=True)
        else:
            yield task, result
    for process in processes:
        process.terminate()


def _work(make_bench: Callable, about: tuple, waiting, found) -> None:
    bench = make_bench(*about)
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            found.put((task, bench.measure(task)))
        except Exception:  # of one task of many: the others are still worth their time
            found.put((task, traceback.format_exc()))
