"""Makes the recorded comparison that the Compare screen shows before anybody started one, of a comparison that is done.

    proxsparse compare --methods random magnitude … proxsparse --out runs/recorded
    python assets/record_comparison.py runs/recorded

What is measured comes along: losses, completions, costs, overlaps and output errors of the layers. Masks and weights, hundreds of
megabytes, do not; nor do the places of texts on this machine, of which the names are left.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from proxsparse.config import text_name
from proxsparse.files import read_json, write_json
from proxsparse.runs import Comparison, Run

TARGET = Path(__file__).parent / "example-comparison"
DIGITS = 4  # of overlaps and errors of the layers, of which there are thousands


def record(run: Run, target: Path) -> None:
    """Write what is to be shown of a comparison. Raises ProxSparseError where it is none."""
    comparison = Comparison(run)
    assert run.state()["status"] == "done", "record a comparison that is done"
    assert not comparison.failures(), comparison.failures()
    shutil.rmtree(target, ignore_errors=True)
    header = run.header()
    asked = header["compare"] | {"evaluate_on": [text_name(text) for text in comparison.job.judged_on]}
    write_json(target / "run.json", header | {"compare": asked, "recorded": True})
    state = run.state()
    write_json(
        target / "state.json",
        {name: state[name] for name in ("status", "step", "steps", "doing", "elapsed", "device", "updated")},
    )
    shutil.copyfile(run.path / "layers.json", target / "layers.json")
    compared = read_json(run.path / "layers_compared.json")
    for kind in ("overlap", "output_error"):
        compared[kind] = {name: [round(value, DIGITS) for value in values] for name, values in compared[kind].items()}
    write_json(target / "layers_compared.json", compared)
    for name in comparison.results():
        for file in ("result.json", "judged.json"):
            target_file = target / "results" / name / file
            target_file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / "results" / name / file, target_file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=TARGET)
    arguments = parser.parse_args()
    record(Run(arguments.run), arguments.to)
