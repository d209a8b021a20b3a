"""Output that no encoding can break: what a pipe or a console cannot write is spelled otherwise, and nothing is lost; and what is said of
an export."""

from __future__ import annotations

import codecs
import sys

SPELLED = {
    "±": "+/-", "×": "x", "‖": "||", "λ": "lambda", "α": "alpha", "ε": "epsilon", "…": "...", "–": "-", "—": "-", "→": "->",
    "≤": "<=", "≥": ">=", "·": "*", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def spell(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: a character that the encoding lacks in ASCII, or as its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    spelled = (SPELLED.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking)
    return "".join(spelled), error.end


def write_in_any_encoding() -> None:
    """Let stdout and stderr spell what their encoding lacks. What is no text stream of Python's stays as it is."""
    codecs.register_error("spell", spell)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="spell")


def say_export(report: dict) -> None:
    """The files of an export, how large it is, and what was proven; see `export_model`."""
    for file in report["files"]:
        print(f"{file['bytes']:>13,}  {file['name']:<24} {file['about']}")
    print(f"{report['bytes']:>13,}  bytes in {report['directory']}")
    print(report["size"]["summary"])
    print(report["verification"]["summary"])
