"""What a run costs while another one computes: the median step of one run alone, and of two at once.

    python benchmarks/together.py [--steps 12] [--spinning]

Both take the same steps of the embedded model. With --spinning OpenMP's threads wait as they do by default, which is what happens to
runs beside a program that waits so. Ratios are printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.runs.queue import WORKERS

FIRST = 2  # steps that warm up, and are not counted


def median_steps(folder: Path, count: int, steps: int) -> list[float]:
    """Median seconds of a step of each of `count` runs that are started at once."""
    runs = []
    for index in range(count):
        around = {"evaluate_every": 0, "checkpoint_every": 0, "windows": 1, "live_windows": 1, "history": 0}
        runs.append(
            Run.create(
                LearnJob(**around, learn=LearnConfig(steps=steps, metric_windows=2)), folder / f"{count}-{index}"
            )
        )
    for process in [run.start() for run in runs]:
        process.wait()
    medians = []
    for run in runs:
        state, table = run.state(), run.table("steps")
        if state["status"] != "done":
            raise SystemExit(f"{run.id} did not end well: {state.get('error') or state['doing']}")
        medians.append(float(table["seconds"].iloc[FIRST:].median()))
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--spinning", action="store_true")
    arguments = parser.parse_args()
    os.environ[WORKERS] = "2"
    if arguments.spinning:
        os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
    with tempfile.TemporaryDirectory() as folder:
        (alone,) = median_steps(Path(folder), 1, arguments.steps)
        both = median_steps(Path(folder), 2, arguments.steps)
    print(
        f"| threads wait {'spinning' if arguments.spinning else 'asleep'} | median step | over one alone |\n|---|---|---|"
    )
    print(f"| one run | {alone:.2f} s | 1 |")
    print(f"| each of two at once | {max(both):.2f} s | {max(both) / alone:.2f} |")


if __name__ == "__main__":
    main()
