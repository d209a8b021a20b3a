"""Sentences on the page repeat what an address or a file says: none of it becomes part of the page."""

import ast
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from app import messages
from app.operator import Operator
from app.shell import Shell
from proxsparse import ProxSparseError

MARKUP = (
    "<b>bold</b>", "<img src=https://evil.example/x.png>", "<form action=https://evil.example><input name=password></form>",
    "<a href='javascript:alert(1)'>x</a>", "<script>alert(1)</script>", "<svg/onload=alert(1)>", '"><iframe src=//evil.example>',
    "&lt;b&gt;", "<!--", "</div><style>*{display:none}</style>", "<math><mi xlink:href='data:x'>", "<\x00b>", "<B\n>x</B>",
)  # fmt: skip


def elements_in(text):
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(tag)
    parser.handle_endtag = parser.handle_comment = parser.handle_decl = found.append
    parser.feed(text)
    parser.close()
    return found


@pytest.fixture
def said(monkeypatch):
    """What Gradio is given to show."""
    given = []
    monkeypatch.setattr(messages.gr, "Warning", given.append)
    return given


@pytest.mark.parametrize("text", MARKUP)
def test_a_message_is_text(said, text):
    messages.warn(text)
    for shown in (*said, messages.refusal(text).message):
        assert elements_in(shown) == []


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    shell = Shell(Operator(tmp_path_factory.mktemp("runs")))
    shell.build()
    return shell


@pytest.mark.parametrize("text", MARKUP)
@pytest.mark.parametrize(
    "name", ["run", "screen", "layer", "step", "compare", "preset", "chosen", "lambda1", "tour", "<b>"]
)
def test_nothing_in_an_address_becomes_part_of_the_page(said, shell, name, text):
    for screen in ("", "learn", "masks", "regularizer", "try", "runs", "export", text):
        shell.go({"screen": screen, name: text}, 0)
    assert [shown for shown in said if elements_in(shown)] == []


def test_everything_that_is_said_is_said_in_one_place():
    """So that nobody forgets to escape: no other module of the app calls Gradio's functions for messages."""
    loud = {"Warning", "Info", "Error", "Success"}
    found = []
    for path in Path("app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in loud
                and getattr(node.value, "id", "") in ("gr", "gradio")
            ):
                found.append(path.name)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradio"):
                assert not loud & {alias.name for alias in node.names}, path
    assert set(found) == {"messages.py"}


def test_what_a_handler_refuses_is_escaped():
    from app.shell import said_on_page

    def handler():
        raise ProxSparseError(MARKUP[1])

    with pytest.raises(messages.gr.Error) as caught:
        said_on_page(handler)(SimpleNamespace(username=None))
    assert elements_in(caught.value.message) == [] and "evil.example" in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "[]",
        "{}",
        "1",
        '{"query": 1, "visit": 0}',
        '{"query": "", "visit": "a"}',
        '{"query": "", "visit": 1e400}',
        "[" * 10**5,
    ],
)
def test_an_address_that_the_page_does_not_write_is_one_sentence(shell, value):
    with pytest.raises(ProxSparseError, match="load it again"):
        shell.visited(value)


@pytest.mark.parametrize("id", [["run"], {"run": 1}, 1, True, "a" * 200, "../run", "\0"])
def test_what_is_no_name_of_a_run_is_one_sentence(shell, id):
    with pytest.raises(ProxSparseError, match="There is no run named"):
        shell.operator.find_any(id)


def test_a_screen_that_there_is_not_shows_nothing(shell):
    values = {each: "" for each in shell.looking()["inputs"]} | {
        shell.seen: {},
        shell.screen: "none",
        shell.asked: "[0, {}]",
        shell.filling: "[0, {}]",
    }
    assert shell.show(values) == gr.skip()
