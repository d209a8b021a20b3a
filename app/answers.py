"""Words and numbers about what a model was asked, as HTML. Everything that comes from outside is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape

import pandas as pd

from app import html
from proxsparse.figures.look import layer_label
from proxsparse.runs.readers.judged import CERTAIN
from proxsparse.runs.readers.probe import Answer
from proxsparse.runs.requests import WhatIfRequest

TITLES = {"dense": "Dense", "magnitude": "Magnitude", "wanda": "Wanda", "learned": "Learned mask"}
ABOUT = {
    "dense": "all weights, as the model came",
    "magnitude": "the largest weights of each group",
    "wanda": "the largest |weight| · ‖activation‖ of each group",
    "learned": "what ProxSparse learned to keep",
}
ROWS = 40  # of the ranking's table


def worker(state: dict, is_learning: bool, missing: str = "") -> str:
    """What the worker does, how long it stays, what its answers rest on, and what cannot be asked."""
    status, doing = state["status"], escape(state["doing"])
    facts = [escape(state[name]) for name in ("device", "arithmetic") if state.get(name)]
    if status in ("starting", "running"):
        if state.get("ends_at"):
            left = max(0, state["ends_at"] - time.time())
            doing = f"the model is in memory; it leaves in {html.duration(5 * math.ceil(left / 5))} if nobody asks"
        word = (
            "<span class='status running'>ready</span>"
            if state.get("ends_at")
            else f"<span class='status {status}'>busy</span>"
        )
    elif status in ("failed", "interrupted"):
        word, facts = f"<span class='status {status}'>{status}</span>", []
        doing = escape(state.get("error") or "the worker ended unexpectedly: ask again")
    else:
        word, facts = "<span class='status'>no model in memory</span>", []
        doing = "the first question loads it, which takes some seconds"
    beside = (
        "<div class='facts'><b>This run is learning right now.</b> A question loads a second copy of its model on the same "
        "device: answers and steps slow each other down.</div>"
        if is_learning
        else ""
    )
    limits = f"<div class='facts'>{escape(missing)}</div>" if missing else ""
    return (
        f"<div class='banner'><div>{word} <span class='doing'>{doing}</span></div>"
        f"<div class='facts'>{' · '.join(facts)}</div>{beside}{limits}</div>"
    )


def progress(answer: Answer, doing: str) -> str:
    """Where an answer stands, in a few words; nothing when it is done."""
    if answer.status == "waiting":
        return html.note(f"Waiting: {answer.ahead} before it." if answer.ahead else "Waiting for the model.")
    if answer.status == "working":
        return f"<p class='note' role='status'>{escape(doing)} …</p>"
    if answer.status == "failed":
        return html.failure(answer.error or "")
    if answer.status == "stopped":
        return html.note("Stopped on request.")
    if answer.status == "interrupted":
        return html.failure("The worker was lost before this was answered: ask again.")
    return ""


def question(answer: Answer, recorded: bool, doing: str) -> str:
    """The prompt above the four answers."""
    mark = (
        "<p><span class='status'>recorded</span> A Quick run of the embedded model was asked this. Ask something yourself above.</p>"
        if recorded
        else ""
    )
    step = "" if answer.request.step is None else f" · learned mask of step {answer.request.step}"
    return (
        f"<div id='asked'>{mark}<blockquote>{escape(answer.request.prompt)}</blockquote>"
        f"<div class='facts'>greedy, at most {answer.request.new_tokens} tokens{step}</div>{progress(answer, doing)}</div>"
    )


def heading(name: str) -> str:
    """Above what one model says."""
    return f"<div class='model {name}'><h3>{TITLES[name]}</h3><p class='about'>{ABOUT[name]}</p></div>"


def card(name: str, answer: Answer | None, why_not: str = "") -> str:
    """What one model said."""
    texts = {} if answer is None else answer.texts()
    if name not in texts:
        told = why_not or ("…" if answer is not None and answer.status in ("waiting", "working") else "–")
        return f"<div class='said'><p class='note'>{escape(told)}</p></div>"
    apart = answer.next_tokens()[name].attrs["divergence"]
    fact = (
        "what the others are compared with"
        if name == "dense"
        else f"{html.number(apart)} nats from dense (KL divergence)"
    )
    return (
        f"<div class='said'><p class='about'>next token: {fact}</p>"
        f"<p class='text' aria-live='polite'>{escape(texts[name])}</p></div>"
    )


RECORDED = "<p class='note'><span class='status'>recorded</span> A Quick run of the embedded model was asked this.</p>"


def changes(answers: Sequence[Answer], doing: str) -> str:
    """The what-ifs asked on this page, newest first."""
    if not answers:
        return html.note("Choose a layer and what it gets, then ask. Nothing is changed on disk.")
    rows = []
    for answer in answers:
        found = answer.change()
        if found is None:
            rows.append((_what(answer.request), "", "", progress(answer, doing), ""))
            continue
        rows.append((
            _what(answer.request, found), f"{found['before']:.4f}", f"{found['after']:.4f}",
            f"<b>{signed(found['difference'], found['stderr'])}</b>", verdict(found["difference"], found["stderr"]),
        ))  # fmt: skip
    columns = ("what if", "loss before", "loss after", "change ± standard error", "verdict")
    windows = next((answer.change()["windows"] for answer in answers if answer.change()), None)
    below = "" if windows is None else html.note(
        "Mean loss in nats a token on held-out windows; the standard error is that of the differences window by window."
    )  # fmt: skip
    return html.table(columns, rows, numeric=(1, 2, 3)) + below


def _what(request: WhatIfRequest, found: dict | None = None) -> str:
    base = "learned mask" if request.base == "learned" else request.base
    base += f" of step {request.step}" if request.base == "learned" else ""
    layer = escape(layer_label(request.layer))
    if request.to != "group":
        new = "is dense again" if request.to == "dense" else f"gets its {request.to} mask"
        return f"{layer} {new}; the other layers: {base}, {request.windows} windows"
    before = "" if found is None else f" instead of {_positions(found['kept_before'])}"
    weights = "" if found is None else f" ({', '.join(f'{weight:.3g}' for weight in found['weights'])})"
    return (
        f"{layer} row {request.row}, group {request.group}{weights} keeps {_positions(request.kept)}{before}; "
        f"everything else: {base}, {request.windows} windows"
    )


def _positions(kept: Sequence[int]) -> str:
    return "none" if not kept else "weight " + " and ".join(str(position + 1) for position in sorted(kept))


def signed(value: float | None, error: float | None) -> str:
    """A change with as many digits as its standard error allows."""
    if value is None or math.isnan(value):
        return "–"
    if error is None or math.isnan(error) or error == 0:
        return f"{value:+.3g}"
    digits = min(max(0, 1 - math.floor(math.log10(error))), 12)
    return f"{value:+.{digits}f} ± {error:.{digits}f}"


def verdict(difference: float, stderr: float | None) -> str:
    if difference == 0:
        return "no change"
    if stderr is None or abs(difference) <= CERTAIN * stderr:
        return f"within {CERTAIN} standard errors of none"
    return "worse" if difference > 0 else "better"


def ranking(answer: Answer | None, table: pd.DataFrame, doing: str) -> str:
    """The layers, those whose mask costs most first, and what the numbers are."""
    if answer is None:
        return html.note("Estimated for all layers first, then measured one by one; it can be stopped at any time.")
    above = progress(answer, doing)
    if table.empty:
        return above
    measured = int(table["measured"].notna().sum())
    rows = [
        (
            str(place), escape(layer_label(row.layer)),
            signed(row.estimate, None), signed(row.measured, row.measured_stderr),
        )
        for place, row in enumerate(table.head(ROWS).itertuples(), start=1)
    ]  # fmt: skip
    request = answer.request
    base = request.base if request.base != "learned" else f"learned mask of step {request.step}"
    what = (
        f"Change of the loss, in nats a token, when one layer is dense again and the others keep the {base}: negative means "
        f"that its mask costs. {request.windows} held-out windows, ± standard error of the paired differences. "
        f"{measured} of {len(table)} layers measured; the estimate is the gradient times what the mask drops, to first order, "
        "and only orders what is measured next."
    )
    more = f"<p class='note'>The first {ROWS} of {len(table)} layers.</p>" if len(table) > ROWS else ""
    return f"{above}<p class='note'>{escape(what)}</p>" + html.table(
        ("rank", "layer", "estimated", "measured"), rows, numeric=(0, 2, 3)
    ) + more  # fmt: skip
