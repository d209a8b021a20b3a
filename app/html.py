"""Numbers, sizes, durations, tables and tiles as HTML. Whatever comes from outside is escaped here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from proxsparse.figures.look import short


def number(value: float | None) -> str:
    """A perplexity or a ratio with as many digits as are worth reading; an en dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 1e6:
        return short(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def with_error(value: float | None, error: float | None) -> str:
    """value ± its standard error."""
    known = error is not None and not math.isnan(error)
    return f"{number(value)} ± {number(error)}" if known else number(value)


def size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Seconds as people say them, in the two largest units."""
    seconds = int(seconds)
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def age(created: str, now: datetime | None = None) -> str:
    """How long ago an ISO date is, to the minute."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(created)).total_seconds()
    return "just now" if seconds < 60 else f"{duration(seconds // 60 * 60).removesuffix(' 0 s')} ago"


def with_code(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = (), classes: Sequence[str] = ()
) -> str:
    """A table whose cells are HTML already. numeric: which columns are aligned to the right; classes: one a row."""
    right = set(numeric)

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if index in right else ''}>{value}</{tag}>" for index, value in enumerate(values)
        )

    body = "".join(
        f"<tr class='{classes[index] if index < len(classes) else ''}'>{cells('td', row)}</tr>"
        for index, row in enumerate(rows)
    )
    return f"<div class='scroll'><table class='plain'><thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table></div>"


def tile(name: str, value: str, hint: str, lead: bool = False) -> str:
    """One figure with its name above and what it means below."""
    kind = "tile lead" if lead else "tile"
    return f"<div class='{kind}'><div class='name'>{name}</div><div class='value'>{value}</div><div class='hint'>{hint}</div></div>"


def banner(
    state: dict, facts: Iterable[str], what: str, id: str, label: str, total: int, asked: str = "", rest: str = ""
) -> str:
    """What something at work is doing and how far it is. state: as `Run.state`, whose step is drawn as a share of total; label: what
    the steps are; id is escaped here, the other pieces are HTML already."""
    status, step = state["status"], state["step"]
    doing = "" if status in ("done", "failed") else f"<span class='doing'>{escape(state['doing'])}</span>"
    return f"""<div class='banner'>
<div><span class='status {status}'>{"not started" if status == "new" else status}</span> {doing}</div>{asked}
<div class='facts'>{" · ".join(facts)}</div>
<div class='facts what'>{what} · <code>{escape(id)}</code></div>
<div class='track' role='progressbar' aria-label='{label}' aria-valuenow='{step}' aria-valuemax='{total}'>
<div style='width:{100 * step / total:.1f}%'></div></div>{rest}</div>"""


def note(text: str) -> str:
    """A sentence about what is, or is not, to be seen."""
    return f"<p class='note'>{with_code(text)}</p>"


def failure(text: str) -> str:
    """What went wrong, in one sentence."""
    return f"<div class='failure' role='alert'>{escape(text)}</div>"
