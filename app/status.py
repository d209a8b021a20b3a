"""Words and numbers about a run, as HTML. Everything that comes from outside is escaped."""

from __future__ import annotations

from datetime import datetime
from html import escape

from app.operator import EXAMPLE_ID
from app.view import RunView
from proxsparse.learning.report import pattern_share

STATUS_WORDS = {
    "new": "not started", "starting": "starting", "running": "running", "paused": "paused", "stopped": "stopped",
    "done": "done", "failed": "failed", "interrupted": "interrupted",
}  # fmt: skip
EMPTY = """
<div class='empty'><b>No run yet.</b> Press <b>Run</b>: the embedded language model starts to learn which two of every four
weights it can do without, and this page shows it happen.</div>"""


def banner(view: RunView | None, id: str) -> str:
    """What the run is doing, how far it is, how long it takes."""
    if view is None:
        return EMPTY
    state, job = view.state, view.job
    step, steps = state["step"], job.learn.steps
    parts = [f"step <b>{step}</b> of {steps}"]
    if state.get("elapsed") is not None:
        parts.append(f"{duration(state['elapsed'])} of work")
    if state.get("remaining"):
        parts.append(f"about {duration(state['remaining'])} left")
    if view.steps:
        parts.append(f"{view.steps[-1]['tokens_per_second']:.0f} tokens/s")
    if state.get("device"):
        parts.append(escape(state["device"]))
    if state.get("peak_bytes"):
        parts.append(f"{state['peak_bytes'] / 1e9:.1f} GB at most")
    doing = "" if state["status"] in ("done", "failed") else f"<span class='doing'>{escape(state['doing'])}</span>"
    error = f"<div class='failure' role='alert'>{escape(state['error'])}</div>" if state.get("error") else ""
    if state["status"] == "interrupted":
        error = "<div class='failure' role='alert'>The worker ended without a word; Resume goes on from the last checkpoint.</div>"
    example = ""
    if id == EXAMPLE_ID:
        created = datetime.fromisoformat(view.run.header()["created"]).date()
        example = (
            f"<div class='note'>A recorded example, learned on {created} with the embedded model: look around in it, then press "
            "<b>Run</b> to learn your own.</div>"
        )
    what = f"{escape(job.model)} on {escape(_short(job.corpus))}, metric {job.learn.metric}, {job.learn.pattern}"
    return f"""<div class='banner'>
<div><span class='status {state["status"]}'>{STATUS_WORDS[state["status"]]}</span> {doing}</div>
<div class='facts'>{" · ".join(parts)}</div>
<div class='facts what'>{what} · <code>{escape(id)}</code></div>
<div class='track' role='progressbar' aria-label='steps taken' aria-valuenow='{step}' aria-valuemax='{steps}'>
<div style='width:{100 * step / steps:.1f}%'></div></div>{example}{error}</div>"""


def tiles(view: RunView | None) -> str:
    """The numbers that matter most, one tile each."""
    if view is None:
        return ""
    last = view.steps[-1] if view.steps else None
    learned, dense, magnitude = (view.latest(mask, "live") for mask in ("learned", "dense", "magnitude"))
    n, m = view.job.learn.n, view.job.learn.m
    sparse = None if last is None else pattern_share(last)
    loss = "–" if last is None else f"{last['loss']:.3f}"
    flipped = None if last is None or not view.weights else last["flips_from_start"] / view.weights
    entries = (
        (
            "perplexity, learned mask",
            _perplexity(learned),
            f"on {view.job.live_windows} held-out windows; original weights under the mask of this moment",
            "lead",
        ),
        ("magnitude mask", _perplexity(magnitude), f"keeping the {n} largest of every {m}, nothing learned", ""),
        ("dense", _perplexity(dense), "the model as it came, all weights kept", ""),
        ("training loss", loss, f"nats a token, {view.job.learn.loss_at} weights", ""),
        ("λ1 now", f"{view.strength:.3g}", "the regularizer's pull at the step that comes", ""),
        (
            f"groups already {n}:{m}",
            "–" if sparse is None else f"{sparse:.1%}",
            f"at most {n} nonzero soft weights of {m}",
            "",
        ),
        (
            "weights flipped",
            "–" if flipped is None else f"{flipped:.2%}",
            "kept or dropped otherwise than at the start",
            "",
        ),
    )
    cells = "".join(
        f"<div class='tile {kind}'><div class='name'>{name}</div><div class='value'>{value}</div><div class='hint'>{hint}</div></div>"
        for name, value, hint, kind in entries
    )
    return f"<div class='tiles'>{cells}</div>"


def result(view: RunView | None) -> str:
    """The table at the end of a run."""
    if view is None:
        return ""
    rows = [view.latest(mask, "final") for mask in ("dense", "magnitude", "learned")]
    if None in rows:
        return ""
    pattern = view.job.learn.pattern
    names = {
        "dense": "dense (nothing removed)",
        "magnitude": f"magnitude {pattern} mask",
        "learned": f"learned {pattern} mask",
    }
    dense = rows[0]["perplexity"]
    body = "".join(_result_row(row, names[row["mask"]], dense) for row in rows)
    first = rows[0]
    return f"""<div class='result'><h3>Result at step {rows[2]["step"]}</h3><table>
<thead><tr><th>mask</th><th>held-out perplexity</th><th>against dense</th></tr></thead><tbody>{body}</tbody></table>
<p>On {first["windows"]} held-out windows of {first["context"]} tokens ({first["tokens"]:,} predicted), ± standard error over the windows.
No weight was updated: each mask is applied to the original weights. Lower is better.</p></div>"""


def log(view: RunView | None) -> str:
    """What happened, newest first."""
    if view is None:
        return ""
    lines = []
    for event in reversed(view.events[-40:]):
        about = ", ".join(f"{key} {event[key]}" for key in event if key not in ("time", "step", "event", "phase"))
        when = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S")
        lines.append(f"<li><code>{when}</code> step {event['step']}: {escape(event['event'])} {escape(about)}</li>")
    skipped = view.run.skipped()
    if skipped:
        first, reason = next(iter(skipped.items()))
        lines.append(f"<li>left dense: {len(skipped)} linear maps, e.g. {escape(first)} ({escape(reason)})</li>")
    return f"<ul class='log'>{''.join(lines)}</ul>"


def duration(seconds: float) -> str:
    seconds = int(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _result_row(row: dict, name: str, dense: float) -> str:
    error = "" if row["stderr"] is None else f" ± {_number(row['stderr'])}"
    value = f"{_number(row['perplexity'])}{error}"
    return f"<tr class='{row['mask']}'><td>{name}</td><td>{value}</td><td>{row['perplexity'] / dense:.2f} ×</td></tr>"


def _perplexity(row: dict | None) -> str:
    return "–" if row is None else _number(row["perplexity"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def _short(path: str) -> str:
    return path.rsplit("/", 1)[-1]
