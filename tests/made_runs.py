"""Run directories with made-up records, as a worker would have written them."""

import json

import numpy as np

from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.files import append_record, read_json, write_json

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
COLUMNS = ("regularizer", "nonzeros_4", "nonzeros_3", "nonzeros_2", "nonzeros_1", "flips", "flips_from_start", "drift")


def made_run(path, blocks=2, steps=0, total=5000, **job):
    """A run of `steps` steps, of a model of `blocks` blocks with seven layers each."""
    run = Run.create(LearnJob(learn=LearnConfig(steps=total), **job), path)
    layers = [
        {"name": f"layers.{block}.{name}", "block": block, "projection": name, "rows": 64, "columns": 64}
        for block in range(blocks)
        for name in PROJECTIONS
    ]
    corpus = {"name": "text", "sha256": "0" * 64, "calibration_tokens": 1000, "heldout_tokens": 1000}
    write_json(run.path / "layers.json", {"layers": layers, "skipped": {}, "corpus": corpus})
    for mask in ("dense", "magnitude", "learned"):
        append_record(run.path / "perplexity.jsonl", measurement(0, mask))
    append_record(run.path / "events.jsonl", {"time": 0.0, "step": 0, "event": "started"})
    add_steps(run, 1, steps)
    set_state(run, "done" if steps else "new", steps)
    return run


def set_state(run, status, step, **more):
    state = read_json(run.path / "state.json")
    about = {"status": status, "step": step, "doing": status, "updated": 1.0, "phase": "gradient", "lambda1": 0.1}
    write_json(run.path / "state.json", state | about | more)


def add_steps(run, first, last):
    """Append the records of steps `first` to `last`, all in one write: thousands would take minutes one by one."""
    count, random = len(run.layers()), np.random.default_rng(first)
    with open(run.path / "layers.jsonl", "a") as layers, open(run.path / "steps.jsonl", "a") as steps:
        for step in range(first, last + 1):
            values = {name: random.random(count).tolist() for name in COLUMNS}
            layers.write(json.dumps({"step": step, **values}) + "\n")
            steps.write(json.dumps(step_record(step, random)) + "\n")


def step_record(step, random):
    shares = dict(zip(("nonzeros_4", "nonzeros_3", "nonzeros_2", "nonzeros_1"), random.dirichlet([1] * 4), strict=True))
    return {
        "step": step, "loss": 3 + random.normal(), "regularizer": 100.0, "lambda1": step * 1e-5, "learning_rate": 1e-3,
        "gradient_norm": 1.0, **shares, "flips": int(random.integers(1, 1000)), "flips_from_start": step + 1, "drift": 0.1,
        "seconds": 1.0, "tokens_per_second": 500.0, "time": float(step),
    }  # fmt: skip


def measurement(step, mask, scope="live"):
    return {
        "step": step, "mask": mask, "scope": scope, "perplexity": 50.0 + 1 / (step + 1), "stderr": 1.0, "tokens": 1000,
        "windows": 2, "context": 512, "seconds": 1.0,
    }  # fmt: skip
