"""Zero-shot accuracies as columns of a comparison's table: every metric of every task, and means over the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from proxsparse.evaluation.zero_shot import METRICS, Scores

TASKS_FILE = "tasks.json"
# The same questions under two scores: where both are there, the mean over tasks counts them once, by the one on the right.
SAME_QUESTIONS = {"truthfulqa_mc2": "truthfulqa_mc1"}
ABOUT = (
    "acc: zero-shot accuracy by lm-eval; acc_norm: with likelihoods divided by the length of the answer. Mean acc: over the tasks; "
    "mean acc_norm: the same with the acc of tasks that have no acc_norm."
)
ABOUT_TRUTHFULQA = (
    "acc on truthfulqa_mc2 is the probability of its true answers; the means count TruthfulQA once, by truthfulqa_mc1."
)


def scores_in(record: Mapping[str, dict]) -> Scores:
    """What `results/<name>/tasks.json` holds: {task: {metric: {"accuracy", "stderr"}}}. Files of before both metrics were kept
    name one a task."""
    return {
        task: {entry["metric"]: {"accuracy": entry["accuracy"], "stderr": entry["stderr"]}} if "metric" in entry else entry
        for task, entry in record.items()
    }  # fmt: skip


def accuracy_columns(scores: Scores) -> dict[str, float]:
    """The columns of one method.

    Parameters
    ----------
    scores : dict
        As `proxsparse.evaluation.zero_shot.accuracies` gives them.

    Returns
    -------
    dict
        `acc on TASK` and `acc_norm on TASK`, of each task those that it has. Of two tasks or more also `mean acc`, where every task
        has acc, and `mean acc_norm`, where a task has acc_norm: of the tasks that have none it takes acc. TruthfulQA counts once, by
        mc1 where both are there, because mc2 is a mean probability and no accuracy.

    Examples
    --------
    >>> piqa = {"acc": {"accuracy": 0.5, "stderr": None}, "acc_norm": {"accuracy": 0.75, "stderr": None}}
    >>> accuracy_columns({"piqa": piqa, "social_iqa": {"acc": {"accuracy": 0.25, "stderr": None}}})
    {'acc on piqa': 0.5, 'acc_norm on piqa': 0.75, 'acc on social_iqa': 0.25, 'mean acc': 0.375, 'mean acc_norm': 0.5}
    """
    columns = {
        f"{metric} on {task}": found[metric]["accuracy"]
        for task, found in scores.items() for metric in METRICS if metric in found
    }  # fmt: skip
    counted = [found for task, found in scores.items() if SAME_QUESTIONS.get(task) not in scores]
    if len(counted) > 1 and all("acc" in found for found in counted):
        columns["mean acc"] = _mean(found["acc"] for found in counted)
    if len(counted) > 1 and any("acc_norm" in found for found in counted):
        columns["mean acc_norm"] = _mean(found.get("acc_norm") or found["acc"] for found in counted)
    return columns


def about_accuracies(tasks: Iterable[str]) -> str:
    """What these columns are, for people."""
    return f"{ABOUT} {ABOUT_TRUTHFULQA}" if set(SAME_QUESTIONS) & set(tasks) else ABOUT


def _mean(found: Iterable[dict]) -> float:
    values = [entry["accuracy"] for entry in found]
    return sum(values) / len(values)
