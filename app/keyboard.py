"""Keys: each stands for a control that is in sight, and never fires while somebody types."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import gradio as gr

NAMES = {" ": "Space", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓", "Escape": "Esc"}


@dataclass(frozen=True)
class Key:
    """A key and the control that it stands for.

    press: as `KeyboardEvent.key` names it. does: said in the list of keys. target: a CSS selector; the first element that is
    visible and enabled is taken, and where there is none the key does nothing. act: click it, focus it, or move the slider that it
    is, or that lies in it, one step to the left or right.
    """

    press: str
    does: str
    target: str
    act: Literal["click", "focus", "back", "forward"] = "click"


def scrubbing(id: str, what: str) -> tuple[Key, Key]:
    """The arrow keys for one slider."""
    slider = f"#{id} input[type=range]"
    return Key("ArrowLeft", f"previous {what}", slider, "back"), Key("ArrowRight", f"next {what}", slider, "forward")


CSS = """
#top { align-items: center; } #top > * { flex: 0 0 auto !important; width: auto !important; min-width: 0 !important; }
#top > :first-child { flex: 1 1 220px !important; }
#keys dialog { margin: auto; border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 16px 20px; max-width: 90vw;
  background: var(--background-fill-primary); color: var(--body-text-color); }
#keys dialog::backdrop { background: rgba(0, 0, 0, .4); }
#keys h2 { margin: 0 0 8px; font-size: 1.05rem; } #keys td { padding: 3px 14px 3px 0; }
#keys kbd { display: inline-block; min-width: 2em; padding: 1px 6px; text-align: center; border-radius: 4px;
  border: 1px solid var(--border-color-primary); font-family: inherit; color: var(--body-text-color);
  background: var(--background-fill-secondary); }
#keys button { min-height: 28px; padding: 2px 10px; border: 1px solid var(--border-color-primary); border-radius: 6px; cursor: pointer;
  background: none; color: var(--body-text-color); font-size: .85rem; }
#keys dialog button { margin-top: 12px; }
@media (hover: none) { #keys > div > button { display: none; } }
"""
TEMPLATE = """<button type='button' class='keys-open'>Keys <kbd>?</kbd></button>
<dialog aria-labelledby='keys-title'><h2 id='keys-title'>Keys on this screen</h2><table><tbody></tbody></table>
<button type='button' class='keys-close'>Close</button></dialog>"""
SCRIPT = """
const keys = KEYS, names = NAMES, dialog = element.querySelector('dialog');
const visible = (found) => found.offsetParent !== null && found.checkVisibility();
const control = (key) => [...document.querySelectorAll(key.target)].find((found) => visible(found) && !found.disabled);
const present = (key) => [...document.querySelectorAll(key.target)].some(visible);
const acts = {
  click: (found) => found.click(),
  focus: (found) => { found.focus(); found.select?.(); },
  back: (found) => move(found, 'stepDown'),
  forward: (found) => move(found, 'stepUp'),
};
const move = (slider, step) => {
  slider[step]();
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  slider.dispatchEvent(new Event('pointerup', {bubbles: true}));
};
const list = () => {
  const shown = new Map([['?', 'show these keys']]);
  for (const key of keys) if (!shown.has(key.press) && present(key)) shown.set(key.press, key.does);
  const rows = [...shown].map(([press, does]) => {
    const row = document.createElement('tr'), kbd = document.createElement('kbd');
    kbd.textContent = names[press] ?? press;
    row.insertCell().append(kbd);
    row.insertCell().textContent = does;
    return row;
  });
  element.querySelector('tbody').replaceChildren(...rows);
  dialog.showModal();
};
element.querySelector('.keys-open').addEventListener('click', list);
element.querySelector('.keys-close').addEventListener('click', () => dialog.close());
// Who types is left alone; a control that has the focus keeps the keys that it understands itself.
const typing = "input:not([type=range], [type=radio], [type=checkbox]), textarea, select, [contenteditable=true], .cm-editor";
const listening = "button, a, input, summary, [role=slider], [role=tab], [role=option], [tabindex='0']";
document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  const at = event.target;
  if (at.closest?.(typing)) return;
  if ((event.key === ' ' || event.key.startsWith('Arrow')) && at.closest?.(listening)) return;
  if (event.key === '?') { event.preventDefault(); list(); return; }
  for (const key of keys) {
    const found = key.press === event.key && control(key);
    if (found) { event.preventDefault(); acts[key.act](found); return; }
  }
});
"""


def keyboard(keys: Iterable[Key]) -> gr.HTML:
    """A button that lists the keys, and the script that hears them. keys: where two have one control each in sight, the first
    counts."""
    script = SCRIPT.replace("KEYS", json.dumps([asdict(key) for key in keys])).replace("NAMES", json.dumps(NAMES))
    return gr.HTML(html_template=TEMPLATE, js_on_load=script, elem_id="keys")
