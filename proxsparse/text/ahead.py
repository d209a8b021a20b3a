"""Reading ahead: the next piece is fetched while the last one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.5


def read_ahead(items: Iterator[Item], waiting: Callable[[], None]) -> Iterator[Item]:
    """The same items, each fetched in a thread while the one before it is used.

    Parameters
    ----------
    items : iterator
        What it raises is raised here.
    waiting : callable
        Called at first, and now and then while the next item is not there yet. What it raises ends the reading, without waiting
        for the item.
    """
    end = object()
    pool = ThreadPoolExecutor(1)
    try:
        coming = pool.submit(next, items, end)
        waiting()
        while True:
            while not wait([coming], POLL_SECONDS).done:
                waiting()
            if (item := coming.result()) is end:
                return
            coming = pool.submit(next, items, end)
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
