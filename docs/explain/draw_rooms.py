"""Draws the rooms of the library, from what their modules import: python docs/explain/draw_rooms.py writes rooms.svg.

A room stands in the first row in which all rooms that it uses stand above it.
"""

from __future__ import annotations

import sys
from functools import cache
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":  # what pytest does for the tests
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]

from test_rooms import IMPORTS, ROOMS, room_of  # noqa: E402

PICTURE = HERE / "rooms.svg"
ABOUT = {
    "errors": "what a person reads",
    "bundled": "what comes along",
    "progress": "how far work is",
    "memory": "used, and left",
    "files": "written whole",
    "settings": "types, bounds, help",
    "layers": "what is prunable",
    "config": "what can be set",
    "accounts": "who may log in",
    "masks": "one bit a weight",
    "text": "corpora, windows",
    "proximal": "the operator",
    "models": "weights, forward pass",
    "learning": "one step in two halves",
    "export": "on disk, proven",
    "planning": "does it fit",
    "methods": "other ways to a mask",
    "reordering": "channels, in groups",
    "figures": "tables to charts",
    "evaluation": "how good it is",
    "runs": "directory and process",
    "report": "a run as one page",
    "cli": "the command line",
}
WIDE, HIGH, GAP, MARGIN = 158, 46, 14, 18
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#1f2933}.name{font-size:15px;font-weight:600}.about{font-size:11.5px;fill:#52606d}"
    "rect.room{fill:#eef3fb;stroke:#7b9acc}rect.app{fill:#fdf3e1;stroke:#d19a3a}"
)


def rows() -> list[list[str]]:
    """The rooms, row by row, in the order of ROOMS."""
    uses: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, imported in IMPORTS.items():
        uses[room_of(module)] |= {room_of(other) for other in imported} - {room_of(module)}

    @cache
    def row_of(room: str) -> int:
        return 1 + max(map(row_of, uses[room]), default=-1)

    return [[room for room in ROOMS if row_of(room) == row] for row in range(1 + max(map(row_of, ROOMS)))]


def drawn() -> str:
    """The picture, as SVG."""
    lines, top = [], MARGIN
    columns = max(map(len, rows()))
    width = 2 * MARGIN + columns * WIDE + (columns - 1) * GAP
    for row in rows():
        left = (width - len(row) * WIDE - (len(row) - 1) * GAP) / 2
        for place, room in enumerate(row):
            lines.append(_box(left + place * (WIDE + GAP), top, WIDE, room, ABOUT[room], "room"))
        top += HIGH + GAP
    lines.append(
        _box(MARGIN, top, width - 2 * MARGIN, "app", "the explorer: reads run directories, sends commands", "app")
    )
    height = top + HIGH + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _box(left: float, top: float, wide: float, name: str, about: str, kind: str) -> str:
    middle = left + wide / 2
    return (
        f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{wide:g}" height="{HIGH}" rx="6"/>'
        f'<text class="name" x="{middle:g}" y="{top + 20:g}" text-anchor="middle">{escape(name)}</text>'
        f'<text class="about" x="{middle:g}" y="{top + 36:g}" text-anchor="middle">{escape(about)}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
