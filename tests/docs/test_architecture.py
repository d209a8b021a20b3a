"""The page on the architecture knows every room, and draws them as they are."""

import re
import runpy
from pathlib import Path

from test_rooms import ROOMS

PAGE = Path("docs/explain/architecture.md").read_text(encoding="utf-8")
DRAWING = runpy.run_path("docs/explain/draw_rooms.py")


def test_the_picture_is_of_the_rooms_as_they_are():
    assert DRAWING["PICTURE"].read_text(encoding="utf-8") == DRAWING["drawn"](), "run python docs/explain/draw_rooms.py"
    assert sorted(room for row in DRAWING["rows"]() for room in row) == sorted(ROOMS)


def test_the_page_says_what_every_room_does():
    named = {name for found in re.findall(r"`([^`]+)`", PAGE) for name in re.findall(r"[a-z]+", found)}
    assert set(ROOMS) <= named, set(ROOMS) - named
