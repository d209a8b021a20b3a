"""Fills `<!-- commands -->`, `<!-- settings of NAME -->`, `<!-- presets -->` and `<!-- lessons -->` in a page with what the program, or
the list of the lessons, says itself. Notes that begin with "> Read as a file", and links to notebooks, are for code hosts and left out."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from app.limits import Limits
from app.main import _parser as app_parser
from proxsparse import config
from proxsparse.cli.main import build_parser
from proxsparse.settings import Setting, settings_of

MARK = re.compile(r"<!-- (commands|presets|lessons|settings of (\w+)) -->")
# What a code host shows, and the site need not say.
ONLY_IN_THE_FILE = re.compile(r"^> Read as a file .*\n(?:> .*\n)*\n", re.MULTILINE)
NOTEBOOKS = re.compile(r"\[([^\]]+)\]\((?:\.\./)*notebooks\b[^)]*\)")  # links to what is no page of the site
LESSONS = Path(__file__).parents[2] / "notebooks" / "README.md"
CONFIGURATIONS = {
    "Limits": Limits,
    **{name: getattr(config, name) for name in ("LearnConfig", "LearnJob", "CompareJob", "SweepPlan")},
}


def fill(app, page: str, source: list[str]) -> None:
    source[0] = NOTEBOOKS.sub(r"\1", ONLY_IN_THE_FILE.sub("", source[0]))
    makers = {"commands": commands, "presets": presets, "lessons": lessons}
    source[0] = MARK.sub(lambda mark: settings(CONFIGURATIONS[mark[2]]) if mark[2] else makers[mark[1]](), source[0])


def settings(configuration: type) -> str:
    """A Markdown table: a row a setting."""
    rows = [_row(setting) for setting in settings_of(configuration).values()]
    return "\n".join(["| setting | default | values | what it does |", "|---|---|---|---|", *rows])


def presets() -> str:
    """A Markdown table: the settings in which presets differ, a row a preset; then what one should know of them."""
    columns = {"steps": "steps", "lambda1": "λ1", "ramp": "ramp", "relative": "relative", "metric": "metric", "loss_at": "loss at",
               "distill": "distill", "learning_rate": "learning rate", "batch": "batch", "length": "length", "lambda2": "λ2",
               "epsilon": "ε"}  # fmt: skip
    rows = [f"| preset | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for name, preset in config.PRESETS.items():
        values = preset.to_dict() | preset.to_dict()["learn"]
        rows.append(f"| {name} | {' | '.join(_plainly(values[column]) for column in columns)} |")
    notes = {note: [] for note in config.PRESET_NOTES.values()}
    for name, note in config.PRESET_NOTES.items():
        notes[note].append(name)
    return "\n".join([*rows, "", *(f"- {', '.join(names)}: {_escaped(note)}" for note, names in notes.items())])


def lessons() -> str:
    """The table of the lessons as `notebooks/README.md` has it; the notebooks themselves are no pages of the site."""
    rows = [line for line in LESSONS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return re.sub(r"\[([^\]]+)\]\([^)]+\.ipynb\)", r"\1", "\n".join(rows))


def _plainly(value) -> str:
    """A value as one would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(setting: Setting) -> str:
    cells = (
        f"`--{setting.flag}`",
        "" if setting.default is None else setting.with_unit(_plainly(setting.default)),
        ", ".join(f"`{choice}`" for choice in setting.choices)
        or {"switch": "on or off"}.get(setting.kind, setting.kind),
        setting.help,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commands() -> str:
    """Markdown: a section a command, with its options as a definition list."""
    return "\n\n".join(_command(parser) for parser in _parsers(build_parser()))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Of the commands that have a help line; of those with commands of their own, these."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for action in verbs._choices_actions:
        verb = verbs.choices[action.dest]
        if action.dest == "app":
            yield app_parser()
        elif any(isinstance(action, argparse._SubParsersAction) for action in verb._actions):
            yield from _parsers(verb)
        else:
            yield verb


def _command(parser: argparse.ArgumentParser) -> str:
    about, _, example = (parser.description or "").partition("\n\n")
    parts = [f"## {parser.prog.removeprefix('proxsparse ')}", about]
    if example:
        parts.append("```bash\n" + "\n".join(line.strip() for line in example.splitlines()) + "\n```")
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
        ]
        if shown and group.title not in ("positional arguments", "options"):
            parts.append(f"**{group.title[0].upper()}{group.title[1:]}**")
        for action in shown:
            help = formatter._expand_help(action) if action.help else f"one of {', '.join(action.choices or ['any'])}"
            parts.append(f"`{formatter._format_action_invocation(action)}`\n: {_escaped(help)}")
    if parser.epilog:
        parts.append(_escaped(parser.epilog))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    """Plain text as Markdown: what lies between backticks stays code."""
    parts = text.split("`")
    return "`".join(part if index % 2 else re.sub(r"([*_<>$\[\]|])", r"\\\1", part) for index, part in enumerate(parts))


def setup(app):
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
