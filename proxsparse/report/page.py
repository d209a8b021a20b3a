"""The page: what was read of a run, the chart library, and the files in web/, in one file of at most 15 MB."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path, written_whole
from proxsparse.report import about
from proxsparse.runs import Run

MOST_BYTES = 15_000_000
WEB = Path(__file__).parent / "web"
SCRIPTS = ("decode.js", "charts.js", "masks.js", "page.js")  # in this order: each uses those before it
MARK = '<meta name="generator" content="proxsparse report">'


def report_page(run: Run, most: int = MOST_BYTES) -> str:
    """The run as one page of HTML, as it is now.

    Parameters
    ----------
    run : Run
        A run that learns, or learned.
    most : int
        Largest size in bytes. Recorded steps are left out of the page, and then soft weights, until it fits.

    Returns
    -------
    str
        HTML that asks a network for nothing.

    Raises
    ------
    ProxSparseError
        For a run of another kind, a damaged one, a size that not even the chart library fits into, and where plotly is
        not installed.
    """
    run.job()  # says so where it learned nothing
    if find_spec("plotly") is None:
        raise ProxSparseError("A report needs plotly, which is not installed: pip install 'proxsparse[figures]'.")
    import plotly

    from proxsparse import figures
    from proxsparse.figures import look, tiles
    from proxsparse.report.curves import curves
    from proxsparse.report.layers import layer_maps
    from proxsparse.report.tiles import fitted

    try:
        history, without = run.history(), ""
    except ProxSparseError as error:
        history, without = None, str(error)
    drawn = curves(run)
    data: dict[str, Any] = {
        "curves": {curve.id: curve.figure for curve in drawn},
        "layers": layer_maps(run, history),
        "masks": None,
        "look": {
            "font": look.FONT, "grid": look.GRID, "kept": look.BLUE, "dropped": tiles.DROPPED, "low": look.RED, "high": look.BLUE,
            "patterns": tiles.PATTERN_COLORS, "against": tiles.AGAINST, "colorings": figures.COLORINGS,
        },
    }  # fmt: skip
    library = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    parts = {
        "mark": MARK, "title": escape(run.id), "css": _file("page.css"), "facts": _facts(run), "settings": _settings(run),
        "results": _results(run), "curves": _curves(drawn), "note": escape(without), "plotly": library,
        "script": "\n".join(_file(name) for name in SCRIPTS), "data": _as_script(data),
    }  # fmt: skip
    if history is not None:
        room = most - len(_filled(parts).encode()) - 1000  # of the sentence, and what JSON and escaping add
        data["masks"], sentence = fitted(history, max(room, 0))
        parts |= {"note": escape(sentence), "data": _as_script(data)}
    page = _filled(parts)
    if len(page.encode()) > most:
        raise ProxSparseError(
            f"The report of run {run.id} takes {len(page.encode()):,} bytes without its masks: allow that many, not {most:,}."
        )
    return page


def write_report(run: Run, path: str | Path) -> Path:
    """Write `report_page` to a file; an earlier report there is replaced, anything else is not.

    Parameters
    ----------
    run : Run
        A run that learns, or learned.
    path : str or Path
        Of the file; `~` is the home directory.

    Returns
    -------
    Path
        Of the file, without `~`.

    Raises
    ------
    ProxSparseError
        Where something else lies at `path`, or it cannot be written; and as `report_page`.
    """
    path = local_path(path)
    try:
        if path.exists() and not _is_report(path):
            raise ProxSparseError(f"{path} is there and is no report: choose another name, or remove it first.")
        page = report_page(run)
        with written_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ProxSparseError(f"{path} cannot be written ({error.strerror}): choose another place.") from error
    return path


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return MARK.encode() in file.read(1000)


def _file(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def _filled(parts: dict[str, str]) -> str:
    """The template with its parts, all in one go: what a part holds is never taken for a place of another."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def _as_script(data: dict[str, Any]) -> str:
    """JSON that neither ends the element it stands in nor begins another: `<`, `>` and `&` are escaped in its texts."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _facts(run: Run) -> str:
    return _pairs(about.facts(run))


def _settings(run: Run) -> str:
    changed = about.changed_settings(run)
    return _pairs(changed) if changed else "<p>All settings are at their default.</p>"


def _pairs(values: dict[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
        + "</dl>"
    )


def _results(run: Run) -> str:
    found = about.results(run)
    if not found:
        return "<p>No perplexity was measured.</p>"
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{result.written}</td><td>{escape(result.text)}</td>"
        f"<td>{result.windows} × {result.context} tokens</td><td>{result.step}</td></tr>"
        for result in found
        for name in (_called(result),)
    )
    return (
        "<table><thead><tr><th scope='col'>mask</th><th scope='col'>perplexity ± standard error</th><th scope='col'>judged on"
        f"</th><th scope='col'>windows</th><th scope='col'>step</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _called(result: about.Result) -> str:
    return {"dense": "none: the dense model"}.get(result.mask, result.mask)


def _curves(drawn: list) -> str:
    """A place for each curve, with its title and how to read it; the scripts draw into it."""
    if not drawn:
        return "<p>The run has taken no step yet.</p>"
    return "".join(
        f"<figure aria-labelledby='title-{curve.id}'><h3 id='title-{curve.id}'>{escape(curve.title)}</h3>"
        f"<div class='chart' id='chart-{curve.id}'></div><figcaption>{escape(curve.reading)}</figcaption></figure>"
        for curve in drawn
    )
