"""Command-line flags made from the settings' declarations, so that help, defaults and checks are written once."""

from __future__ import annotations

import argparse

from proxsparse.config import PRESETS, LearnConfig, LearnJob, absolute
from proxsparse.errors import ProxSparseError
from proxsparse.runs.presets import read_preset
from proxsparse.settings import given_settings, settings_of

METAVARS = {"whole number": "INT", "number": "FLOAT", "text": "TEXT"}


class Parser(argparse.ArgumentParser):
    """One sentence instead of a usage screen when an argument is wrong."""

    def error(self, message: str):
        raise ProxSparseError(f"{message[0].upper()}{message[1:].rstrip('.')}: see `{self.prog} --help`.")


def add_settings(parser: argparse.ArgumentParser, config: type, title: str, without: tuple[str, ...] = ()) -> None:
    """One flag for every setting of a configuration but those in `without`.

    A flag that was not given is absent from the result; numbers stay text, which the configuration reads and checks.
    """
    group = parser.add_argument_group(title)
    for name, setting in settings_of(config).items():
        if name in without:
            continue
        # Where it is None, the help tells what is chosen.
        default = "" if setting.default is None else f" (default {setting.with_unit(str(setting.default))})"
        common = {"dest": name, "default": argparse.SUPPRESS, "help": f"{setting.help}{default}".replace("%", "%%")}
        if setting.kind == "switch":
            group.add_argument(f"--{setting.flag}", action=argparse.BooleanOptionalAction, **common)
        elif setting.kind == "choice":
            group.add_argument(f"--{setting.flag}", choices=setting.choices, **common)
        else:
            group.add_argument(f"--{setting.flag}", metavar=METAVARS[setting.kind], **common)


def add_further_texts(parser: argparse.ArgumentParser, help: str) -> None:
    """--evaluate-on with any number of texts; none: judge on no further text."""
    parser.add_argument("--evaluate-on", nargs="*", metavar="TEXT", default=argparse.SUPPRESS, help=help)


def job_from(arguments: argparse.Namespace) -> LearnJob:
    """The preset, with every flag that was given put over it."""
    given = vars(arguments)
    preset = given.get("preset", "Quick")
    values = (PRESETS[preset] if preset in PRESETS else read_preset(preset)).to_dict()
    values["learn"] |= given_settings(LearnConfig, given)
    values |= given_settings(LearnJob, given)
    for name in ("model", "corpus"):  # a run is resumed from anywhere
        values[name] = absolute(values[name])
    if values["evaluate_on"] is not None:
        values["evaluate_on"] = tuple(map(absolute, values["evaluate_on"]))
    return LearnJob.from_dict(values)
