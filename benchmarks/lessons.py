"""How long the lessons take, with FAST=1 and without: each runs from top to bottom in a kernel of its own, one after the other.

python benchmarks/lessons.py [02 03 …] [--json FILE]

Importing the libraries and loading the embedded model are part of it; starting the kernel and drawing pictures of the figures are not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))  # editions.py is a script of that folder, not a package
import editions  # noqa: E402


def seconds(source: Path, fast: bool) -> float:
    """Of all cells of a lesson's instructor edition, solutions included."""
    notebook = editions.instructor_edition(source)
    client = editions.client(notebook)
    os.environ["FAST"] = "1" if fast else ""
    with client.setup_kernel():
        started = time.perf_counter()
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="beginnings of names, such as 02 (all of them)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = {}
    print("| lesson | FAST=1, s | whole, s |\n|---|---|---|")
    for source in editions.SOURCES:
        if not options.lessons or source.name.startswith(tuple(options.lessons)):
            row = {"fast": round(seconds(source, fast=True)), "whole": round(seconds(source, fast=False))}
            print(f"| {source.stem} | {row['fast']} | {row['whole']} |", flush=True)
            rows[source.stem] = row
    if options.json:
        about = {"device": f"{platform.machine()}, {os.cpu_count()} cores"}
        options.json.write_text(json.dumps(about | {"seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
