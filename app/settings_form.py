"""The form of a run's settings, made from the configuration's fields: label, unit, default and help are written
there."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from proxsparse import PRESETS, LearnConfig, LearnJob, ProxSparseError
from proxsparse.settings import Setting, settings_of

BASIC = ("steps", "lambda1", "metric")
TEXT = ("samples", "length", "context", "bos", "windows", "live_windows", "evaluate_every")
OPTIMIZER = ("learning_rate", "warmup", "decay", "batch", "accumulation", "clip", "precision", "seed")
REGULARIZER = ("pattern", "ramp", "loss_at", "distill", "relative", "metric_windows", "lambda2", "epsilon")
MACHINE = (
    "checkpoint_every", "history", "history_blocks", "tile_rows", "tile_columns", "device", "memory", "recompute",
)  # fmt: skip
PLACED_ELSEWHERE = ("model", "corpus")
OF_SEVERAL_PROCESSES = ("offload",)  # which the command line starts, not the page
PATTERNS = ("2:4", "1:2", "1:4", "2:8", "4:8")  # n and m, chosen together; the command line learns any

_LEARNER, _AROUND = settings_of(LearnConfig), settings_of(LearnJob)
_SETTINGS = _AROUND | _LEARNER
_LABELS = {"lambda1": "λ1 at the end", "ramp": "ramp of λ1", "lambda2": "λ2"}
SETTINGS = (*BASIC, *TEXT, *OPTIMIZER, *REGULARIZER, *MACHINE)
assert {*SETTINGS, *PLACED_ELSEWHERE, *OF_SEVERAL_PROCESSES, "n", "m"} == {*_SETTINGS, "pattern"}, (
    "every setting has its place in the form"
)


def settings(names: tuple[str, ...]) -> dict[str, gr.components.Component]:
    """One input for each of `names`."""
    return {name: _input(name) for name in names}


def job_from(model: str, corpus: str, evaluate_on: tuple[str, ...], values: dict) -> LearnJob:
    """A job of what stands in the form. Raises ProxSparseError with the first value that cannot be."""
    job, learn = {"model": model, "corpus": corpus, "evaluate_on": evaluate_on}, {}
    for name, value in values.items():
        if name == "pattern":
            learn["n"], _, learn["m"] = value.partition(":")
            continue
        (learn if name in _LEARNER else job)[name] = meant(_SETTINGS[name], value)
    return LearnJob.from_dict(job | {"learn": learn})


def label_of(name: str) -> str:
    """What the form calls a setting, without its unit."""
    return _LABELS.get(name, name.replace("_", " "))


def differences(values: Sequence, base: LearnJob) -> dict[str, tuple[str, str]]:
    """Which settings of a form differ from those of a job: {setting: (what stands in the form, what the job has)}, as texts."""
    return {
        name: (_text(value), _text(other))
        for name, value, other in zip(SETTINGS, values, values_of(base), strict=True)
        if _plain(value) != _plain(other)
    }


def nearest_preset(values: Sequence) -> str:
    """The preset from which a form differs in the fewest settings; of several the first."""
    return min(PRESETS, key=lambda name: len(differences(values, PRESETS[name])))


def values_of(job: LearnJob) -> list:
    """What the form shows for a job, in the order of SETTINGS."""
    return [_shown(getattr(job if hasattr(job, name) else job.learn, name)) for name in SETTINGS]


def _shown(value):
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # what stands in the form is what is meant
    return "" if value is None else str(value)


def _plain(value):
    """What is meant by it: 0.20 is 0.2."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return (value or "").strip()


def _text(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value or "").strip() or "empty"


def _input(name: str) -> gr.components.Component:
    return pattern_input("setting-pattern") if name == "pattern" else input_of(_SETTINGS[name], f"setting-{name}")


def pattern_input(elem_id: str) -> gr.Dropdown:
    """n and m, chosen together."""
    info = f"how many weights are kept of how many neighbours; GPUs run 2:4; default {PATTERNS[0]}"
    return gr.Dropdown(
        list(PATTERNS), value=PATTERNS[0], label="pattern", info=info, elem_id=elem_id, allow_custom_value=True
    )


def input_of(setting: Setting, elem_id: str) -> gr.components.Component:
    """What a setting is typed into or chosen with."""
    common = {"label": _label(setting), "info": _info(setting), "elem_id": elem_id}
    if setting.kind == "switch":
        return gr.Checkbox(value=setting.default, **common)
    if setting.kind == "choice":
        return gr.Dropdown(list(setting.choices), value=setting.default, **common)
    return gr.Textbox(value=_shown(setting.default), max_lines=1, **common)


def meant(setting: Setting, value):
    """What stands in an input, as the configuration takes it. Raises ProxSparseError where a setting that has to be given is
    empty."""
    if isinstance(value, str) and not value.strip():
        if not setting.optional:
            raise ProxSparseError(f"{setting.flag} is empty: the default is {_shown(setting.default)}.")
        return None
    return value.strip() if isinstance(value, str) else value


def _label(setting: Setting) -> str:
    label = label_of(setting.name)
    return f"{label} ({setting.unit})" if setting.unit and setting.unit not in label else label


def _info(setting: Setting) -> str:
    default = "automatic" if setting.default is None else _shown(setting.default)
    return f"{setting.help}; default {default}"
