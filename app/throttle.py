"""How fast somebody may guess: after a few wrong guesses each further one doubles the wait, whoever asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

FREE = 3  # wrong guesses without a wait: people mistype
LONGEST = 15 * 60.0  # seconds
FORGOTTEN = 60 * 60.0  # seconds after the last wrong guess
MOST = 10_000  # keys that are remembered


@dataclass
class Guesses:
    """count: wrong ones so far. last: when the last one was. until: before when no other is looked at."""

    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Throttle:
    """Counts wrong guesses by key, such as a name or an address.

    A guess counts as wrong from when it begins, so that a thousand sent at once are one guess and 999 refusals; `right`
    takes it back. A refused guess does not count, so that the wait ends for who waits. Of more keys than MOST those that
    were guessed least are forgotten: to push a key out one has to guess others as often.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._guesses: dict[Hashable, Guesses] = {}

    def wait(self, *keys: Hashable) -> float:
        """Seconds until a guess under all these keys is looked at; 0: it may begin now, and is counted."""
        now = self._clock()
        known = [found for key in keys if (found := self._guesses.get(key)) and now - found.last < FORGOTTEN]
        seconds = max((found.until - now for found in known), default=0.0)
        if seconds > 0:
            return seconds
        for key in keys:
            self._count(key, now)
        return 0.0

    def right(self, *keys: Hashable) -> None:
        """The guess under these keys was none: it is no longer counted."""
        for key in keys:
            if found := self._guesses.get(key):
                found.count, found.until = found.count - 1, 0.0

    def _count(self, key: Hashable, now: float) -> None:
        found = self._guesses.get(key)
        if found is None or now - found.last >= FORGOTTEN:
            if len(self._guesses) >= MOST:
                self._forget(now)
            found = self._guesses[key] = Guesses()
        found.count, found.last = found.count + 1, now
        if found.count >= FREE:
            found.until = now + min(2.0 ** (found.count - FREE), LONGEST)

    def _forget(self, now: float) -> None:
        old = [key for key, found in self._guesses.items() if now - found.last >= FORGOTTEN]
        for key in old or [min(self._guesses, key=lambda key: (self._guesses[key].count, self._guesses[key].last))]:
            del self._guesses[key]
