"""What a run remembers of its masks, against masks that were recorded independently at each step."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, LearnJob, MaskLearner, ProxSparseError, Run
from proxsparse.files import write_json
from proxsparse.methods import magnitude, wanda
from proxsparse.runs.directory import numbered_file
from proxsparse.runs.history.recorder import HistoryRecorder
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.recorder import Recorder

STEPS = 6
LAYER = "model.layers.0.mlp.up_proj"


class Recorded:
    """A run directory in which a learner of this process recorded its history, and what was true at each step."""

    def __init__(self, path, family="llama", steps=STEPS, history=1.0, around=None, **learn):
        values = {"steps": steps, "learning_rate": 2e-2, "lambda1": 0.05, "metric_windows": 4} | learn
        self.job = LearnJob(history=history, learn=LearnConfig(**values), **(around or {}))
        self.family, self.model = family, tiny_model(family)
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
        self.history = HistoryRecorder.of(self.recorder, WatchedLearner(self.learner, self.magnitude), self.job)
        self.masks[self.learner.step_index] = self.projected()

    def projected(self):
        """The learner's own masks of this moment, unpacked."""
        return {name: mask.dense().numpy() for name, mask in self.learner.masks().items()}

    def checkpoint(self):
        tensors, rest = self.learner.state_dict()
        return {name: tensor.clone() for name, tensor in tensors.items()}, rest

    def resume(self, state):
        """Begin again from a checkpoint, as a new worker does."""
        self.model = tiny_model(self.family)
        self.masks = {step: masks for step, masks in self.masks.items() if step <= state[1]["step"]}
        self.make(state)
        return self

    def events(self):
        return self.run.table("events")["event"].tolist() if (self.run.path / "events.jsonl").exists() else []

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
    history = assert_all_right(made)
    assert list(history.layers) == list(made.learner.layers) and history.steps == list(range(STEPS + 1))
    changed = sum(len(made.run.flips(name)) for name in history.layers)
    assert changed > 20, "there was something to record"


def assert_all_right(made):
    """Every recorded mask is what the learner had."""
    history = made.run.history()
    for name in history.layers:
        for step in history.steps:
            assert np.array_equal(history.mask(name, step), made.masks[step][name]), f"{name} at step {step}"
    return history


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Llama of two layers, metric `activation`; one layer's soft weights are kept beside the history."""
    return Recorded(tmp_path_factory.mktemp("runs") / "made").take(tile_of=LAYER)


def test_the_flips_lead_from_the_start_mask_to_every_other(made):
    start = made.run.reference_mask(LAYER, "start")
    rows, columns = start.shape
    codes = start.reshape(rows, columns // 4, 4) @ (1, 2, 4, 8)
    table = made.run.flips(LAYER)
    assert list(table) == ["step", "row", "group", "before", "after"] and table["step"].is_monotonic_increasing
    for step in range(1, STEPS + 1):
        now = table[table["step"] == step]
        assert not now.duplicated(["row", "group"]).any() and (now["before"] != now["after"]).all()
        assert np.array_equal(codes[now["row"], now["group"]], now["before"])
        codes[now["row"], now["group"]] = now["after"]
        assert np.array_equal(codes, made.masks[step][LAYER].reshape(rows, columns // 4, 4) @ (1, 2, 4, 8))


def test_the_tile_holds_the_soft_weights_after_each_half(made):
    row, column, rows, columns = made.run.tile_position(LAYER)
    assert (rows, columns) == (8, 16) and column % 4 == 0
    table = made.run.tile(LAYER)
    assert len(table) == (2 * STEPS + 1) * rows * columns and table["step"].iloc[0] == 0
    inside = np.s_[row : row + rows, column : column + columns]
    before = table[table["step"] == 0]["weight"].to_numpy()
    assert (table[table["step"] == 0]["moved"] == 0).all()
    for step, half, soft in made.tiles:
        found = table[(table["step"] == step) & (table["half"] == half)]
        assert found["row"].tolist() == np.repeat(range(row, row + rows), columns).tolist()
        assert found["column"].tolist() == [*range(column, column + columns)] * rows
        expected = soft[inside].reshape(-1)
        size = abs(expected).max()
        assert np.abs(found["weight"] - expected).max() < size * 2**-9
        moved = expected - before
        assert np.abs(found["moved"] - moved).max() <= np.abs(moved).max() * 2**-9 + size * 2**-8
        before = expected
    prox = table[table["half"] == "prox"]
    assert (prox[prox["step"] > 0]["moved"] != 0).any()


def test_the_summaries_are_those_of_the_masks(made):
    history = made.run.history()
    assert history.pattern_names == {3: "1100", 5: "1010", 6: "0110", 9: "1001", 10: "0101", 12: "0011"}
    for name in history.layers:
        table = made.run.patterns(name).set_index("step")
        assert np.allclose(table[list(history.pattern_names.values())].sum(axis=1), 1)
        for step, masks in made.masks.items():
            mask = masks[name]
            for pattern in history.pattern_names.values():
                wanted = np.array([digit == "1" for digit in pattern])
                assert table.loc[step, pattern] == (mask.reshape(-1, 4) == wanted).all(1).mean()
            for kind in ("start", "magnitude", "wanda"):
                other = history.reference_mask(name, kind)
                assert table.loc[step, f"agreement_{kind}"] == pytest.approx((mask & other).sum() / mask.sum())
                assert (
                    history.agreement_with(name, other)[history.steps.index(step)]
                    == table.loc[step, f"agreement_{kind}"]
                )
                assert history.agreement(kind).loc[step, name] == table.loc[step, f"agreement_{kind}"]


def test_the_reference_masks_are_those_of_the_methods(made):
    model = tiny_model()
    of_magnitude = magnitude(model).masks
    of_wanda = wanda(model, random_windows()[:4], precision="fp32").masks
    for name in made.run.history().layers:
        assert np.array_equal(made.run.reference_mask(name, "magnitude"), of_magnitude[name].dense().numpy())
        if ".layers.0." in name:  # the method prunes block by block: later blocks see other activations
            assert np.array_equal(made.run.reference_mask(name, "wanda"), of_wanda[name].dense().numpy())


def test_in_the_metric_weight_the_start_is_the_magnitude_mask_and_wanda_is_unknown(tmp_path):
    run = Recorded(tmp_path / "run", metric="weight").take(1).run
    assert np.array_equal(run.reference_mask(LAYER, "start"), run.reference_mask(LAYER, "magnitude"))
    assert run.patterns(LAYER)["agreement_wanda"].isna().all() and run.history().agreement("wanda").isna().all().all()
    with pytest.raises(ProxSparseError, match="Wanda's mask is not known"):
        run.reference_mask(LAYER, "wanda")


@pytest.mark.parametrize("every", [1, 4])
def test_a_resumed_run_has_one_history(tmp_path, every):
    """Also where the last recorded step lies before the checkpoint."""
    made, undisturbed = (Recorded(tmp_path / name, steps=10) for name in ("run", "undisturbed"))
    made.history.every = undisturbed.history.every = every
    made.take(6)
    state = made.checkpoint()
    made.take(3)  # these steps are lost, and taken again
    made.resume(state)
    assert made.run.history().steps == [step for step in range(7) if step % every == 0]
    made.take(4)
    history = assert_all_right(made)
    assert history.steps == [step for step in range(11) if step % every == 0 or step == 10] and history.every == every
    undisturbed.take(10)
    for name in history.layers:
        assert made.run.flips(name).equals(undisturbed.run.flips(name))
        assert made.run.tile(name).equals(undisturbed.run.tile(name))
        assert made.run.patterns(name).equals(undisturbed.run.patterns(name))


def test_a_run_from_before_there_was_a_history_begins_one_where_it_goes_on(tmp_path):
    made = Recorded(tmp_path / "run").take(3)
    state = made.checkpoint()
    shutil.rmtree(made.run.path / "history")
    made.resume(state).take(1)
    assert assert_all_right(made).steps == [0, 4]


def test_a_fork_carries_the_history_up_to_its_step(tmp_path):
    made = Recorded(tmp_path / "parent").take(4)
    checkpoint = numbered_file(made.run.path / "checkpoints", 3)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"state")
    child = made.run.fork(tmp_path / "child", 3, lambda1=0.1)
    assert child.history().steps == [0, 1, 2, 3] and made.run.history().steps == [0, 1, 2, 3, 4]
    assert np.array_equal(child.mask(LAYER, 3), made.masks[3][LAYER])
    with pytest.raises(ProxSparseError, match="tile-rows is 8 in run parent"):
        made.run.fork(tmp_path / "other", 3, tile_rows=4)


@pytest.mark.parametrize("file", ["frames.bin", "frames.index"])
def test_a_torn_end_is_left_out_and_cut_off(tmp_path, file):
    made = Recorded(tmp_path / "run").take(3)
    state = made.checkpoint()
    made.take(1)
    path = made.run.path / "history" / file
    path.write_bytes(path.read_bytes()[:-3])
    assert made.run.history().steps == [0, 1, 2, 3]
    made.resume(state).take(2)
    assert assert_all_right(made).steps == [0, 1, 2, 3, 4, 5]


def test_damage_is_one_sentence(tmp_path):
    made = Recorded(tmp_path / "run").take(2)
    frames = made.run.path / "history" / "frames.bin"
    frames.write_bytes(b"\0" * frames.stat().st_size)
    with pytest.raises(ProxSparseError, match="cut back while it was read, or is damaged"):
        made.run.flips(LAYER)
    (made.run.path / "history" / "masks.safetensors").write_bytes(b"torn")
    with pytest.raises(ProxSparseError, match="The history of run run is damaged"):
        made.run.history()


def size_of(run):
    return sum(path.stat().st_size for path in (run.path / "history").iterdir() if path.name != "frames.index")


def test_near_the_limit_fewer_steps_are_recorded_and_the_last_one_is(tmp_path):
    whole = Recorded(tmp_path / "whole", steps=40).take(40)
    limit = 0.6 * size_of(whole.run) / 1e6
    made = Recorded(tmp_path / "run", steps=40, history=limit).take(40)
    history = assert_all_right(made)
    assert size_of(made.run) <= limit * 1e6 and "history of masks near its limit" in made.events()
    assert history.every > 1 and history.steps[:5] == [0, 1, 2, 3, 4] and history.steps[-1] == 40
    tile = made.run.tile(LAYER)
    assert sorted(tile["step"].unique()) == history.steps and tile["moved"].notna().all()


def test_a_full_history_ends_and_the_run_goes_on(tmp_path):
    made = Recorded(tmp_path / "run").take(3)
    made.history.limit = size_of(made.run) + 10
    made.take(3)
    history = assert_all_right(made)
    assert history.steps == [0, 1, 2, 3] and made.events().count("history of masks full") == 1
    state = made.checkpoint()
    made.resume(state)
    assert made.run.history().steps == [0, 1, 2, 3], "what there is stays"


def test_some_blocks_are_recorded_and_all_are_summarized(tmp_path):
    made = Recorded(tmp_path / "run", around={"history_blocks": 2}).take(2)
    history = assert_all_right(made)
    names = list(made.learner.layers)
    assert list(history.layers) == names[:7] and history.block_stride == 2
    for name in names:
        kept = made.masks[2][name] & made.learner.start[name].dense().numpy()
        assert made.run.patterns(name)["agreement_start"].iloc[-1] == kept.sum() / made.masks[2][name].sum()
    with pytest.raises(ProxSparseError, match=r"recorded one block in 2 \(0\)"):
        made.run.mask(names[-1], 0)


def test_a_small_limit_takes_fewer_blocks_and_one_that_is_too_small_is_refused(tmp_path):
    made = Recorded(tmp_path / "run", history=0.004)
    assert made.run.history().block_stride == 2 and "history of masks of few blocks" in made.events()
    with pytest.raises(ProxSparseError, match=r"history is 0\.0001 MB and the masks of one block alone take"):
        Recorded(tmp_path / "small", history=0.0001)


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.history.recorder.room_left", lambda _: 1000)
    with pytest.raises(ProxSparseError, match=r"MB are free at .*set history to fewer MB \(0: none\)"):
        Recorded(tmp_path / "run")


def test_a_run_without_history_says_so(tmp_path):
    made = Recorded(tmp_path / "none", history=0)
    large = Recorded(tmp_path / "large", m=32)
    assert made.history is None and large.history is None and large.events() == ["no history of masks"]
    with pytest.raises(ProxSparseError, match="Run none recorded no masks"):
        made.run.history()


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda run: run.mask("lm_head", 0), "There is no layer 'lm_head'"),
        (lambda run: run.patterns("lm_head"), "There is no layer 'lm_head'"),
        (lambda run: run.mask(LAYER, -1), "step is -1"),
        (lambda run: run.reference_mask(LAYER, "sparsegpt"), "choose one of start, magnitude, wanda"),
        (lambda run: run.history().agreement("sparsegpt"), "choose one of start, magnitude, wanda"),
    ],
)
def test_what_is_not_there_is_one_sentence(made, look, words):
    with pytest.raises(ProxSparseError, match=words):
        look(made.run)


def test_it_is_read_without_torch(made):
    script = (
        "import sys; from proxsparse.runs import Run; run = Run(sys.argv[1]); name = run.history().layers[0]; "
        "run.mask(name, 3), run.flips(name), run.tile(name), run.patterns(name), run.reference_mask(name, 'magnitude'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(made.run.path)], check=True)


def test_the_recorded_example_has_its_history():
    """Its masks agree with what the learner counted at each step, in the record of the layers."""
    run = Run("assets/example-run")
    history, table = run.history(), run.table("layers").set_index("step")
    assert sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file()) <= 12e6
    assert history.steps == list(range(81)) and history.every == 1 and len(history.layers) == 6 * 7
    names = run.layers()["name"].tolist()
    for name in history.layers[::9]:
        start, index = run.reference_mask(name, "start"), names.index(name)
        for step in (1, 40, 80):
            assert (history.mask(name, step) ^ start).sum() == table.loc[step, "flips_from_start"][index]
    assert list(history.agreement("magnitude")) == names
