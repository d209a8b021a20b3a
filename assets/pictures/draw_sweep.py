"""Draws sweep.png, the perplexities that a sweep found, from benchmarks/results/sweep.csv: python assets/pictures/draw_sweep.py

The table is `Sweep(run).table()` of the sweep that docs/explain/benchmarks.md tells of.
"""

from pathlib import Path

import pandas as pd

from proxsparse import figures

HERE = Path(__file__).resolve().parent
TRIALS = HERE.parents[1] / "benchmarks" / "results" / "sweep.csv"

if __name__ == "__main__":
    figures.sweep(pd.read_csv(TRIALS)).write_image(HERE / "sweep.png", width=900, height=460, scale=1.5)
