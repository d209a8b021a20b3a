"""Charts and texts as they are sent to pages, each made once for all who look at the same thing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import plotly.graph_objects as go

from app.live_plot import as_value

KEPT = 128  # of up to some 20 kB


class Drawn:
    """The newest charts and texts, by what they show. While one is made, others who want the same wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Future[str]] = OrderedDict()

    def chart(self, key: Hashable, draw: Callable[[], go.Figure]) -> str:
        """The chart that `key` stands for, as JSON; `draw` is called where nobody has drawn it."""
        return self.text(key, lambda: as_value(draw()))

    def text(self, key: Hashable, make: Callable[[], str]) -> str:
        """What `key` stands for; `make` is called where nobody has made it. What it raises, everybody who waits gets."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                self._known[key] = mine = Future()
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            else:
                self._known.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            mine.set_result(make())
        except BaseException as error:
            with self._lock:
                self._known.pop(key, None)  # the next one tries again
            mine.set_exception(error)
            raise
        return mine.result()


SHARED = Drawn()
