"""Waiting for what another process does."""

import time


def until(condition, seconds=180):
    """Return as soon as `condition()` holds; fail when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
