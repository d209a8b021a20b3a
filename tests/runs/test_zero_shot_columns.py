"""Zero-shot accuracies in a comparison's table, from records alone: lm-eval need not be installed."""

import doctest

import pytest

from proxsparse.evaluation.zero_shot import PAPER_TASKS
from proxsparse.runs.readers import zero_shot
from proxsparse.runs.readers.zero_shot import about_accuracies, accuracy_columns, scores_in


def scored(**by_metric):
    return {metric: {"accuracy": accuracy, "stderr": 0.01} for metric, accuracy in by_metric.items()}


PAPER = {
    "arc_challenge": scored(acc=0.43, acc_norm=0.46), "arc_easy": scored(acc=0.76, acc_norm=0.74),
    "social_iqa": scored(acc=0.46), "hellaswag": scored(acc=0.57, acc_norm=0.76),
    "openbookqa": scored(acc=0.31, acc_norm=0.44), "piqa": scored(acc=0.78, acc_norm=0.79),
    "truthfulqa_mc1": scored(acc=0.25), "truthfulqa_mc2": scored(acc=0.39),
}  # fmt: skip


def test_the_example():
    assert doctest.testmod(zero_shot) == (0, 2)


def test_every_metric_is_shown_and_the_means_count_the_papers_seven_tasks():
    assert tuple(PAPER) == PAPER_TASKS
    columns = accuracy_columns(PAPER)
    assert (columns["acc on truthfulqa_mc1"], columns["acc on truthfulqa_mc2"]) == (0.25, 0.39)
    assert (columns["acc on hellaswag"], columns["acc_norm on hellaswag"]) == (0.57, 0.76)
    assert "acc_norm on social_iqa" not in columns and len(columns) == 8 + 5 + 2
    assert columns["mean acc"] == pytest.approx((0.43 + 0.76 + 0.46 + 0.57 + 0.31 + 0.78 + 0.25) / 7)
    assert columns["mean acc_norm"] == pytest.approx((0.46 + 0.74 + 0.46 + 0.76 + 0.44 + 0.79 + 0.25) / 7)


def test_mc2_alone_counts_and_a_single_task_has_no_mean():
    columns = accuracy_columns({"arc_easy": PAPER["arc_easy"], "truthfulqa_mc2": PAPER["truthfulqa_mc2"]})
    assert columns["mean acc"] == pytest.approx((0.76 + 0.39) / 2)
    assert accuracy_columns({"piqa": PAPER["piqa"]}) == {"acc on piqa": 0.78, "acc_norm on piqa": 0.79}
    assert not any("mean" in column for column in accuracy_columns({name: PAPER[name] for name in PAPER_TASKS[-2:]}))
    assert accuracy_columns({}) == {}


def test_a_mean_is_left_out_where_it_would_mix_metrics_or_repeat_the_other():
    normalized, plain = scored(acc_norm=0.5), scored(acc=0.25)
    assert "mean acc" not in accuracy_columns({"a": normalized, "b": plain})
    assert "mean acc_norm" not in accuracy_columns({"a": plain, "b": plain})


def test_a_record_of_before_both_metrics_were_kept_is_read():
    record = {
        "piqa": {"accuracy": 0.79, "stderr": 0.01, "metric": "acc_norm"},
        "social_iqa": {"accuracy": 0.46, "stderr": None, "metric": "acc"},
    }
    scores = scores_in(record)
    assert scores == {"piqa": scored(acc_norm=0.79), "social_iqa": {"acc": {"accuracy": 0.46, "stderr": None}}}
    assert scores_in(scores) == scores
    assert accuracy_columns(scores)["mean acc_norm"] == pytest.approx((0.79 + 0.46) / 2)


def test_what_counts_once_is_said_where_it_is_asked():
    assert "TruthfulQA once, by truthfulqa_mc1" in about_accuracies(PAPER)
    assert "TruthfulQA" not in about_accuracies(["piqa"])
