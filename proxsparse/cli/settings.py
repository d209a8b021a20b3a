"""Command-line flags made from the configuration's fields, so that help, defaults and checks are written once."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing

from proxsparse.config import PRESETS, LearnConfig, LearnJob, absolute
from proxsparse.errors import ProxSparseError
from proxsparse.runs.readers.sweep import read_preset


class Parser(argparse.ArgumentParser):
    """One sentence instead of a usage screen when an argument is wrong."""

    def error(self, message: str):
        raise ProxSparseError(f"{message[0].upper()}{message[1:].rstrip('.')}: see `{self.prog} --help`.")


def add_settings(parser: argparse.ArgumentParser, config: type, title: str, without: tuple[str, ...] = ()) -> None:
    """One flag for every field of a configuration but those in `without`. A flag that was not given is absent from the result."""
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "help" not in field.metadata or field.name in without:
            continue
        flag, wanted = "--" + field.name.replace("_", "-"), hints[field.name]
        unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
        default = "" if field.default is None else f" (default {field.default}{unit})"  # where None, the help tells
        help = f"{field.metadata['help']}{default}".replace("%", "%%")
        common = {"dest": field.name, "default": argparse.SUPPRESS, "help": help}
        if wanted is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif typing.get_origin(wanted) is typing.Literal:
            group.add_argument(flag, choices=typing.get_args(wanted), **common)
        else:
            kind = _plain_type(wanted)
            convert = str if kind is str else number(kind)
            group.add_argument(flag, type=convert, metavar=kind.__name__.upper(), **common)


def job_from(arguments: argparse.Namespace) -> LearnJob:
    """The preset, with every flag that was given put over it."""
    given = vars(arguments)
    preset = given.get("preset", "Quick")
    values = (PRESETS[preset] if preset in PRESETS else read_preset(preset)).to_dict()
    for config, target in ((LearnJob, values), (LearnConfig, values["learn"])):
        for field in dataclasses.fields(config):
            if field.name in given and "help" in field.metadata:
                target[field.name] = given[field.name]
    for name in ("model", "corpus"):  # a run is resumed from anywhere
        values[name] = absolute(values[name])
    return LearnJob.from_dict(values)


def _plain_type(wanted) -> type:
    if isinstance(wanted, types.UnionType):
        return next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    return wanted


def number(kind: type):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {word}") from None

    return parse
