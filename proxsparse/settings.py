"""Settings: dataclasses whose fields carry their type, bounds, unit and help line, checked by pydantic.

This is the one place that interprets type hints: the command line makes its flags from `settings_of`, the app its form,
and both hand over what was typed as it stands. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, dataclass_transform

import pydantic
from pydantic_core import ErrorDetails, PydanticCustomError

from proxsparse.errors import ProxSparseError

Kind = Literal["switch", "choice", "whole number", "number", "text"]
_KINDS: dict[type, Kind] = {bool: "switch", int: "whole number", float: "number", str: "text"}
_NO_NUMBER = (
    "int_type",
    "int_parsing",
    "int_parsing_size",
    "int_from_float",
    "float_type",
    "float_parsing",
    "finite_number",
)


@dataclass(frozen=True)
class Setting:
    """One field of a configuration.

    Attributes
    ----------
    kind : what is to be typed or chosen.
    choices : of the kind "choice", in the order of the type; else empty.
    optional : whether None may stand for "choose for me".
    unit : in the plural, or "".
    """

    name: str
    kind: Kind
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str
    unit: str

    @property
    def flag(self) -> str:
        """As messages and the command line call it: `learning-rate`."""
        return self.name.replace("_", "-")

    def with_unit(self, shown: str) -> str:
        """A value, as it is shown, with its unit, which is in the plural and left out beside 1."""
        return f"{shown} {self.unit}" if self.unit and shown != "1" else shown


def setting(default: Any, help: str, unit: str = "", **bounds: float) -> Any:
    """A field of a configuration. bounds: `gt`, `ge`, `le` of pydantic's Field."""
    exact = isinstance(default, bool)  # neither 1 nor "yes" stands for true
    return pydantic.Field(default, description=help, json_schema_extra={"unit": unit}, strict=exact or None, **bounds)


@dataclass_transform(frozen_default=True, field_specifiers=(setting, pydantic.Field))
def settings(cls: type) -> Any:
    """Make a frozen dataclass of `cls` whose values are checked when it is made, and which takes numbers as text.

    What is wrong is raised as ProxSparseError: one sentence that names the setting, its value and the way out.
    """
    cls._refuse_switches_as_numbers = pydantic.field_validator("*", mode="before")(_refuse_switches_as_numbers)
    cls._refuse_what_is_no_text = pydantic.field_validator("*", mode="before")(_refuse_what_is_no_text)
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    checked = pydantic.dataclasses.dataclass(cls, frozen=True, config=config)
    validate = checked.__init__

    @functools.wraps(validate)
    def init(self, *arguments, **values):
        try:
            validate(self, *arguments, **values)
        except pydantic.ValidationError as error:
            raise ProxSparseError(_sentence(error.errors()[0], checked)) from None

    checked.__init__ = init
    return checked


def settings_of(config: type) -> dict[str, Setting]:
    """The settings of a configuration by name, in its order; fields without a help line are left out.

    >>> from proxsparse.config import LearnConfig
    >>> settings_of(LearnConfig)["steps"].kind
    'whole number'
    """
    found = {}
    for name, field in config.__pydantic_fields__.items():
        if field.description is None:
            continue
        kind, optional = _plain(field.annotation)
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        found[name] = Setting(
            name, "choice" if choices else _KINDS[kind], choices, optional, field.default, field.description,
            field.json_schema_extra["unit"],
        )  # fmt: skip
    return found


def given_settings(config: type, values: dict) -> dict:
    """Those of `values` that are fields of `config`."""
    names = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if name in names}


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without `| None`, and whether that stood there."""
    if isinstance(hint, types.UnionType):
        (kind,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        return kind, True
    return hint, False


def _refuse_switches_as_numbers(cls, value, info):
    """pydantic takes True for 1."""
    kind, _ = _plain(cls.__pydantic_fields__[info.field_name].annotation)
    if isinstance(value, bool) and kind in (int, float):
        raise PydanticCustomError("int_type" if kind is int else "float_type", "a switch is no number")
    return value


def _refuse_what_is_no_text(cls, value):
    """Half a character, or a zero byte, which ends a text early for some who read it."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str) and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
            raise PydanticCustomError("no_text", "no text")
    return value


def _plainly(number: Any) -> str:
    """A number, or the text of one, as people write it: 1048576, not 1.04858e+06."""
    try:
        value = float(number)
    except OverflowError:  # a whole number of more than 308 digits
        return "a number of hundreds of digits"
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:g}"


def _shown(value: Any) -> str:
    """What was given, as far as a sentence has room for it."""
    try:
        return repr(value[:80] if isinstance(value, str) else value)[:80]
    except ValueError:  # Python does not write whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def _sentence(error: ErrorDetails, config: type) -> str:
    path = [str(part) for part in error["loc"]]
    field, value, about = path[0], error["input"], error.get("ctx", {})
    name, kind = field.replace("_", "-"), error["type"]
    if kind in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        known = [entry.name for entry in dataclasses.fields(config)]
        close = difflib.get_close_matches(field, known, 1)
        way_out = f"did you mean {close[0]}?" if close else f"choose among {', '.join(known)}."
        return f"There is no setting {field!r}: {way_out}"
    shown = _shown(value)
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        bound = about[{"greater_than": "gt", "greater_than_equal": "ge", "less_than_equal": "le"}[kind]]
        words = {
            "greater_than": "a number above {}",
            "greater_than_equal": "{} or more",
            "less_than_equal": "{} or less",
        }
        return f"{name} is {_plainly(value)}: give {words[kind].format(_plainly(bound))}."
    if kind == "literal_error":
        choices = typing.get_args(_plain(config.__pydantic_fields__[field].annotation)[0])
        return f"{name} is {shown}: choose one of {', '.join(map(str, choices))}."
    if kind in _NO_NUMBER:
        return f"{name} is {shown}: give a {'whole ' if kind.startswith('int') else ''}number."
    if kind == "no_text":
        return f"{name} is {shown}, which holds a zero byte or half a character: type it again."
    words = {"bool_type": "true or false", "string_type": "a text"}.get(kind)
    return f"{name} is {shown}: give {words}." if words else f"{name} is {shown} ({error['msg']}): give another value."
