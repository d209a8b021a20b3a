"""Pause, resume and stop, on every screen that shows something at work."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gradio as gr

from proxsparse.runs import Run
from proxsparse.runs.directory import ACTIVE

GOES_ON = ("paused", "stopped", "interrupted", "failed", "new")  # what can be resumed


def steer(run: Run, command: str) -> None:
    """Send the run a command; `resume` starts a worker where none is at rest."""
    if command == "resume" and run.state()["status"] != "paused":
        run.start()
    else:
        run.send(command)


def buttons(status: str | None, asked: Collection[str], changeable: bool = True) -> dict[str, dict[str, Any]]:
    """{command: update of its button}: which of them can be pressed. asked: the commands that are not handled yet. changeable:
    False for what is only looked at."""
    return {
        "pause": gr.update(interactive=changeable and status == "running" and "pause" not in asked),
        "resume": gr.update(interactive=changeable and status in GOES_ON),
        "stop": gr.update(
            interactive=changeable and status in ACTIVE and "stop" not in asked,
            value="Withdraw" if status == "waiting" else "Stop",
        ),
    }
