"""The tour: ten stops over the screens, each a link. It reads its numbers from the recorded example when the page is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlencode

import gradio as gr

from app.html import number
from app.operator import EXAMPLE, EXAMPLE_COMPARISON, EXAMPLE_COMPARISON_ID, EXAMPLE_ID, RECORDED
from proxsparse import Comparison, Run
from proxsparse.runs.history.reader import History

MOST_CHANGES = 3  # of the pattern of the group whose curves are shown


@dataclass(frozen=True)
class Stop:
    """One stop. title, text: what is said, as plain text. view: the address of what is looked at, beside the run. see: where on the
    screen that is, as a selector of CSS; the first that can be seen is scrolled to, and framed."""

    title: str
    text: str
    view: Mapping[str, str]
    see: str

    @property
    def query(self) -> str:
        """The view as an address writes it."""
        return urlencode({"run": EXAMPLE_ID} | dict(self.view))


def stops() -> list[Stop]:
    """All stops in their order; none where there is no recorded example, or it recorded no masks."""
    if not (EXAMPLE / "history").is_dir():
        return []
    run = Run(EXAMPLE)
    job, history, perplexity = run.job(), run.history(), run.table("perplexity")
    learn, last = job.learn, history.steps[-1]
    final = perplexity[perplexity["scope"] == "final"].set_index("mask")["perplexity"]
    live = perplexity[(perplexity["scope"] == "live") & (perplexity["mask"] == "learned")]["perplexity"]
    different = 1 - history.agreement("start").loc[last]
    worst = different[list(history.layers)].idxmax()
    masks = {"screen": "masks", "layer": worst}
    row, group = _changing_group(history, worst)
    return [
        Stop(
            "What a 2:4 mask is",
            "Each square is one weight of the model, and four neighbours are a group. The mask keeps two of every four (blue) and "
            "drops the others (grey): a pattern that GPUs can multiply faster. This is a small piece of one layer.",
            masks | {"step": "0"}, "#chart-masks-tile",
        ),
        Stop(
            "Which two? The simplest answer",
            f"Magnitude keeps the two largest weights. For this model that is a bad choice: its perplexity, which is "
            f"{number(final['dense'])} with all weights, becomes {number(final['magnitude'])}. Colours show where the mask that "
            "learning starts from, which also looks at the activations, disagrees with it.",
            masks | {"step": "0", "colour": "against another mask", "against": "magnitude"}, "#chart-masks-tile",
        ),
        Stop(
            "Learning the mask",
            f"While the model reads text, the mask is learned: {learn.steps} steps, each a gradient half and a prox half. The "
            f"perplexity on held-out text falls from {number(live.iloc[0])} to {number(live.iloc[-1])}. No weight is changed in the end: "
            "only which ones are kept.",
            {"screen": "learn"}, "#chart-curve",
        ),
        Stop(
            "One group, step by step",
            "The four curves are the sizes of the four weights of one group while it learns. Dotted pieces are moves of the gradient, "
            "solid ones of the proximal operator. The two largest are kept: where curves cross, the group takes another pattern.",
            masks | {"step": str(last // 2), "group": f"{row}.{group}"}, "#chart-masks-group",
        ),
        Stop(
            "The regularizer",
            "R is zero exactly when at most two of the four are not zero. Move the four bars, and λ: you see what the proximal operator "
            "makes of them. The stronger λ, the sooner the two smallest go to zero.",
            {"screen": "regularizer"}, "#reg-weights",
        ),
        Stop(
            "What λ does here",
            f"λ grows by a factor of {learn.ramp:g} over the run. Weak at first, it lets the loss move the weights; strong in the end, it "
            "makes the groups 2:4. Watch the share of groups with two nonzero weights in the chart of the groups.",
            {"screen": "learn", "quantity": "pattern share"}, "#chart-composition",
        ),
        Stop(
            "What λ does for the result",
            "With this preset the loss is taken at the masked weights, and λ mostly decides when groups become 2:4: in a measured "
            "sweep, strengths from 0.05 to 0.4 gave masks of perplexity 62.2 to 62.5 after 20 steps, on other windows than here. With "
            "the paper's own method the loss is taken at the soft weights, which only λ makes 2:4: choose its preset in the "
            "settings, and try several λ.",
            {"screen": "learn", "quantity": "regularizer"}, "#preset, #settings-toggle",  # on a narrow screen the form is folded
        ),
        Stop(
            "What learning changed its mind about",
            f"At the end {different.mean():.0%} of the weights that are kept are others than at the start. The map shows in which layers; "
            "click one. Press the space bar to play the steps.",
            masks | {"against": "the start", "colour": "against another mask"}, "#chart-masks-map",
        ),
        Stop(
            "What the masked model writes",
            "Compare the next words of the dense model with those of the model under each mask: what was asked of the recorded example is "
            "shown. To ask a learned mask yourself, or to change one by hand, learn one of your own first.",
            {"screen": "try"}, "#try-prompt",
        ),
        *_compared(),
        Stop(
            "Your turn",
            "Press Run on the Learn screen: the embedded model learns a mask of its own, with the settings that you choose. Afterwards the "
            "Export screen writes the sparse model, proves it, and offers it for download.",
            {"screen": "learn"}, "#run",
        ),
    ]  # fmt: skip


def _compared() -> list[Stop]:
    """The recorded comparison, where there is one."""
    if EXAMPLE_COMPARISON_ID not in RECORDED:
        return []
    table = Comparison(Run(EXAMPLE_COMPARISON)).table().set_index("method")["perplexity"]
    return [
        Stop(
            "Other methods",
            f"On the same text the mask of Wanda, which looks at weights and activations once, ends at a perplexity of "
            f"{number(table['wanda'])}; the learned mask at {number(table['proxsparse'])}, the dense model at {number(table['dense'])}. "
            "Click a method to see what can be done with its mask.",
            {"screen": "compare", "compare": EXAMPLE_COMPARISON_ID}, "#compare-table",
        ),
    ]  # fmt: skip


def _changing_group(history: History, layer: str) -> tuple[int, int]:
    """Row and group of the tile whose pattern changes, but not so often that one could not follow; its first group where none does."""
    row, column, rows, columns = history.tile_position(layer)
    flips, m = history.flips(layer), history.m
    inside = flips["row"].between(row, row + rows - 1) & flips["group"].between(
        column // m, (column + columns) // m - 1
    )
    counts = flips[inside].groupby(["row", "group"]).size()
    counts = counts[counts <= MOST_CHANGES]
    return counts.idxmax() if len(counts) else (row, column // m)


CSS = """
#tour button, #tour a { min-height: 28px; padding: 2px 10px; border: 1px solid var(--border-color-primary); border-radius: 6px;
  cursor: pointer; background: none; color: var(--body-text-color); font-size: .85rem; text-decoration: none; }
#tour section { position: fixed; right: 16px; bottom: 16px; z-index: 40; width: min(430px, calc(100vw - 32px)); padding: 14px 18px;
  border: 2px solid #0072B2; border-radius: 8px; background: var(--background-fill-primary); color: var(--body-text-color);
  box-shadow: 0 4px 18px rgba(0, 0, 0, .25); }
#tour section[hidden] { display: none; }
#tour, #top { position: relative; z-index: 60; overflow: visible; }
[data-toured] { outline: 3px solid #E69F00; outline-offset: 3px; }
.form [data-toured] { outline-offset: -3px; } /* Gradio cuts off what lies outside the fields of a form */
#tour h2 { margin: 0 0 6px; font-size: 1.05rem; } #tour p { margin: 0 0 10px; line-height: 1.4; }
#tour nav { display: flex; gap: 8px; align-items: center; } #tour .place { flex: 1; font-size: .85rem; }
"""
TEMPLATE = """<button type='button' class='tour-open'>Tour</button>
<section hidden aria-live='polite' aria-label='Tour'><h2></h2><p></p>
<nav><button type='button' class='tour-back'>Back</button><button type='button' class='tour-next'>Next</button>
<a class='place'></a><button type='button' class='tour-close'>Close</button></nav></section>"""
SCRIPT = """
const stops = STOPS, panel = element.querySelector('section');
const find = (name) => element.querySelector(name);
const place = () => Number(new URLSearchParams(window.location.search).get('tour')) || 0;
const address = (at) => `?${stops[at - 1].query}&tour=${at}`;
// What a stop speaks of may be drawn later than its words, and what is drawn above it moves it: it is looked for until it stands still.
let looking = 0;
const show = (selector) => {
  clearInterval(looking);
  document.querySelectorAll('[data-toured]').forEach((shown) => shown.removeAttribute('data-toured'));
  if (!selector) return;
  let top = null, still = 0;
  looking = setInterval(() => {
    const target = [...document.querySelectorAll(selector)].find((found) => found.offsetHeight > 0);
    if (!target) return;
    const {top: above, bottom: below} = target.getBoundingClientRect(), now = above + window.scrollY;
    const inSight = below > 0 && above < window.innerHeight;
    target.setAttribute('data-toured', '');  // no class: Gradio writes those of its elements anew
    still = now === top ? still + 1 : 0;
    if (now !== top || !inSight) target.scrollIntoView({block: target.offsetHeight < window.innerHeight / 2 ? 'center' : 'start'});
    top = now;
    if (still === 10) clearInterval(looking);
  }, 300);
};
const draw = () => {
  const at = Math.min(Math.max(place(), 0), stops.length);
  panel.hidden = at === 0;
  show(at ? stops[at - 1].see : '');
  if (at === 0) return;
  find('h2').textContent = stops[at - 1].title;
  find('p').textContent = stops[at - 1].text;
  find('.place').textContent = `${at} of ${stops.length}`;
  find('.place').href = address(at);
  find('.tour-back').disabled = at === 1;
  find('.tour-next').textContent = at === stops.length ? 'Done' : 'Next';
};
// The page fills itself from the address, as if somebody had gone back or forward to it.
const go = (address) => {
  window.history.pushState(null, '', address);
  window.dispatchEvent(new PopStateEvent('popstate'));
};
// Where one was before the tour: there one comes back to.
let before = null;
const close = () => {
  if (before !== null) { go(before); before = null; return; }
  const here = new URL(window.location);
  here.searchParams.delete('tour');
  window.history.pushState(null, '', here);
  draw();
};
find('.tour-open').addEventListener('click', () => { before ??= place() ? null : window.location.search || '?'; go(address(1)); });
find('.tour-back').addEventListener('click', () => go(address(place() - 1)));
find('.tour-next').addEventListener('click', () => place() === stops.length ? close() : go(address(place() + 1)));
find('.tour-close').addEventListener('click', close);
find('.place').addEventListener('click', (event) => { event.preventDefault(); go(address(place())); });
window.addEventListener('popstate', draw);
draw();
"""


def tour(screens: list[str]) -> gr.HTML:
    """A button that starts the tour, and the panel that leads through it. screens: the names of those that there are; a stop at
    another is left out."""
    shown = [asdict(stop) | {"query": stop.query} for stop in stops() if stop.view["screen"] in screens]
    script = SCRIPT.replace("STOPS", json.dumps(shown, default=dict))
    return gr.HTML(html_template=TEMPLATE, js_on_load=script, elem_id="tour", visible=bool(shown))
