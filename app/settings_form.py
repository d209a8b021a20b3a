"""The form of a run's settings, made from the configuration's fields: label, unit, default and help are written
there."""

from __future__ import annotations

import dataclasses
import types
import typing

import gradio as gr

from proxsparse import LearnConfig, LearnJob, ProxSparseError

BASIC = ("steps", "lambda1", "metric")
TEXT = ("length", "context", "windows", "live_windows", "evaluate_every")
OPTIMIZER = ("learning_rate", "warmup", "decay", "batch", "accumulation", "clip", "precision", "seed")
REGULARIZER = ("pattern", "ramp", "loss_at", "relative", "metric_windows", "lambda2", "epsilon")
MACHINE = ("checkpoint_every", "device", "memory")
PLACED_ELSEWHERE = ("model", "corpus", "learn")
PATTERNS = ("2:4", "1:2", "1:4", "2:8", "4:8")  # n and m, chosen together; the command line learns any

_FIELDS = {
    field.name: (config, field) for config in (LearnJob, LearnConfig) for field in dataclasses.fields(config)
}  # fmt: skip
SETTINGS = (*BASIC, *TEXT, *OPTIMIZER, *REGULARIZER, *MACHINE)
assert {*SETTINGS, *PLACED_ELSEWHERE, "n", "m"} == {*_FIELDS, "pattern"}, "every setting has its place in the form"


def settings(names: tuple[str, ...]) -> dict[str, gr.components.Component]:
    """One input for each of `names`."""
    return {name: _input(name) for name in names}


def job_from(model: str, corpus: str, values: dict) -> LearnJob:
    """A job of what stands in the form. Raises ProxSparseError with the first value that cannot be."""
    job, learn = {"model": model, "corpus": corpus}, {}
    for name, value in values.items():
        if name == "pattern":
            learn["n"], learn["m"] = map(int, value.split(":"))
            continue
        config, field = _FIELDS[name]
        if isinstance(value, str):
            value = value.strip()
            kind = _kind(config, name)
            if value == "" and kind is not str:
                raise ProxSparseError(f"{name.replace('_', '-')} is empty: the default is {field.default}.")
            if kind in (int, float):
                value = _number(name, value)
            elif kind is str and value == "":
                value = None
        (learn if config is LearnConfig else job)[name] = value
    return LearnJob.from_dict(job | {"learn": learn})


def values_of(job: LearnJob) -> list:
    """What the form shows for a job, in the order of SETTINGS."""
    return [_shown(getattr(job if hasattr(job, name) else job.learn, name)) for name in SETTINGS]


def _shown(value):
    if isinstance(value, bool):
        return value
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _input(name: str) -> gr.components.Component:
    if name == "pattern":
        info = f"how many weights are kept of how many neighbours; GPUs run 2:4; default {PATTERNS[0]}"
        return gr.Dropdown(list(PATTERNS), value=PATTERNS[0], label=name, info=info, elem_id="setting-pattern")
    config, field = _FIELDS[name]
    label = {"lambda1": "λ1 at the end", "ramp": "ramp of λ1", "lambda2": "λ2"}.get(name, name.replace("_", " "))
    unit = field.metadata["unit"]
    label += f" ({unit})" if unit and unit not in label else ""
    default = "automatic" if field.default is None else _shown(field.default)
    common = {"label": label, "info": f"{field.metadata['help']}; default {default}", "elem_id": f"setting-{name}"}
    wanted = typing.get_type_hints(config)[name]
    if wanted is bool:
        return gr.Checkbox(value=field.default, **common)
    if typing.get_origin(wanted) is typing.Literal:
        return gr.Dropdown(list(typing.get_args(wanted)), value=field.default, **common)
    return gr.Textbox(value=_shown(field.default), max_lines=1, **common)


def _kind(config: type, name: str) -> type:
    wanted = typing.get_type_hints(config)[name]
    if isinstance(wanted, types.UnionType):
        return next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    return wanted if wanted in (int, float, bool) else str


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProxSparseError(f"{name.replace('_', '-')} is {text[:40]!r}: give a number.") from None
