"""What a run remembers of its masks, against masks that were recorded independently at each step."""

import numpy as np
import pytest
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, LearnJob, MaskLearner, Run
from proxsparse.files import write_json
from proxsparse.methods import magnitude
from proxsparse.runs.history.recorder import HistoryRecorder
from proxsparse.runs.recorder import Recorder

STEPS = 6


class Recorded:
    """A run directory in which a learner of this process recorded its history, and what was true at each step."""

    def __init__(self, path, family="llama", steps=STEPS, history=1.0, around=None, **learn):
        values = {"steps": steps, "learning_rate": 2e-2, "lambda1": 0.05, "metric_windows": 4} | learn
        self.job = LearnJob(history=history, learn=LearnConfig(**values), **(around or {}))
        self.model = tiny_model(family)
        self.run = Run.create(self.job, path)
        self.masks, self.tiles = {}, []
        self.make()
        write_json(self.run.path / "layers.json", {"layers": self.learner.layers.describe()})

    def make(self, state=None):
        learn = self.job.learn
        self.magnitude = magnitude(self.model, None, learn.n, learn.m).masks
        self.learner = MaskLearner(self.model, random_windows(), learn, state=state)
        self.recorder = Recorder(self.run)
        self.recorder.update(step=self.learner.step_index)
        self.history = HistoryRecorder.of(self.recorder, self.learner, self.magnitude, self.job)
        self.masks[self.learner.step_index] = self.projected()

    def projected(self):
        """The learner's own masks of this moment, unpacked."""
        return {name: mask.dense().numpy() for name, mask in self.learner.masks().items()}

    def soft(self, name):
        matrix, scale = self.learner.layers[name].matrix.float(), self.learner.scales[name]
        return (matrix if scale is None else matrix * scale).numpy().copy()

    def take(self, steps=STEPS, tile_of=None):
        for _ in range(steps):
            self.learner.gradient_step()
            self.history.after_gradient()
            if tile_of:
                self.tiles.append((self.learner.step_index + 1, "gradient", self.soft(tile_of)))
            self.learner.prox_step()
            self.history.after_prox()
            if tile_of:
                self.tiles.append((self.learner.step_index, "prox", self.soft(tile_of)))
            self.masks[self.learner.step_index] = self.projected()
        return self


CASES = [
    ("llama", 2, 4, "full", "activation"),
    ("llama", 1, 4, "lean", "weight"),
    ("gpt2", 2, 4, "lean", "activation"),
    ("gpt2", 1, 4, "full", "weight"),
    ("phi3", 2, 4, "full", "activation"),
    ("mixtral", 2, 4, "full", "activation"),
    ("llama", 1, 2, "full", "weight"),
]


@pytest.mark.parametrize(("family", "n", "m", "memory", "metric"), CASES)
def test_every_mask_at_every_step(tmp_path, family, n, m, memory, metric):
    made = Recorded(tmp_path / "run", family, n=n, m=m, memory=memory, metric=metric).take()
    history = made.run.history()
    assert list(history.layers) == list(made.learner.layers) and history.steps == list(range(STEPS + 1))
    changed = 0
    for name in history.layers:
        for step, masks in made.masks.items():
            assert np.array_equal(history.mask(name, step), masks[name]), f"{name} at step {step}"
        changed += len(history.flips(name))
    assert changed > 20, "there was something to record"
