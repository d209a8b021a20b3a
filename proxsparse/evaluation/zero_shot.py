"""Zero-shot accuracy through EleutherAI's lm-eval, an optional extra (`pip install 'proxsparse[eval]'`).

Tasks are lm-eval's own, by name (their data come from the Hub), or .yaml files of its format, whose data may lie beside
them: then nothing reaches a network. No code that comes with a data set or a model is run.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.progress import Progress, no_progress

PAPER = "paper"  # stands for all of PAPER_TASKS
# The paper (arXiv 2502.00258) reports seven tasks, by lm-eval: ARC-C, ARC-E, SIQA, HellaSwag, OBQA, PIQA and TruthfulQA. It
# says neither which metric of a task nor which variant of TruthfulQA: all that it may mean are measured.
PAPER_TASKS = (
    "arc_challenge", "arc_easy", "social_iqa", "hellaswag", "openbookqa", "piqa", "truthfulqa_mc1", "truthfulqa_mc2",
)  # fmt: skip
METRICS = ("acc", "acc_norm")
BATCH = 8

Scores = dict[str, dict[str, dict[str, float | None]]]
"""{task: {metric: {"accuracy", "stderr"}}}; stderr is None where it is not known."""


def named_tasks(tasks: Iterable[str]) -> list[str]:
    """`tasks` with the word `paper` spelled out, each once."""
    spelled = (name for task in tasks for name in (PAPER_TASKS if task == PAPER else (task,)))
    return list(dict.fromkeys(spelled))


def check_tasks(tasks: Iterable[str]) -> None:
    """Raise ProxSparseError when lm-eval is not installed, knows no task of a name, or a .yaml file is no task of it.

    Data are not loaded: that a name is known does not mean that its data can be reached.
    """
    tasks = named_tasks(tasks)
    if importlib.util.find_spec("lm_eval") is None:
        raise ProxSparseError(
            f"The tasks {', '.join(tasks)} need lm-eval, which is not installed: pip install 'proxsparse[eval]'."
        )
    for task in tasks:
        if _is_file(task):
            _check_file(task)
        elif task not in _manager(True).task_index:
            raise ProxSparseError(
                f"lm-eval has no task {task!r}: give {PAPER}, a name that `lm-eval ls tasks` lists, or a .yaml file."
            )


def check_data(tasks: Iterable[str]) -> None:
    """Raise ProxSparseError when the data of a task cannot be loaded; what is loaded from a network is cached."""
    for task in named_tasks(tasks):
        _load(task)


def accuracies(lm, tasks: Iterable[str], progress: Progress = no_progress) -> Scores:
    """The zero-shot accuracies of a model: every metric of `METRICS` that a task has.

    Parameters
    ----------
    lm : LanguageModel
        As it is in memory; no example stands in the prompt.
    tasks : iterable of str
        Tasks of lm-eval by name, .yaml files, or `paper`. A tag of lm-eval gives all of its tasks, a group its mean.
    progress : callable
        progress(done, total, what) is called before each task and each forward pass; what it raises ends the measurement.

    Returns
    -------
    dict
        {task: {metric: {"accuracy", "stderr"}}}. acc: share of the questions whose most likely answer is right, of
        truthfulqa_mc2 the mean probability of its true answers; acc_norm: with likelihoods divided by the length of the answer.
        stderr: over the questions; None where it is not known.

    Raises
    ------
    ProxSparseError
        As `check_tasks`, and when the data of a task cannot be loaded or its score is no accuracy.
    """
    tasks = named_tasks(tasks)
    found: Scores = {}
    check_tasks(tasks)
    for index, task in enumerate(tasks):

        def tell(index=index, task=task) -> None:
            progress(index, len(tasks), f"zero-shot on {Path(task).stem if _is_file(task) else task}, task")

        tell()
        found |= _measure(lm, task, tell)
    return found


def _measure(lm, task: str, tell: Callable[[], None]) -> Scores:
    from lm_eval.evaluator import evaluate

    loaded = _load(task)
    for each in loaded["tasks"].values():
        each.set_config(key="num_fewshot", value=0)
    results = evaluate(lm=_harness(lm, tell), task_dict=loaded, log_samples=False)["results"]
    top = [name for name in loaded["groups"] if not any(name in below for below in loaded["group_map"].values())]
    return {name: _scores(name, results.get(name, {})) for name in top or loaded["tasks"]}


def _load(task: str) -> dict:
    try:
        return _manager(not _is_file(task)).load([str(local_path(task).resolve()) if _is_file(task) else task])
    except Exception as error:  # the network, the disk, or what stands in the task's file
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        raise ProxSparseError(
            f"The task {task!r} could not be loaded ({reason}): check the network, or give a .yaml file with local data."
        ) from error


def _harness(lm, tell: Callable[[], None]):
    """What lm-eval asks: the same model, not a copy."""
    from lm_eval.models.huggingface import HFLM

    class Model(HFLM):
        def _model_call(self, *arguments, **keywords):
            tell()
            return super()._model_call(*arguments, **keywords)

    # Of the tokenizer a copy: a padding token may be set in it.
    tokenizer = copy.deepcopy(lm.tokenizer)
    return Model(
        pretrained=lm.model, tokenizer=tokenizer, batch_size=BATCH, max_length=lm.context, trust_remote_code=False
    )


def _scores(task: str, results: dict) -> dict[str, dict[str, float | None]]:
    by_metric = {key.partition(",")[0]: _number(value) for key, value in results.items()}
    found = {
        metric: {"accuracy": by_metric[metric], "stderr": by_metric.get(f"{metric}_stderr")}
        for metric in METRICS if by_metric.get(metric) is not None
    }  # fmt: skip
    if not found:
        raise ProxSparseError(f"The task {task!r} gives no accuracy: choose one whose metric is acc or acc_norm.")
    return found


def _number(value: object) -> float | None:
    """What lm-eval gives, where it is a number: it writes N/A for what it does not know."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@lru_cache(maxsize=2)
def _manager(known_by_name: bool):
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=known_by_name)  # looking through its 15,000 files takes seconds


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _check_file(task: str) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    if not local_path(task).is_file():
        raise ProxSparseError(f"There is no task file {task!r}: check the path, or give a task of lm-eval by its name.")
    try:
        content = load_yaml(str(local_path(task)), resolve_func=False)
    except Exception as error:  # YAML has many ways to be wrong
        reason = " ".join(str(error).split())
        raise ProxSparseError(f"{task} is no task file ({reason}): write it in the format of lm-eval.") from error
    if not isinstance(content.get("task"), str):
        raise ProxSparseError(f"{task} has no line `task: NAME`: write it in the format of lm-eval.")
