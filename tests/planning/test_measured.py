"""What is planned, against what learning takes: on the CPU, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planning.shapes_of_models import MIDDLE, write_config

from proxsparse import prunable_layers
from proxsparse.models.without_weights import load_without_weights
from proxsparse.planning.memory import Load, row
from proxsparse.planning.shapes import Shapes

HERE = Path(__file__).parent
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "10000000"}  # a tensor that is freed is given back
MOST_OFF = 0.05


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("memory", "loss_at", "length"),
    [
        ("full", "masked", 600),
        ("full", "soft", 600),
        ("lean", "masked", 600),
        ("lean", "soft", 600),
        ("full", "masked", 32),
    ],
)
def test_the_plan_is_what_learning_takes(memory, loss_at, length, tmp_path):
    """600 tokens: activations count; 32: gradients do. Windows above 512 tokens have the fused attention of a GPU."""
    file = write_config(tmp_path, MIDDLE) / "config.json"
    command = [sys.executable, str(HERE / "learn_measured.py"), str(file), memory, loss_at, "2", str(length)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | AT_ONCE, timeout=550)
    assert ran.returncode == 0, ran.stderr
    model = load_without_weights(str(file))
    load = Load(2, length, teacher=False, device="cpu")
    planned = row(Shapes("middle", model, prunable_layers(model)), memory, loss_at, 1, load).total
    assert abs(planned / int(ran.stdout) - 1) < MOST_OFF, f"{planned:,} planned, {int(ran.stdout):,} measured"
