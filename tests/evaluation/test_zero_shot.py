"""Zero-shot tasks through lm-eval: a local task on a tiny model, against accuracies computed by hand."""

import importlib.util
import json
import math
import random
import socket
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from proxsparse import ProxSparseError, magnitude, prunable_layers
from proxsparse.evaluation.zero_shot import PAPER_TASKS, accuracies, check_data, check_tasks, named_tasks
from proxsparse.models.language_model import LanguageModel

pytest.importorskip("lm_eval", reason="the optional extra: pip install 'proxsparse[eval]'")


@pytest.fixture(scope="module")
def questions():
    """Choices of different lengths, so that the normalized accuracy is another one."""
    draw = random.Random(0)

    def word(most):
        return "".join(draw.choice("abcdefgh") for _ in range(draw.randint(1, most)))

    return [
        {"question": word(9), "choices": [word(6) for _ in range(3)], "answer": draw.randrange(3)} for _ in range(20)
    ]


@pytest.fixture(scope="module")
def task_file(questions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "data.json").write_text("".join(json.dumps(question) + "\n" for question in questions))

    def write(name, metrics, **more):
        content = {
            "task": name, "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(folder / "data.json")}, "cache_dir": str(folder / "cache")},
            "doc_to_text": "Q: {{question}}\nA:", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
        } | more  # fmt: skip
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML
        return str(path)

    return write


@pytest.fixture
def lm():
    return LanguageModel(tiny_model(), tiny_tokenizer(), "tiny", "tiny", 64)


@torch.no_grad()
def by_hand(lm, questions, normalized):
    """Accuracy and its standard error: the answer whose characters are most likely after the question."""
    hits = []
    for entry in questions:
        scores = []
        for choice in entry["choices"]:
            before, after = f"Q: {entry['question']}\nA:", f" {choice}"
            ids = lm.tokenizer(before + after, return_tensors="pt")["input_ids"]
            likely = lm.model(input_ids=ids).logits[0].log_softmax(-1)
            positions = range(ids.shape[1] - len(after), ids.shape[1])
            total = sum(likely[position - 1, ids[0, position]].item() for position in positions)
            scores.append(total / len(choice) if normalized else total)
        hits.append(float(max(range(3), key=scores.__getitem__) == entry["answer"]))
    mean = sum(hits) / len(hits)
    return mean, math.sqrt(mean * (1 - mean) / (len(hits) - 1))


def test_accuracies_are_those_of_the_model_in_memory(lm, questions, task_file, monkeypatch):
    def no_network(*_):
        raise AssertionError("a local task reaches for the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    both, plain = task_file("letters", ["acc", "acc_norm"]), task_file("letters_plain", ["acc"], num_fewshot=3)
    check_tasks([both, plain])
    before, seen = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}, []
    layers = prunable_layers(lm.model)
    found = accuracies(lm, [both, plain], progress=lambda *what: seen.append(what))
    with magnitude(lm.model, None, layers=layers).placed_in(layers):
        masked = accuracies(lm, [both])
        expected_masked = by_hand(lm, questions, True)
    assert list(found) == ["letters", "letters_plain"]
    assert [list(found[name]) for name in found] == [["acc", "acc_norm"], ["acc"]]
    for name, metric in (("letters", "acc"), ("letters", "acc_norm"), ("letters_plain", "acc")):
        expected = dict(zip(("accuracy", "stderr"), by_hand(lm, questions, metric == "acc_norm"), strict=True))
        assert found[name][metric] == pytest.approx(expected)
    assert tuple(masked["letters"]["acc_norm"].values()) == pytest.approx(expected_masked)
    assert len({entry["accuracy"] for entry in found["letters"].values()} | {expected_masked[0]}) > 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert seen[0] == (0, 2, "zero-shot on letters, task") and seen[-1] == (1, 2, "zero-shot on letters_plain, task")
    assert len(seen) > 2, "told before every forward pass, so that a worker can handle commands in between"


def test_what_progress_raises_ends_it(lm, task_file):
    class Enough(Exception):
        pass

    def progress(*_):
        calls.append(1)
        if len(calls) == 3:
            raise Enough

    calls = []
    with pytest.raises(Enough):
        accuracies(lm, [task_file("letters", ["acc"])], progress=progress)


def test_a_probability_counts_as_the_accuracy_that_its_task_calls_it(lm, questions, task_file):
    """The form of truthfulqa_mc2: the task computes its own score, a number in 0 … 1, and calls it acc."""
    folder = Path(task_file("shares", ["acc"])).parent
    (folder / "shares.py").write_text(
        "def probability(doc, results):\n    return {'acc': 1 / (1 + sum(len(choice) for choice in doc['choices']))}\n"
    )
    path = folder / "shares.yaml"
    lines = [f"{key}: {json.dumps(value)}" for key, value in json.loads(path.read_text()).items()]
    path.write_text("\n".join([*lines, "process_results: !function shares.probability"]))
    expected = sum(1 / (1 + sum(map(len, entry["choices"]))) for entry in questions) / len(questions)
    assert accuracies(lm, [str(path)])["shares"]["acc"]["accuracy"] == pytest.approx(expected)


def test_the_word_paper_stands_for_seven_tasks_that_lm_eval_knows_one_of_them_twice():
    assert named_tasks(["boolq", "paper", "piqa"]) == ["boolq", *PAPER_TASKS] and len(set(PAPER_TASKS)) == 7 + 1
    check_tasks(["paper"])


def test_bad_tasks_are_one_sentence(lm, task_file, tmp_path, monkeypatch):
    (tmp_path / "broken.yaml").write_text("task: [")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "nameless.yaml").write_text("dataset_path: json")
    missing_data = task_file("nothing", ["acc"], dataset_kwargs={"data_files": {"test": str(tmp_path / "none.json")}})
    for tasks, words in (
        (["arc_eazy"], "lm-eval has no task 'arc_eazy': give paper, a name"),
        (["./missing.yaml"], "There is no task file './missing.yaml': check the path"),
        ([str(tmp_path / "broken.yaml")], "broken.yaml is no task file"),
        ([str(tmp_path / "list.yaml")], "list.yaml is no task file"),
        ([str(tmp_path / "nameless.yaml")], "has no line `task: NAME`"),
    ):
        with pytest.raises(ProxSparseError) as caught:
            check_tasks(tasks)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    for path, words in (
        (missing_data, "could not be loaded"),
        (task_file("guess", ["likelihood"], metric_list=[{"metric": "brier_score"}]), "gives no accuracy"),
    ):
        check_tasks([path])
        with pytest.raises(ProxSparseError, match=words) as caught:
            accuracies(lm, [path])
        assert "\n" not in str(caught.value)
    with pytest.raises(ProxSparseError, match="could not be loaded"):
        check_data([missing_data])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "lm_eval" else found(name, *rest)
    )
    with pytest.raises(ProxSparseError, match=r"piqa need lm-eval, .*pip install 'proxsparse\[eval\]'"):
        check_tasks(["piqa"])
    with pytest.raises(ProxSparseError, match="which is not installed"):
        accuracies(lm, ["piqa"])
