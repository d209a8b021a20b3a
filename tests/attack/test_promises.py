"""docs/security.md names only tests and files that are there."""

import re
from pathlib import Path

SAID = Path("docs/security.md").read_text(encoding="utf-8")


def test_every_promise_is_tried():
    tests = {
        name
        for path in Path("tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    named = set(re.findall(r"`(test_\w+)`", SAID))
    assert len(named) > 25 and named <= tests, named - tests
    promises = [line for line in SAID.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(promises) > 12 and all("`test_" in line for line in promises)


def test_the_files_that_keep_them_are_there():
    files = re.findall(r"`((?:app|proxsparse|tests)/[\w./]+)`", SAID)
    files += [f"tests/attack/{name}" for name in re.findall(r"`(test_\w+\.py)`", SAID)]
    assert len(files) > 8 and [name for name in files if not Path(name).exists()] == []
