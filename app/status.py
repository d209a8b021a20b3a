"""Words and numbers about a run, as HTML. Everything that comes from outside is escaped."""

from __future__ import annotations

from datetime import datetime
from html import escape

from app import html
from app.operator import EXAMPLE_ID
from app.views.run import RunSnapshot
from proxsparse import LearnConfig
from proxsparse.config import JUDGED_ONLY, judged_by
from proxsparse.learning.report import pattern_share

EMPTY = """
<div class='empty'><b>No run yet.</b> Press <b>Run</b>: the embedded language model starts to learn which two of every four
weights it can do without, and this page shows it happen.</div>"""


EVENTS = {"lambda1": "λ1 set by hand to", "delay": "slow motion, seconds:"}  # as the log calls them


def banner(view: RunSnapshot | None, id: str) -> str:
    """What the run is doing, how far it is, how long it takes."""
    if view is None:
        return EMPTY
    state, job = view.state, view.job
    step, steps = state["step"], job.learn.steps
    parts = [f"step <b>{step}</b> of {steps}"]
    if state.get("elapsed") is not None:
        parts.append(f"{html.duration(state['elapsed'])} of work")
    if state.get("remaining"):
        parts.append(f"about {html.duration(state['remaining'])} left")
    if view.last:
        parts.append(f"{view.last.get('tokens_per_second') or 0:.0f} tokens/s")
    if state.get("device"):
        parts.append(escape(state["device"]))
    if state.get("peak_bytes"):
        parts.append(f"{state['peak_bytes'] / 1e9:.1f} GB at most")
    asked = f"<div class='facts'>{escape(_asked(view))}</div>" if view.asked else ""
    error = html.failure(state["error"]) if state.get("error") else ""
    if state["status"] == "interrupted":
        last = max(view.run.checkpoints(), default=None)
        then = (
            "begins again: there is no checkpoint yet"
            if last is None
            else f"continues from the checkpoint of step {last}"
        )
        error = html.failure(f"The worker process ended unexpectedly (killed, or out of memory); Resume {then}.")
    if view.left_out:
        error += html.failure(
            f"{view.left_out} damaged line{'s' if view.left_out > 1 else ''} of its records left out: the charts lack them."
        )
    example = ""
    if id == EXAMPLE_ID:
        created = datetime.fromisoformat(view.run.header()["created"]).date()
        example = (
            f"<div class='note'>A recorded example, learned on {created} with the embedded model: look around in it, then press "
            "<b>Run</b> to learn your own.</div>"
        )
    what = f"{escape(job.model)} on {escape(_short(job.corpus))}, metric {job.learn.metric}, {job.learn.pattern}"
    return html.banner(state, parts, what, id, "steps taken", steps, asked, example + error)


def tiles(view: RunSnapshot | None) -> str:
    """The numbers that matter most, one tile each."""
    if view is None:
        return ""
    last = view.last
    (learned, dense, magnitude), about = _headline(view)
    n, m, given = view.job.learn.n, view.job.learn.m, view.run.given()
    given_as = "dense" if given == "dense" else "the given model"
    sparse = "–" if last is None else f"{pattern_share(last):.1%}"
    loss = "–" if last is None or last["loss"] is None else f"{last['loss']:.3f}"
    flipped = "–" if last is None or not view.weights else f"{last['flips_from_start'] / view.weights:.2%}"
    over = (
        "" if learned is None or dense is None else f"{learned['perplexity'] / dense['perplexity']:.2f} × {given_as}; "
    )
    strength = (
        ("λ1 at the end", "strength of the regularizer in this run, at its last step")
        if view.state["status"] == "done"
        else ("λ1 now", "strength of the regularizer in this run, at its next step")
    )
    tiles = (
        html.tile("perplexity, learned mask", _perplexity(learned), over + about, lead=True),
        *_elsewhere(view),
        html.tile(
            "magnitude mask", _perplexity(magnitude), f"the {n} largest of every {m}, nothing learned; same windows"
        ),
        html.tile("dense", _perplexity(dense), "the model as it came, all weights kept; same windows")
        if given == "dense"
        else html.tile(
            "given model", _perplexity(dense), f"as it came: {given.removeprefix('given model, ')}; same windows"
        ),
        html.tile("training loss", loss, _loss_words(view.job.learn)),
        html.tile(strength[0], f"{view.strength:.3g}", strength[1]),
        html.tile(f"groups already {n}:{m}", sparse, f"at most {n} nonzero soft weights of {m}"),
        html.tile("weights flipped", flipped, "kept now and dropped at the start, or the reverse"),
    )
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _loss_words(learn: LearnConfig) -> str:
    """What the training loss is made of: only the language-model loss is the logarithm of a perplexity."""
    at = f"at the {learn.loss_at} weights"
    if not learn.distill:
        return f"next-token loss, nats a token, {at}"
    rest = "" if learn.distill == 1 else f", {1 - learn.distill:.0%} next-token loss"
    return f"{learn.distill:.0%} divergence from the dense model's predictions{rest}; nats a token, {at}"


def _elsewhere(view: RunSnapshot) -> list[str]:
    """A tile for each further text on which the mask as it is was judged."""
    given = "dense" if view.run.given() == "dense" else "given model"
    return [
        html.tile(
            f"on {escape(_called(text))}", _perplexity(masks["learned"]),
            f"{masks['learned']['perplexity'] / masks['dense']['perplexity']:.2f} × {given}, which has {_perplexity(masks['dense'])}; "
            f"learned mask, {masks['learned']['windows']} windows",
        )
        for text, masks in view.judged_now().items()
    ]  # fmt: skip


def _called(text: str) -> str:
    return "text of another kind" if text in JUDGED_ONLY else text


def _headline(view: RunSnapshot) -> tuple[list[dict | None], str]:
    """The measurements that the tiles show, of the learned, dense and magnitude mask, and which they are: the final ones once
    the mask as it is has been measured so; until then those taken while the run goes on."""
    masks = ("learned", "dense", "magnitude")
    final = [view.latest(mask, "final") for mask in masks]
    if None not in final and final[0]["step"] == view.newest:
        learned = final[0]
        return final, f"final: {learned['windows']} held-out windows, ± {html.number(learned['stderr'])} standard error"
    live = [view.latest(mask, "live") for mask in masks]
    at = "" if live[0] is None else f" at step {live[0]['step']}"
    return live, f"live: {view.job.live_windows} held-out windows{at}; original weights under the mask"


def result(view: RunSnapshot | None) -> str:
    """The table at the end of a run."""
    if view is None:
        return ""
    rows = [view.latest(mask, "final") for mask in ("dense", "magnitude", "learned")]
    if None in rows:
        return ""
    pattern = view.job.learn.pattern
    given = view.run.given()
    names = {
        "dense": "dense (nothing removed)" if given == "dense" else given,
        "magnitude": f"magnitude {pattern} mask",
        "learned": f"learned {pattern} mask",
    }
    dense, first = rows[0]["perplexity"], rows[0]
    body = [
        (names[row["mask"]], html.with_error(row["perplexity"], row["stderr"]), f"{row['perplexity'] / dense:.2f} ×")
        for row in rows
    ]
    table = html.table(
        ("mask", "held-out perplexity", "over dense" if given == "dense" else "over the given model"),
        body,
        classes=[row["mask"] for row in rows],
    )
    return f"""<div class='result'><h3>Result at step {rows[2]["step"]}</h3>{table}
<p>On {first["windows"]} held-out windows of {first["context"]} tokens of {escape(judged_by(view.job.corpus))}
({first["tokens"]:,} predicted), ± standard error over the windows. No weight was updated: each mask is applied to the original
weights. Lower is better.</p>{_further(view)}</div>"""


def _further(view: RunSnapshot) -> str:
    """The table of the further texts on which the mask as it is was judged."""
    given = view.run.given()
    rows = []
    for text, masks in view.judged_now().items():
        learned, dense = masks["learned"], masks["dense"]
        values = [html.with_error(row["perplexity"], row["stderr"]) for row in (learned, dense)]
        rows.append((escape(text), *values, f"{html.with_error(learned['ratio'], learned['ratio_stderr'])} ×"))
    over = "over dense" if given == "dense" else "over the given model"
    columns = ("judged on", "learned mask", escape(given), over)
    return f"<h3>On further texts</h3>{html.table(columns, rows)}" if rows else ""


def log(view: RunSnapshot | None) -> str:
    """What happened, newest first."""
    if view is None:
        return ""
    lines = []
    for event in reversed(view.events[-40:]):
        named = {key: "" if key == event["event"] else f"{key} " for key in event}
        about = ", ".join(f"{named[key]}{event[key]}" for key in event if key not in ("time", "step", "event", "phase"))
        when = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S")
        called = EVENTS.get(event["event"], event["event"])
        lines.append(f"<li><code>{when}</code> step {event['step']}: {escape(called)} {escape(about)}</li>")
    skipped = view.run.skipped()
    if skipped:
        first, reason = next(iter(skipped.items()))
        lines.append(f"<li>left dense: {len(skipped)} linear maps, e.g. {escape(first)} ({escape(reason)})</li>")
    return f"<ul class='log'>{''.join(lines)}</ul>"


def _perplexity(row: dict | None) -> str:
    return html.number(None if row is None else row["perplexity"])


def _asked(view: RunSnapshot) -> str:
    """What was asked for, and when it takes effect."""
    names = {
        "set": "another λ1",
        "delay": "slow motion",
        "gradient": "a gradient half",
        "prox": "a prox half",
        "step": "a step",
    }
    listed = ", ".join(dict.fromkeys(names.get(name, name) for name in view.asked))
    return f"Asked for: {listed}. It takes effect when what is being computed now is done."


def _short(path: str) -> str:
    return path.rsplit("/", 1)[-1]
