"""Run directories with made-up records, as a worker would have written them."""

import json

import numpy as np
from safetensors.numpy import save_file

from proxsparse import CompareJob, Comparison, LearnConfig, LearnJob, Run
from proxsparse.files import append_record, read_json, write_json

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
COLUMNS = ("regularizer", "nonzeros_4", "nonzeros_3", "nonzeros_2", "nonzeros_1", "flips", "flips_from_start", "drift")


def made_run(path, blocks=2, steps=0, total=5000, **job):
    """A run of `steps` steps, of a model of `blocks` blocks with seven layers each."""
    run = Run.create(LearnJob(learn=LearnConfig(steps=total), **job), path)
    describe(run, blocks)
    for mask in ("dense", "magnitude", "learned"):
        append_record(run.path / "perplexity.jsonl", measurement(0, mask))
    append_record(run.path / "events.jsonl", {"time": 0.0, "step": 0, "event": "started"})
    add_steps(run, 1, steps)
    set_state(run, "done" if steps else "new", steps)
    return run


def describe(run, blocks):
    """Write down the layers of a model of so many blocks, and a text."""
    layers = [
        {"name": f"layers.{block}.{name}", "block": block, "projection": name, "rows": 64, "columns": 64}
        for block in range(blocks)
        for name in PROJECTIONS
    ]
    corpus = {"name": "text", "sha256": "0" * 64, "calibration_tokens": 1000, "heldout_tokens": 1000}
    write_json(run.path / "layers.json", {"layers": layers, "skipped": {}, "corpus": corpus})


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


def made_comparison(
    path, methods=("magnitude", "wanda", "proxsparse"), blocks=2, status="done", measured=None, masks=False, **job
):
    """A comparison of made-up results. measured: how many of its methods are; masks: whether theirs lie on disk, all alike."""
    job = {"evaluate_on": ("other.txt",), "prompts": ("Once",)} | job
    run = Run.create_kind("compare", {"compare": CompareJob(methods=methods, **job).to_dict()}, path)
    describe(run, blocks)
    names = ["dense", *Comparison(run).job.methods]
    for index, name in enumerate(names if measured is None else names[: measured + 1]):
        add_result(run, name, 4.0 - index / 10, masks)
    count, done = len(run.layers()), names[1:]
    if measured is None:
        overlaps = {f"{a} | {b}": [0.7] * count for place, a in enumerate(done) for b in done[place + 1 :]}
        errors = {name: [0.2] * count for name in done}
        write_json(run.path / "layers_compared.json", {"overlap": overlaps, "output_error": errors, "windows": 2})
    set_state(run, status, len(names) if measured is None else measured + 1, steps=len(names) + 2)
    return run


def add_result(run, name, loss, masks=False):
    """A method of a comparison is measured."""
    random, folder = np.random.default_rng(len(name)), run.path / "results" / name
    losses = (loss + 0.1 * random.normal(size=6)).tolist()
    result = {
        "method": name, "weights_changed": name == "sparsegpt-update", "seconds": None if name == "dense" else 10 * loss,
        "peak_bytes": None if name == "dense" else 10**9, "losses": losses, "completions": [f"and so on <{name}>"], "context": 32,
    }  # fmt: skip
    if masks:
        folder.mkdir(parents=True, exist_ok=True)
        kept = np.full((64, 8), 0b00110011, dtype=np.uint8)
        about = {"proxsparse": json.dumps({})}
        save_file({layer: kept for layer in run.layers()["name"]}, folder / "masks.safetensors", about)
    write_json(folder / "judged.json", [{"text": "other.txt", "sha256": "1" * 64, "context": 32, "losses": losses[:4]}])
    write_json(folder / "result.json", result)
