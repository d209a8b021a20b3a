"""Public functions say what they take, return and refuse, in numpydoc's sections."""

import inspect

import pytest

import proxsparse
from proxsparse import figures, methods

FUNCTIONS = {
    f"{module.__name__}.{name}": found
    for module in (proxsparse, methods, figures)
    for name in module.__all__
    if inspect.isfunction(found := getattr(module, name))
}
SAID_ONCE_FOR_ALL = {"self"}


def sections(docstring: str) -> dict[str, str]:
    """{title: text} of a cleaned numpydoc docstring."""
    found, title, lines = {}, "", docstring.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"} and len(below) == len(line):
            title = line
        else:
            found[title] = found.get(title, "") + line + "\n"
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_and_returns(name):
    function = FUNCTIONS[name]
    said = sections(inspect.getdoc(function))
    taken = set(inspect.signature(function).parameters) - SAID_ONCE_FOR_ALL
    described = {
        part.strip(" *")
        for line in said.get("Parameters", "").splitlines()
        if line and not line.startswith((" ", "-"))
        for part in line.split(" : ")[0].split(",")
    }
    assert described == taken, f"{name} takes {sorted(taken)} and describes {sorted(described)}"
    assert said.get("Returns", "").strip("- \n"), f"{name} does not say what it returns"


def test_there_are_public_functions():
    assert len(FUNCTIONS) > 25
