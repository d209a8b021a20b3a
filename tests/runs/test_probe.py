"""The worker that answers questions about a run's model: real workers, real signals, a tiny model."""

import json
import os
import signal

import pytest
import torch
from waiting import until

from proxsparse import LearnConfig, LearnJob, MaskSet, ProxSparseError, Run, load_model, load_windows, prunable_layers
from proxsparse.evaluation.completions import complete
from proxsparse.evaluation.what_if import layer_costs, what_if, with_group
from proxsparse.files import append_record
from proxsparse.methods import METHODS
from proxsparse.runs import Probe
from proxsparse.runs.manage import delete, rename
from proxsparse.runs.readers.known_masks import kept_in_group
from proxsparse.runs.readers.probe import ANSWERS_KEPT, MOST_WAITING, recorded_answers
from proxsparse.runs.requests import PromptRequest, RankingRequest, WhatIfRequest, as_json, request_from

PROMPT = PromptRequest(prompt="ABCDE", new_tokens=6)
MODELS = ("dense", "magnitude", "wanda", "learned")


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tiny_directory, text_file):
    """A run of a few steps, with its masks on disk."""
    learn = LearnConfig(steps=4, learning_rate=1e-2, lambda1=0.05, ramp=1.0, metric_windows=2)
    around = {"length": 16, "context": 32, "windows": 40, "evaluate_every": 2, "checkpoint_every": 0, "device": "cpu"}
    run = Run.create(
        LearnJob(str(tiny_directory), str(text_file), **around, learn=learn),
        tmp_path_factory.mktemp("runs") / "learned",
    )
    assert run.start().wait(180) == 0
    return run


@pytest.fixture(scope="module")
def probe(learned):
    """One worker for most tests: it takes seconds to start."""
    probe = Probe(learned)
    yield probe
    end(probe)


def end(probe):
    if probe.directory is not None and probe.is_there():
        until(probe.directory.is_alive)
        probe.stop()
        until(lambda: not probe.directory.is_alive())


def answered(probe, request):
    id = probe.ask(request)
    until(lambda: probe.answer(id).status not in ("waiting", "working"))
    answer = probe.answer(id)
    assert answer.error is None, answer.error
    return answer


@pytest.fixture(scope="module")
def by_hand(learned):
    """The model, its held-out windows, and the masks, made without the worker."""
    job = learned.job()
    lm = load_model(job.model, "cpu")
    text = load_windows(job.corpus, lm.tokenizer, job.length, job.context)
    layers = prunable_layers(lm.model)
    masks = {"dense": None, "learned": MaskSet.load(learned.masks()[4])}
    for name in ("magnitude", "wanda"):
        masks[name] = METHODS[name](lm.model, text.calibration[:2], layers=layers).masks
    return lm, text.heldout, layers, masks


def test_a_prompt_is_gone_on_with_under_every_mask(probe, by_hand):
    lm, _, layers, masks = by_hand
    answer = answered(probe, PROMPT)
    assert answer.status == "done" and answer.request.step == 4
    assert set(answer.texts()) == set(answer.next_tokens()) == set(MODELS)
    ids = torch.tensor([[ord(letter) for letter in "ABCDE"]])
    dense = None
    for name in ("dense", "magnitude", "wanda", "learned"):
        with layers.on_copies(), torch.no_grad():
            if masks[name] is not None:
                masks[name].apply_(lm.model)
            wanted = lm.model(ids).logits[0, -1].softmax(0)
            assert answer.texts()[name] == complete(lm, ["ABCDE"], 6)[0]
        dense = wanted if dense is None else dense
        table = answer.next_tokens()[name]
        assert len(table) == 10 and table["probability"].is_monotonic_decreasing
        assert table["probability"].tolist() == pytest.approx(wanted[table["token"].tolist()].tolist(), rel=1e-4)
        assert table["reference"].tolist() == pytest.approx(dense[table["token"].tolist()].tolist(), rel=1e-4)
        apart = (dense * (dense / wanted).log()).sum().item()
        assert table.attrs["divergence"] == pytest.approx(apart, rel=1e-2, abs=1e-6)


def test_the_masks_of_an_earlier_step_can_be_asked_for(probe, learned):
    assert probe.steps() == [0, 1, 2, 3, 4], "those on disk, and those that the run remembers"
    answer = answered(probe, PromptRequest(prompt="ABCDE", new_tokens=6, step=0))
    assert answer.request.step == 0 and "learned" in answer.texts()


def test_what_if_agrees_with_the_library(probe, by_hand, learned):
    lm, heldout, layers, masks = by_hand
    name, windows = list(layers)[3], heldout[:6]
    start = masks["learned"][name]
    kept = [place for place in range(4) if not start.dense()[5, 8 + place]]
    answer = answered(probe, WhatIfRequest(layer=name, row=5, group=2, kept=kept, windows=6))
    found = answer.change()
    wanted = what_if(lm.model, masks["learned"], {name: with_group(start, 5, 2, kept)}, windows)
    assert found["difference"] == pytest.approx(wanted.difference, rel=1e-3, abs=1e-9)
    assert found["stderr"] == pytest.approx(wanted.stderr, rel=1e-3, abs=1e-9)
    assert found["difference"] != 0 and found["windows"] == 6
    assert found["weights"] == layers[name].matrix[5, 8:12].tolist()
    assert found["kept_before"] == kept_in_group(learned, 4, name, 5, 2) and found["kept_after"] == kept

    for to, mask in (("dense", None), ("magnitude", masks["magnitude"][name]), ("wanda", masks["wanda"][name])):
        found = answered(probe, WhatIfRequest(layer=name, to=to, windows=6)).change()
        wanted = what_if(lm.model, masks["learned"], {name: mask}, windows)
        assert found["difference"] == pytest.approx(wanted.difference, rel=1e-3, abs=1e-9), to

    # From a dense layer, too: then the group loses what it is told to lose.
    found = answered(probe, WhatIfRequest(base="dense", layer=name, row=5, group=2, kept=[0, 1, 2], windows=6)).change()
    assert found["kept_before"] == [0, 1, 2, 3] and found["difference"] != 0


def test_the_ranking_agrees_with_the_library(probe, by_hand):
    lm, heldout, layers, masks = by_hand
    table = answered(probe, RankingRequest(windows=3, measured=5)).layers()
    assert set(table["layer"]) == set(layers) and table["estimate"].notna().all()
    assert table["measured"].notna().sum() == 5
    measured = table[table["measured"].notna()]
    assert set(measured["layer"]) == set(table.sort_values("estimate")["layer"][:5])
    for name, wanted in layer_costs(lm.model, masks["learned"], heldout[:3], measured["layer"].tolist()):
        row = table.set_index("layer").loc[name]
        assert row["measured"] == pytest.approx(wanted.difference, rel=1e-3, abs=1e-9)
        assert row["measured_stderr"] == pytest.approx(wanted.stderr, rel=1e-3, abs=1e-9)


def test_it_ends_when_nobody_asks_and_begins_again(learned, tmp_path):
    """Without any patience: the second request may fall on the end of the first worker, and is answered all the same."""
    probe = Probe(learned, tmp_path / "elsewhere" / "probe", idle=0.0)
    first = answered(probe, PROMPT)
    for number in range(ANSWERS_KEPT + 5):
        path = probe.path / "answers" / f"{number:020d}-00000000.jsonl"
        append_record(path, {"request": as_json(PROMPT)})
        append_record(path, {"done": True})
    answered(probe, PROMPT)
    until(lambda: not probe.directory.is_alive())
    assert probe.state()["status"] == "stopped" and "nobody asked anything for 0 s" in probe.state()["doing"]

    assert len(list((probe.path / "answers").glob("*.jsonl"))) == ANSWERS_KEPT, "old answers are removed"
    assert probe.answer(first.id).status == "done", "the newest stay"
    with pytest.raises(ProxSparseError, match="no longer kept"):
        probe.answer(f"{0:020d}-00000000")


def test_a_killed_worker_loses_its_answer_and_nothing_else(probe):
    answered(probe, PROMPT)
    long = probe.ask(RankingRequest(windows=40))
    until(lambda: len(probe.answer(long).layers()) > 0)
    os.kill(probe.state()["pid"], signal.SIGKILL)
    until(lambda: not probe.directory.is_alive())
    assert probe.answer(long).status == "interrupted"
    assert len(probe.answer(long).layers()) > 0, "what was known stays"
    short = answered(probe, PROMPT)
    assert short.status == "done"
    assert probe.answer(long).status == "failed" and "ask again" in probe.answer(long).error


def test_somebody_asks_while_layers_are_ranked_and_the_ranking_is_stopped(probe):
    long = probe.ask(RankingRequest(windows=40))
    until(lambda: probe.answer(long).layers()["measured"].notna().any())
    short = answered(probe, PROMPT)
    assert short.status == "done" and probe.answer(long).status == "working", "it did not wait for the end"
    second = probe.ask(RankingRequest(windows=40))
    assert probe.answer(second).status == "waiting" and probe.answer(second).ahead == 1
    for id in (second, long):
        probe.cancel(id)
    until(lambda: {probe.answer(id).status for id in (long, second)} == {"stopped"})
    known = probe.answer(long).layers()["measured"].notna().sum()
    assert 0 < known < len(probe.answer(long).layers())
    assert answered(probe, PROMPT).status == "done", "the model is as it came"


@pytest.mark.parametrize("id", ["", "../../run", "0" * 20, f"{0:020d}-0000000g"])
def test_an_answer_has_no_other_name(probe, id):
    with pytest.raises(ProxSparseError, match="no answer"):
        probe.answer(id)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda: PromptRequest(prompt="  "), "prompt is empty"),
        (lambda: PromptRequest(prompt="a" * 2001), "2,001 characters"),
        (lambda: PromptRequest(prompt="a", new_tokens=1000), "new-tokens is 1000: give 128 or less"),
        (lambda: PromptRequest(prompt="a", step=9), "no masks of step 9: choose 0, 1, 2, 3, 4"),
        (lambda: WhatIfRequest(layer="lm_head"), "no layer 'lm_head'"),
        (lambda: WhatIfRequest(layer="model.layers.0.self_attn.q_proj", row=32), "row is 32"),
        (lambda: WhatIfRequest(layer="model.layers.0.self_attn.q_proj", group=8), "group is 8"),
        (lambda: WhatIfRequest(layer="model.layers.0.self_attn.q_proj", kept=[4]), "kept is 4"),
        (lambda: WhatIfRequest(layer="model.layers.0.self_attn.q_proj", base="dense", to="dense"), "before and after"),
        (lambda: RankingRequest(base="dense"), "no masks that could cost"),
        (lambda: RankingRequest(windows=1), "windows is 1"),
        (lambda: request_from({"kind": "train"}), "no request of the kind 'train'"),
        (lambda: request_from({"kind": "prompt", "path": "/etc"}), "no setting 'path'"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(learned, tmp_path, request_, words):
    probe = Probe(learned, tmp_path / "elsewhere" / "probe")
    with pytest.raises(ProxSparseError, match=words):
        probe.ask(request_())
    assert probe.directory is None, "nothing was started"


def test_what_only_the_model_knows_is_one_sentence_too(probe):
    id = probe.ask(PromptRequest(prompt="A" * 70))  # the tiny model reads 64 tokens
    until(lambda: probe.answer(id).status == "failed")
    assert "70 tokens" in probe.answer(id).error
    assert answered(probe, PROMPT).status == "done"


def test_a_second_run_takes_the_device_of_one_that_has_nothing_to_do(probe, tiny_directory, tmp_path):
    """Its model is gone: the first worker ends, and whoever waits for the second is told."""
    answered(probe, PROMPT)
    run = Run.create(LearnJob(str(tmp_path / "gone"), "bundled", device="cpu"), probe.run.path.parent / "second")
    second = Probe(run)
    id = second.ask(PROMPT)
    until(lambda: second.answer(id).status == "failed")
    assert "no directory" in second.answer(id).error
    assert not probe.directory.is_alive() and probe.state()["status"] == "stopped"
    until(lambda: not second.directory.is_alive())


def test_a_run_whose_model_is_in_memory_is_not_deleted(probe, learned):
    answered(probe, PROMPT)
    for act in (lambda: delete(learned), lambda: rename(learned, "other")):
        with pytest.raises(ProxSparseError, match="is in memory to be asked"):
            act()
    assert learned.path.is_dir()


def test_recorded_answers_are_read_like_any(learned, tmp_path, probe):
    answer = answered(probe, PROMPT)
    run = Run.create(LearnJob(), tmp_path / "recorded")
    (run.path / "answers").mkdir()
    (run.path / "answers" / f"{answer.id}.jsonl").write_bytes(
        (probe.path / "answers" / f"{answer.id}.jsonl").read_bytes()
    )
    assert recorded_answers(run)["prompt"].texts() == answer.texts()
    assert recorded_answers(learned) == {}


def test_too_many_requests_are_refused_and_ending_the_worker_answers_those_who_wait(probe):
    long = probe.ask(RankingRequest(windows=40))
    until(lambda: probe.answer(long).lines)
    ids = [probe.ask(RankingRequest(windows=40)) for _ in range(MOST_WAITING)]
    with pytest.raises(ProxSparseError, match="20 requests wait"):
        probe.ask(PROMPT)
    probe.stop()
    until(lambda: not probe.directory.is_alive())
    assert {probe.answer(id).status for id in (long, *ids)} == {"failed"}
    assert "ask again" in probe.answer(ids[-1]).error
    assert probe.state()["doing"] == "stopped on request"


def test_a_worker_that_does_not_end_is_not_waited_for_forever(learned, tmp_path, monkeypatch):
    probe = Probe(learned, tmp_path / "elsewhere" / "probe")
    monkeypatch.setattr("proxsparse.runs.readers.probe.START_TIMEOUT", 0.1)
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)  # alive, and `new` for ever
    with pytest.raises(ProxSparseError, match="still ending"):
        probe.ask(PROMPT)
    assert probe.waiting() == []


def test_requests_survive_their_file():
    request = WhatIfRequest(layer="a", kept=[0, 3], step=2)
    assert request_from(json.loads(json.dumps(as_json(request)))) == request


def test_masks_of_every_recorded_step_can_be_asked_for(tmp_path):
    from recorded_run import recorded_run

    from proxsparse.runs.readers.known_masks import kept_in_group, known_steps, masks_at

    run, masks = recorded_run(tmp_path / "run", steps=3)
    assert known_steps(run) == [0, 1, 2, 3] and not run.masks()
    for step, expected in masks.items():
        found = masks_at(run, step)
        assert found.pattern == "2:4" and all(
            (found[name].dense().numpy() == mask).all() for name, mask in expected.items()
        )
        layer, mask = next(iter(expected.items()))
        assert kept_in_group(run, step, layer, 5, 2) == mask[5, 8:12].nonzero()[0].tolist()
