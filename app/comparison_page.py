"""A comparison as HTML: what it is doing, its table, its completions. Everything that comes from outside is escaped."""

from __future__ import annotations

from html import escape

import pandas as pd

from app import html
from app.views.comparison import Compared

SORTED_BY = {  # column as people read it → column of the table
    "over ours": "ratio", "weights": "weights_changed", "memory, GB": "memory_GB", "kept as ours": "overlap",
    "output error": "output_error",
}  # fmt: skip
WORDS = {"measured": "✓", "failed": "gave no result", "working": "working on it", "waiting": "waiting"}
EMPTY = """
<div class='empty'><b>No comparison yet.</b> Open <b>New comparison</b>, choose methods and runs, and press <b>Compare them</b>.</div>"""


def banner(found: Compared, state: dict, asked: tuple[str, ...]) -> str:
    """What the comparison is doing, how far it is, and which method is at what stage."""
    job, step, steps = found.job, state["step"], state.get("steps")
    facts = [f"part <b>{step}</b> of {steps}"] if steps else []
    if state.get("elapsed") is not None:
        facts.append(f"{html.duration(state['elapsed'])} of work")
    if state.get("device"):
        facts.append(escape(state["device"]))
    status = state["status"]
    wanted = f"<div class='facts'>Asked for: {escape(', '.join(dict.fromkeys(asked)))}.</div>" if asked else ""
    error = html.failure(state["error"]) if state.get("error") else ""
    if status == "interrupted":
        error = html.failure(
            "The worker process ended unexpectedly (killed, or out of memory); Resume goes on with the next method."
        )
    what = f"{escape(job.model.rsplit('/', 1)[-1])} on {escape(job.corpus.rsplit('/', 1)[-1])}, {job.n}:{job.m}"
    chips = "".join(
        f"<li class='{word}'>{escape(name)} <span>{WORDS[word]}</span></li>"
        for name, word in found.stages(status).items()
    )
    recorded = (
        html.note("A recorded comparison, measured with the embedded model. Its masks are not on disk: start one of your own to open, "
                  "export or learn from a mask.")
        if found.run.header().get("recorded") else ""
    )  # fmt: skip
    rest = f"<ul class='stages' aria-label='methods'>{chips}</ul>{recorded}{error}"
    return html.banner(state, facts, what, found.run.id, "parts done", steps or 1, wanted, rest)


def table(found: Compared, order: str, chosen: str | None) -> str:
    """The table in the order asked for. A click on a name chooses the method, one on a heading sorts by it: what was clicked
    stands in the buttons' data."""
    if not len(found.table):
        return html.note("Nothing is measured yet.")
    key, falls = order.removeprefix("-"), order.startswith("-")
    columns = list(found.shown.columns)
    rows = found.table.sort_values(
        key if key in found.table else "perplexity", ascending=not falls, kind="stable"
    ).index
    heads = "".join(_head(column, key, falls) for column in columns)
    body = "".join(_row(found.shown.loc[row], columns, chosen, found.base) for row in rows)
    return (
        f"<div class='scroll'><table class='plain'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def sort_key(column: str) -> str:
    """The column of `Comparison.table` by which a column that people read is sorted."""
    if column.startswith("over ours on "):
        return f"ratio on {column.removeprefix('over ours on ')}"
    if column.startswith("on "):
        return f"perplexity {column}"
    return SORTED_BY.get(column, column)


def _head(column: str, key: str, falls: bool) -> str:
    own = sort_key(column)
    sorted_now = own == key
    state = f" aria-sort='{'descending' if falls else 'ascending'}'" if sorted_now else ""
    mark = (" ▼" if falls else " ▲") if sorted_now else ""
    then = f"-{own}" if sorted_now and not falls else own
    number = "" if column == "method" else " class='number'"
    return f"<th{number}{state}><button type='button' data-sort='{escape(then, quote=True)}'>{escape(column)}{mark}</button></th>"


def _row(cells: pd.Series, columns: list[str], chosen: str | None, base: str) -> str:
    name = str(cells["method"])
    pressed = "true" if name == chosen else "false"
    label = f"<button type='button' data-method='{escape(name, quote=True)}' aria-pressed='{pressed}'>{escape(name)}</button>"
    first = f"<td>{escape(name) if name == base else label}</td>"  # nothing can be done with the model as it came
    rest = "".join(
        f"<td class='number'>{escape(str(cells[column])) or '–'}</td>" for column in columns if column != "method"
    )
    return f"<tr class='{'chosen' if name == chosen else ''}'>{first}{rest}</tr>"


def completions(found: Compared) -> str:
    """How every model goes on after each prompt, one below the other."""
    texts = found.completions
    if texts.empty:
        return ""
    parts = []
    for prompt in texts.index:
        lines = "".join(
            f"<div class='said-by'>{escape(str(name))}</div><div class='said'>{escape(' '.join(str(text).split()))}</div>"
            for name, text in texts.loc[prompt].items()
        )
        parts.append(f"<h4>{escape(prompt)} …</h4><div class='completions'>{lines}</div>")
    return f"<h3>How each model goes on</h3><p class='note'>Greedy: each token is the most probable one.</p>{''.join(parts)}"


def words(found: Compared) -> str:
    """What the columns mean, and what is to be known of single methods."""
    listed = "".join(f"<li>{html.with_code(note)}</li>" for note in found.notes)
    about = (
        f"<details><summary>What the columns mean</summary><p class='note'>{html.with_code(found.about)}</p></details>"
    )
    return about + (f"<ul class='log'>{listed}</ul>" if listed else "")
