"""A progress bar for what a command does itself, outside a worker."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Bar:
    """A tqdm bar behind the library's progress(done, total, what) calls; on stderr, where that is a terminal."""

    def __init__(self, what: str):
        self.bar = tqdm(desc=what, unit="", leave=False, file=sys.stderr, disable=None)

    def __enter__(self):
        return self.show

    def __exit__(self, *_):
        self.bar.close()

    def show(self, done: int, total: int, what: str) -> None:
        self.bar.total = total
        self.bar.set_description(what, refresh=False)
        self.bar.update(done - self.bar.n)  # drawn at most ten times a second
