"""A run of a tiny model that learned in this process, with all that a worker would have recorded."""

from made_runs import measurement, set_state
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, LearnJob, MaskLearner, Run
from proxsparse.files import append_record, write_json
from proxsparse.methods import magnitude
from proxsparse.runs.history.recorder import HistoryRecorder
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.recorder import Recorder


def recorded_run(path, family="llama", steps=6, **learn):
    """Returns the run, and {step: {layer: the mask after it, bool (rows, columns)}} as the learner had them."""
    values = {"steps": steps, "learning_rate": 2e-2, "lambda1": 0.05, "metric_windows": 4} | learn
    run = Run.create(LearnJob(learn=LearnConfig(**values)), path)
    model = tiny_model(family)
    others = magnitude(model, None, run.job().learn.n, run.job().learn.m).masks
    masks = {}
    with MaskLearner(model, random_windows(), run.job().learn) as learner:
        write_json(run.path / "layers.json", {"layers": learner.layers.describe(), "skipped": {}, "corpus": None})
        recorder = Recorder(run)
        recorder.update(step=0)
        history = HistoryRecorder.of(recorder, WatchedLearner(learner, others), run.job())
        masks[0] = unpacked(learner.masks())
        while not learner.done:
            learner.gradient_step()
            history.after_gradient()
            report = learner.prox_step()
            history.after_prox()
            recorder.record("layers", report.layer_record())
            recorder.record("steps", report.record())
            masks[report.step] = unpacked(learner.masks())
    append_record(run.path / "perplexity.jsonl", measurement(0, "learned"))
    set_state(run, "done", steps, steps=steps)
    return run, masks


def unpacked(masks):
    """{layer: bool array (rows, columns)}."""
    return {name: mask.dense().numpy() for name, mask in masks.items()}
