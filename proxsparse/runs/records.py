"""What a line of each append-only record holds. A line that a crash, a full disk or a hand damaged is left out and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxsparse.files import Tail


def is_number(value: Any) -> bool:
    """A number, or null, which stands for what was not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def is_step(value: Any) -> bool:
    """The number of a step."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _one_length(record: dict[str, Any]) -> bool:
    return len({len(value) for name, value in record.items() if name != "step"}) == 1


def _is_event(record: dict[str, Any]) -> bool:
    """One that sets λ1 is replayed: it has to say when, and to what."""
    told = ("time", "lambda1") if record["event"] == "lambda1" else ("time",)
    known = all(record.get(name) is not None and is_number(record[name]) for name in told)
    return known and (record["event"] != "lambda1" or record.get("phase") in ("gradient", "prox"))


def _is_judged(record: dict[str, Any]) -> bool:
    """The losses of all windows, each of them a number."""
    losses = record.get("losses")
    return (
        isinstance(losses, list) and len(losses) > 0 and all(value is not None and is_number(value) for value in losses)
    )


def _fits(record: Any, texts: tuple[str, ...], others: Callable[[Any], bool]) -> bool:
    """Whether the record names its step, these texts, and nothing else that `others` does not take."""
    if not isinstance(record, dict) or not is_step(record.get("step")):
        return False
    return all(isinstance(record.get(name), str) for name in texts) and all(
        others(value) for name, value in record.items() if name not in ("step", *texts)
    )


FITS: dict[str, Callable[[Any], bool]] = {
    "steps": lambda record: _fits(record, (), is_number) and {"loss", "lambda1", "flips"} <= record.keys(),
    "layers": lambda record: _fits(record, (), _is_list_of_numbers) and "flips" in record and _one_length(record),
    "perplexity": lambda record: _fits(record, ("mask", "scope"), is_number) and "perplexity" in record,
    "judged": lambda record: (
        _fits(record, ("mask", "text", "sha256"), lambda value: is_number(value) or isinstance(value, list))
        and is_step(record.get("context"))
        and _is_judged(record)
    ),
    "events": lambda record: _fits(record, ("event",), lambda _: True) and _is_event(record),
}


def tail_of(directory: Path, name: str) -> Tail:
    """Reads a record of the run in `directory`: `steps`, `layers`, `perplexity`, `judged` or `events`."""
    return Tail(directory / f"{name}.jsonl", FITS[name])
