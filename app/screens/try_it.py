"""The Try it screen: type a prompt, change a mask by hand, and see what the model makes of it."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pandas as pd
from gradio.components import Component

from app import answers, html
from app.live_plot import as_value, live_plot
from app.operator import EXAMPLE, EXAMPLE_ID, HAS_EXAMPLE, Operator
from app.screens.shown import Shown
from proxsparse import ProxSparseError, figures
from proxsparse.runs import Probe, Run
from proxsparse.runs.readers.known_masks import kept_in_group
from proxsparse.runs.readers.probe import Answer, recorded_answers
from proxsparse.runs.requests import MASKS, MOST_CHARACTERS, PromptRequest, RankingRequest, WhatIfRequest

WHAT = """
One model with its original weights: dense, and under three masks. Type the beginning of a text and see **what each expects next** and how
it goes on; or **change the mask by hand** and see what that does to the loss on held-out text. Nothing is changed on disk.
"""
GREEDY = "The texts are greedy: each token is the most probable one, so that two texts differ by their masks alone."
NO_LEARNED = {  # whether it is the example
    True: "The recorded example's learned masks are not on disk in full. Its model can be asked dense, and under magnitude and Wanda "
    "masks; to ask a learned mask, learn one of your own.",
    False: "There are no learned masks on disk yet: they are written with the run's first measurement. Dense, magnitude and Wanda can "
    "be asked already.",
}
LAST = "last"
CHANGES = (
    ("one group keeps other weights", "group"), ("the layer is dense again", "dense"), ("the layer gets its magnitude mask", "magnitude"),
    ("the layer gets its Wanda mask", "wanda"), ("the layer gets its learned mask", "learned"),
)  # fmt: skip
MOST_CHANGES = 6  # what-ifs that a page lists


class TryItScreen:
    """Asks the worker that holds the model of the run shown, and shows what it answers.

    A page remembers which answers are its own in hidden fields, as run:answer, so that every visitor sees theirs.
    """

    name, title, keys = "try", "Try it", ()
    css = """
.model { border-top: 4px solid #5b6470; padding-top: 6px; } .model h3 { margin: 0; font-size: 1rem; }
.model.dense { border-color: #009E73; } .model.magnitude { border-color: #E69F00; } .model.wanda { border-color: #CC79A7; }
.model.learned { border-color: #0072B2; }
:is(.model, .said) .about { margin: 0; font-size: .85em; opacity: .85; }
#try-worker-row { align-items: center; flex-wrap: wrap; } #try-worker { min-width: min(280px, 100%) !important; }
.said .text { min-height: 5.6em; white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0; }
#asked blockquote { margin: 6px 0; padding: 2px 12px; border-left: 4px solid #0072B2; white-space: pre-wrap; overflow-wrap: anywhere; }
#try-changes td:first-child { min-width: 16em; } #try-changes td, #try-ranking td { vertical-align: top; }
#try-cards { align-items: flex-start; }
@media (max-width: 640px) {
  .said .text { min-height: 2.8em; } #try-changes td:first-child { min-width: 9em; }
  #try-changes :is(th, td):is(:nth-child(2), :nth-child(3)), #try-ranking :is(th, td):first-child { display: none; }
}
"""

    def __init__(self, operator: Operator):
        self.operator = operator
        self.recorded = recorded_answers(Run(EXAMPLE)) if HAS_EXAMPLE else {}

    # The page

    def build(self, shell) -> None:
        gr.Markdown(WHAT)
        with gr.Row(elem_id="try-worker-row"):
            self.worker = gr.HTML(elem_id="try-worker", min_height=44)
            self.end = gr.Button("Take the model out of memory", size="sm", scale=0, min_width=210, elem_id="try-end")
        gr.Markdown("## What comes next?")
        with gr.Row():
            self.prompt = gr.Textbox(
                label="Prompt", value=self._first_prompt(), lines=2, max_lines=6, max_length=MOST_CHARACTERS, scale=4,
                min_width=280, elem_id="try-prompt",
            )  # fmt: skip
            self.step = gr.Dropdown(
                [LAST],
                value=LAST,
                label="Learned mask of step",
                allow_custom_value=True,
                elem_id="try-step",
                min_width=200,
                scale=1,
            )
            self.new_tokens = gr.Slider(
                1, 128, value=32, step=1, label="Tokens added", elem_id="try-tokens", min_width=200, scale=1
            )
        self.ask = gr.Button("Ask them all", variant="primary", elem_id="try-ask")
        self.question = gr.HTML(elem_id="try-question")
        self.cards, self.bars = {}, {}
        with gr.Row(elem_id="try-cards"):
            for name in MASKS:
                with gr.Column(min_width=280):
                    gr.HTML(answers.heading(name))
                    self.bars[name] = live_plot(f"try-bars-{name}", 300)
                    self.cards[name] = gr.HTML(elem_id=f"try-{name}")
        gr.Markdown(GREEDY)
        self._build_changes()
        self._build_ranking()
        # What this page has asked: hidden, and in the address where the shell keeps one.
        self.own_prompt, self.own_changes, self.own_ranking = (
            gr.Textbox(visible="hidden", elem_id=f"try-own-{name}") for name in ("prompt", "changes", "ranking")
        )
        self.inputs = [
            self.step, self.base, self.to, self.layer, self.row, self.group,
            self.own_prompt, self.own_changes, self.own_ranking,
        ]  # fmt: skip
        self.address = {
            "step": self.step, "asked": self.own_prompt, "base": self.base, "layer": self.layer, "row": self.row,
            "group": self.group, "to": self.to,
        }  # fmt: skip
        self.outputs = [
            self.worker, self.end, self.step, self.base, self.to, self.question, *self.cards.values(), *self.bars.values(), self.layer,
            self.changes, self.ranking, self.costs, self.stop, self.kept,
        ]  # fmt: skip

    def _build_changes(self) -> None:
        gr.Markdown("## What if?")
        with gr.Row():
            self.base = gr.Dropdown(
                [(answers.TITLES[name], name) for name in reversed(MASKS)], value="learned", label="All layers have",
                allow_custom_value=True,
                elem_id="try-base", min_width=150,
            )  # fmt: skip
            self.layer = gr.Dropdown(
                [], label="Layer", allow_custom_value=True, elem_id="try-layer", min_width=280, scale=2
            )
            self.to = gr.Dropdown(
                list(CHANGES),
                value="group",
                label="and",
                allow_custom_value=True,
                elem_id="try-to",
                min_width=260,
                scale=2,
            )
            self.windows = gr.Slider(
                2, 64, value=8, step=1, label="Held-out windows", elem_id="try-windows", min_width=150
            )
        with gr.Row(elem_id="try-group-row") as self.place:
            self.row = gr.Number(0, label="Row (from 0)", precision=0, minimum=0, elem_id="try-row", min_width=110)
            self.group = gr.Number(
                0, label="Group (from 0)", precision=0, minimum=0, elem_id="try-group", min_width=110
            )
            self.kept = gr.CheckboxGroup(
                _positions(4), value=[0, 1], label="Weights that the group is to keep", elem_id="try-kept",
                min_width=280, info="choose a group to see which it keeps now",
            )  # fmt: skip
        self.ask_change = gr.Button("What if?", variant="primary", elem_id="try-ask-change")
        self.changes = gr.HTML(elem_id="try-changes")

    def _build_ranking(self) -> None:
        gr.Markdown("## Which layers' masks cost most?\nOf the masks that all layers have above, on as many windows.")
        with gr.Row():
            self.rank = gr.Button("Rank the layers", variant="primary", elem_id="try-rank", min_width=160, scale=3)
            self.stop = gr.Button("Stop", interactive=False, elem_id="try-stop", min_width=90, scale=1)
        self.costs = live_plot("try-costs", 560)
        self.ranking = gr.HTML(elem_id="try-ranking")

    def wire(self, shell) -> None:
        """Buttons leave requests; another group, or another step, is looked at anew."""
        shell.on(
            self.ask.click, self.asked_prompt, [shell.id, self.prompt, self.step, self.new_tokens], [self.own_prompt]
        )
        shell.on(
            self.ask_change.click, self.asked_change,
            [shell.id, self.base, self.step, self.layer, self.to, self.row, self.group, self.kept, self.windows, self.own_changes],
            [self.own_changes],
        )  # fmt: skip
        shell.on(
            self.rank.click, self.asked_ranking, [shell.id, self.base, self.step, self.windows], [self.own_ranking]
        )
        shell.on(self.stop.click, self.stopped, [self.own_ranking])
        shell.on(self.end.click, lambda id: self.asked_probe(id).stop(), [shell.id])
        self.to.change(lambda to: gr.update(visible=to == "group"), [self.to], [self.place], **shell.quietly)
        places = [self.base, self.step, self.layer, self.row, self.group]
        gr.on([each.change for each in places], **shell.looking(self))

    # Doing

    def probe(self, id: str) -> Probe:
        """The worker of a run's model. That of the recorded example, which is only looked at, lies in the operator's
        folder."""
        run = self.operator.find(id)
        return Probe(run, self.operator.runs / ".probes" / EXAMPLE_ID) if id == EXAMPLE_ID else Probe(run)

    def asked_probe(self, id: str) -> Probe:
        """The same, for who may ask."""
        self.operator.rights.require_acting()
        return self.probe(id)

    def asked_prompt(self, id: str, prompt: str, step: str, new_tokens: int) -> str:
        """Ask what each model goes on with; returns what the page remembers."""
        request = PromptRequest(prompt=prompt or "", step=_step(step), new_tokens=new_tokens)
        return f"{id}:{self.asked_probe(id).ask(request)}"

    def asked_change(
        self,
        id: str,
        base: str,
        step: str,
        layer: str,
        to: str,
        row: int,
        group: int,
        kept: list[int],
        windows: int,
        own: str,
    ) -> str:
        """Ask what a change does to the loss; returns what the page remembers, the newest first."""
        place = {"row": row or 0, "group": group or 0, "kept": tuple(kept)} if to == "group" else {}
        request = WhatIfRequest(base=base, step=_step(step), layer=layer or "", to=to, windows=windows, **place)
        new = f"{id}:{self.asked_probe(id).ask(request)}"
        return "\n".join([new, *(own or "").split()][:MOST_CHANGES])

    def asked_ranking(self, id: str, base: str, step: str, windows: int) -> str:
        """Ask what each layer's mask costs."""
        return f"{id}:{self.asked_probe(id).ask(RankingRequest(base=base, step=_step(step), windows=windows))}"

    def stopped(self, own: str) -> None:
        """End the ranking where it is; what is measured stays."""
        id, _, answer = (own or "").partition(":")
        self.asked_probe(id).cancel(answer)

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """Each part when what it shows has changed; the time that the model stays, every five seconds."""
        if shown.view is None:
            return {self.question: html.note("There is no run to ask yet.")} if shown.changed("none", True) else {}
        probe = self.probe(shown.id)
        state, steps = probe.state(), probe.steps()
        updates: dict[Component, Any] = {}
        missing = "" if steps else NO_LEARNED[shown.id == EXAMPLE_ID]
        words = answers.worker(state, shown.view.state["status"] == "running", missing)
        if shown.changed("worker", words):
            updates |= {self.worker: words, self.end: gr.update(interactive=probe.is_there())}
        if shown.changed("run", (shown.id, shown.view.created, len(shown.view.layers))):
            names = shown.view.layers["name"].tolist()
            chosen = {} if shown.values[self.layer] in names or not names else {"value": names[0]}
            updates[self.layer] = gr.update(choices=names, **chosen)
        if shown.changed("steps", (shown.id, steps)):
            chosen = shown.values[self.step]
            choices = [LAST, *map(str, reversed(steps))]
            updates[self.step] = gr.update(choices=choices, value=chosen if chosen in choices else LAST)
            updates |= self._possible(shown, bool(steps))
        updates |= self._place(shown, probe, steps)
        updates |= self._said(shown, probe, state)
        updates |= self._changed(shown, probe, state)
        updates |= self._ranked(shown, probe, state)
        return updates

    def _possible(self, shown: Shown, learned: bool) -> dict[Component, Any]:
        """What can be chosen: a learned mask only where there is one."""
        bases = [(answers.TITLES[name], name) for name in reversed(MASKS) if learned or name != "learned"]
        base, to = shown.values[self.base], shown.values[self.to]
        if learned and shown.seen.get("learned") is False:  # another run is shown, or its first masks are there
            base = "learned"
        shown.seen["learned"] = learned
        changes = [change for change in CHANGES if learned or change[1] != "learned"]
        return {
            self.base: gr.update(choices=bases, value=base if learned or base != "learned" else "magnitude"),
            self.to: gr.update(choices=changes, value=to if learned or to != "learned" else "group"),
        }

    def _place(self, shown: Shown, probe: Probe, steps: list[int]) -> dict[Component, Any]:
        """Which weights the chosen group keeps now, where the page can know: that of a learned mask lies on disk."""
        base, step, layer, row, group = (
            shown.values[each] for each in (self.base, self.step, self.layer, self.row, self.group)
        )
        if not shown.changed("place", (shown.id, shown.view.created, bool(steps), base, step, layer, row, group)):
            return {}
        choices = _positions(shown.view.job.learn.m)
        if base != "learned" or not layer or row is None or group is None:
            return {self.kept: gr.update(choices=choices, info="which it keeps now is said with the answer")}
        try:
            place = {"row": int(row), "group": int(group)}
            request = probe.checked(WhatIfRequest(layer=layer, step=_step(step), **place))
            kept = kept_in_group(probe.run, request.step, layer, **place)
        except ProxSparseError as error:
            return {self.kept: gr.update(choices=choices, info=str(error))}
        now = " and ".join(str(position + 1) for position in kept) or "none"
        return {self.kept: gr.update(choices=choices, value=kept, info=f"now it keeps {now}: choose others")}

    def _said(self, shown: Shown, probe: Probe, state: dict) -> dict[Component, Any]:
        """What the four models said: to this page's prompt, or what is recorded with the example."""
        answer = self._own(shown, probe, self.own_prompt)
        recorded = answer is None
        answer = answer or self.recorded.get("prompt")
        updates: dict[Component, Any] = {}
        doing = "" if answer is None or answer.status != "working" else state["doing"]
        stands = answer and (answer.id, answer.status, len(answer.lines), answer.ahead)
        if shown.changed("said", (shown.id, stands, doing)):
            updates[self.question] = "" if answer is None else answers.question(answer, recorded, doing)
            asked_without = not recorded and answer.request.step is None
            why_not = "no learned masks on disk" if asked_without else ""
            for name, card in self.cards.items():
                updates[card] = answers.card(name, answer, why_not if name == "learned" else "")
        tables = answer.next_tokens() if answer else {}
        if shown.changed("bars", (answer and answer.id, tuple(tables))):
            most = max(
                (max(table["probability"].max(), table["reference"].max()) for table in tables.values()), default=1
            )
            for name, plot in self.bars.items():
                updates[plot] = as_value(figures.next_tokens(tables[name], name, most)) if name in tables else ""
        return updates

    def _changed(self, shown: Shown, probe: Probe, state: dict) -> dict[Component, Any]:
        found = self._answers(shown, probe, self.own_changes)
        recorded = not found and shown.id == EXAMPLE_ID and "what-if" in self.recorded
        found = [self.recorded["what-if"]] if recorded else found
        stands = [(answer.id, answer.status, len(answer.lines), answer.ahead) for answer in found]
        doing = state["doing"] if any(answer.status == "working" for answer in found) else ""
        if not shown.changed("changes", (stands, doing)):
            return {}
        return {self.changes: (answers.RECORDED if recorded else "") + answers.changes(found, doing)}

    def _ranked(self, shown: Shown, probe: Probe, state: dict) -> dict[Component, Any]:
        answer = self._own(shown, probe, self.own_ranking)
        recorded = answer is None and shown.id == EXAMPLE_ID and "ranking" in self.recorded
        answer = self.recorded["ranking"] if recorded else answer
        going = answer is not None and answer.status in ("waiting", "working")
        doing = state["doing"] if going else ""
        stands = answer and (answer.id, answer.status, len(answer.lines), answer.ahead)
        if not shown.changed("ranking", (stands, doing)):
            return {}
        table = answer.layers() if answer else pd.DataFrame()
        words = answers.ranking(answer, table, doing)
        return {
            self.ranking: (answers.RECORDED if recorded else "") + words, self.stop: gr.update(interactive=going),
            self.costs: as_value(figures.layer_costs(table)) if len(table) else "",
        }  # fmt: skip

    def _own(self, shown: Shown, probe: Probe, field: Component) -> Answer | None:
        """The answer that this page asked for, of the run shown; None where there is none, or no longer."""
        return next(iter(self._answers(shown, probe, field)), None)

    def _answers(self, shown: Shown, probe: Probe, field: Component) -> list[Answer]:
        found = []
        for line in (shown.values[field] or "").split():
            run, _, id = line.partition(":")
            if run == shown.id and id:
                try:
                    found.append(probe.answer(id))
                except ProxSparseError:  # removed since, or never there: an address may name anything
                    continue
        return found

    def _first_prompt(self) -> str:
        recorded = self.recorded.get("prompt")
        return recorded.request.prompt if recorded else "The most important thing to know about bridges is"


def _positions(m: int) -> list[tuple[str, int]]:
    """The weights of a group as choices: counted from 1 on screen."""
    return [(f"weight {position + 1}", position) for position in range(m)]


def _step(chosen: str | None) -> int | None:
    """None for the last step."""
    if chosen in (None, "", LAST):
        return None
    if not str(chosen).isdecimal():
        raise ProxSparseError(f"step is {str(chosen)[:40]!r}: choose one from the list.")
    return int(chosen)
