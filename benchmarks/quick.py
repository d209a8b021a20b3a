"""The Quick preset for both metrics, side by side: perplexities, wall time, where a step's time goes, peak memory.

python benchmarks/quick.py                          learn on the bundled corpus, then print the table
python benchmarks/quick.py --corpus plain.txt       on a text of your own
python benchmarks/quick.py --runs runs/a runs/b     only print the table of runs that are done
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from proxsparse import Run

HALVES = {
    "seconds_gradient": "forward + backward", "seconds_optimizer": "optimizer", "seconds_prox": "prox",
    "seconds_report": "report",
}  # fmt: skip


def learn(corpus: str, metric: str, directory: Path) -> Run:
    command = [sys.executable, "-m", "proxsparse", "learn", "--preset", "Quick", "--corpus", corpus, "--metric", metric]
    subprocess.run([*command, "--out", str(directory)], check=True)
    return Run(directory)


def measured(run: Run) -> dict:
    """The figures of one finished run."""
    state, steps, found = run.state(), run.table("steps"), run.table("perplexity")
    final = found[found["scope"] == "final"].set_index("mask")
    seconds = steps["seconds"].median()
    figures = {"metric": run.job().learn.metric, "corpus": Path(run.job().corpus).name, "device": state["device"]}
    figures |= {mask: round(final.loc[mask, "perplexity"], 2) for mask in ("dense", "magnitude", "learned")}
    figures |= {"learned / dense": round(figures["learned"] / figures["dense"], 2)}
    figures |= {"wall time, s": round(state["elapsed"]), "median step, s": round(seconds, 2)}
    figures |= {f"{name}, share": round(steps[column].median() / seconds, 3) for column, name in HALVES.items()}
    return figures | {"peak memory, GB": round(state["peak_bytes"] / 1e9, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="bundled")
    parser.add_argument("--runs", nargs="*", help="runs that are done; nothing is learned")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.runs:
        runs = [Run(path) for path in arguments.runs]
    else:
        root = Path(tempfile.mkdtemp(prefix="quick-", dir="."))
        runs = [learn(arguments.corpus, metric, root / metric) for metric in ("activation", "weight")]
    table = [measured(run) for run in runs]
    for name in table[0]:
        print(f"| {name} | " + " | ".join(str(figures[name]) for figures in table) + " |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
