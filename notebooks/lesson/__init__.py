"""What the lessons share: whether to be quick, sliders, and checks that say what is wrong with an answer.

The notebooks import it from the folder that they lie in (in `student/` it is a link).
"""

import os
from pathlib import Path

from lesson.exploring import explore

# FAST=1: fewer windows and steps, so that a lesson runs in well under two minutes on two cores.
FAST = os.environ.get("FAST") == "1"

# What the project carries: a run of 80 steps with every change of its masks, and a comparison of twelve methods on five texts.
ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXAMPLE_RUN, EXAMPLE_COMPARISON = ASSETS / "example-run", ASSETS / "example-comparison"

__all__ = ["EXAMPLE_COMPARISON", "EXAMPLE_RUN", "FAST", "explore"]
