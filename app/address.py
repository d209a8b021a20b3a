"""The address holds the view: run, screen, and what the screen in sight declares. A link reproduces it, Back and Forward
restore it.

The page and the address meet in two hidden components. What is to stand in the address is decided here, and the script of the
one writes it; when somebody goes back or forward the script of the other hands over the address that the browser shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import gradio as gr
from gradio.components import Component

from app.screens.shown import Shown
from proxsparse import ProxSparseError

LONGEST = 200  # characters of one value: an address is pasted into chats and papers

# A visit is a move of the browser in its history. What comes of an earlier one is not written over the address of a later one.
WRITE = """
const own = OWN;
let visits = 0;
window.addEventListener('popstate', () => { visits += 1; });
watch('value', () => {
  const {query, push, visit} = JSON.parse(props.value);
  if (visit !== visits) return;
  const address = new URL(window.location), given = new URLSearchParams(query);
  for (const name of own) {
    if (given.has(name)) address.searchParams.set(name, given.get(name)); else address.searchParams.delete(name);
  }
  if (address.href !== window.location.href) window.history[push ? 'pushState' : 'replaceState'](null, '', address);
});
"""
# A link to another view of this page changes the address alone: the page is filled anew as if somebody had gone back to it.
READ = """
document.addEventListener('click', (event) => {
  const link = event.target.closest("a[href^='?']:not([download])");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  window.history.pushState(null, '', link.href);
  window.dispatchEvent(new PopStateEvent('popstate'));
});
let visits = 0;
window.addEventListener('popstate', () => {
  visits += 1;
  props.value = JSON.stringify({query: window.location.search, visit: visits});
  trigger('visited');
});
"""


def as_it_stands(value: Any) -> str:
    """A value as the address writes it, to six digits."""
    if isinstance(value, bool):
        return str(int(value))
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Entry:
    """One name in the address, and the component that it fills.

    A screen may list the component alone where its kind says all: a slider takes numbers between its ends, a radio or a
    dropdown one of its choices, a checkbox 1 or 0, anything else a text. A dropdown without choices takes any text: the screen
    refuses what it does not know.

    Parameters
    ----------
    component
        An input of the screen. Where the name is missing in an address it gets the value that it was built with.
    read
        The text of an address → what the component gets, a value or a `gr.update`. Raises ProxSparseError with the
        sentence that is shown; then the component gets its first value.
    write
        Value and `Shown` → text; "" leaves it out. It is asked before the screen is rendered: `Shown.seen` is what the last
        rendering left. Default: the value as it stands, left out where it is the one that the component was built with.
    dragged
        Whether the value changes continuously: then it leaves no entry in the history. Default: sliders are dragged.
    fills
        False where the screen itself moves the component, by `Shown.asked`, because what it may hold depends on the run.
    """

    def __init__(
        self,
        component: Component,
        read: Callable[[str], Any] | None = None,
        write: Callable[[Any, Shown], str] | None = None,
        dragged: bool | None = None,
        fills: bool = True,
    ):
        self.component, self.first, self.fills = component, component.value, fills
        self.read = read or (lambda text: read_for(component, text))
        self.write = write or (lambda value, shown: "" if value == self.first else as_it_stands(value))
        self.dragged = isinstance(component, gr.Slider) if dragged is None else dragged


def entry(given: Component | Entry) -> Entry:
    """What a screen lists, as an `Entry`."""
    return given if isinstance(given, Entry) else Entry(given)


def read_for(component: Component, text: str) -> Any:
    """A value of the kind that the component takes. Raises ProxSparseError otherwise."""
    if len(text) > LONGEST:
        raise ProxSparseError(f"{text[:20]!r} … has {len(text)} characters: at most {LONGEST} can be meant.")
    if isinstance(component, gr.Checkbox):
        if text not in ("0", "1"):
            raise ProxSparseError(f"{text!r} is neither 1 nor 0.")
        return text == "1"
    if isinstance(component, gr.Slider | gr.Number):
        value = number(text)
        low, high = component.minimum, component.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            raise ProxSparseError(f"{text!r} is not between {low:g} and {high:g}.")
        return value
    choices = [value for _, value in getattr(component, "choices", None) or ()]
    if choices and text not in choices and not getattr(component, "allow_custom_value", False):
        raise ProxSparseError(f"{text!r} is none of {', '.join(map(str, choices))}.")
    if isinstance(component, gr.Dropdown) and not choices:
        return gr.update(value=text, choices=[text])  # Gradio takes no value that is not among the choices
    return text


def number(text: str) -> float:
    """A finite number, whole where it is. Raises ProxSparseError for other texts."""
    try:
        value = float(text)
    except ValueError:
        raise ProxSparseError(f"{text!r} is not a number.") from None
    if not abs(value) < float("inf"):
        raise ProxSparseError(f"{text!r} is not a finite number.")
    return int(value) if value.is_integer() else value


@dataclass(frozen=True)
class Filled:
    """What an address asks for. updates: of the components of one screen. given: the names that were taken. refused: a sentence
    for each that was not."""

    updates: dict[Component, Any]
    given: dict[str, str]
    refused: list[str]


def fill(entries: Mapping[str, Entry], asked: Mapping[str, str]) -> Filled:
    """Every component of a screen gets what the address says, or the value that it was built with."""
    updates, given, refused = {}, {}, []
    for name, each in entries.items():
        value = each.first
        if name in asked:
            try:
                value = each.read(asked[name])
                given[name] = asked[name]
            except ProxSparseError as error:
                refused.append(f"The address says {name}={asked[name][:40]}: {error} The default is shown.")
        if each.fills:
            updates[each.component] = value
    return Filled(updates, given, refused)


def written(entries: Mapping[str, Entry], shown: Shown) -> dict[str, str]:
    """The names of a screen and their values, as they are to stand in the address."""
    texts = {name: each.write(shown.values[each.component], shown) for name, each in entries.items()}
    return {name: text for name, text in texts.items() if text}


def components(names: list[str]) -> tuple[gr.HTML, gr.HTML]:
    """The hidden places where page and address meet.

    The first takes what `as_value` makes. names: all that the page writes; others, of whatever origin, are left as they are. The
    second has the event `visited`: the browser went back or forward; what its value says, `visited` reads.
    """
    written, read = (
        gr.HTML(value="", html_template="<span></span>", js_on_load=script, visible="hidden", elem_id=id)
        for id, script in (("address", WRITE.replace("OWN", json.dumps(names))), ("visits", READ))
    )
    return written, read


def as_value(parts: Mapping[str, str], push: bool, visit: int) -> str:
    """What the first component gets. push: whether Back leads to the address of before. visit: the one that the page was filled from."""
    return json.dumps({"query": urlencode(parts), "push": push, "visit": visit})


def visited(value: str) -> tuple[dict[str, str], int]:
    """The names and values of the address that the browser shows, and the number of the visit: the second component's value.

    Raises ProxSparseError for what the browser's part of the page does not write.
    """
    try:
        given = json.loads(value)
        return dict(parse_qsl(given["query"].removeprefix("?"))), int(given["visit"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ProxSparseError("The page does not say at which address it is: load it again.") from None
