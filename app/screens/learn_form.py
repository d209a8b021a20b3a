"""The settings on the Learn screen: preset, model, text, every setting, and which of them differ from what."""

from __future__ import annotations

from html import escape

import gradio as gr

from app.operator import EXAMPLE_ID, Operator
from app.settings_form import (
    BASIC,
    MACHINE,
    OPTIMIZER,
    REGULARIZER,
    SETTINGS,
    TEXT,
    differences,
    label_of,
    nearest_preset,
    settings,
    values_of,
)
from proxsparse import PRESETS, LearnJob
from proxsparse.config import CORPORA, JUDGED_ONLY, PRESET_NOTES

# Opens the settings on narrow screens, where they would fill the first four.
TOGGLE = """<button type='button' aria-expanded='false' aria-controls='FORM'>LABEL</button>"""
TOGGLING = """
const button = element.querySelector('button');
button.addEventListener('click', () => {
  const open = document.getElementById('FORM').toggleAttribute('data-open');
  button.setAttribute('aria-expanded', String(open));
});
"""
NEXT_RUN = """<h3 id='next-run'>Settings of the next run</h3>
<p class='note'><b>Run</b> begins with these, and a fork takes its changes from them. The run shown keeps its own.</p>"""
TEXTS = (*CORPORA, *JUDGED_ONLY)  # that can be judged on
AS_SHOWN = "as the run shown"  # in the list of presets: the form holds the settings of a run
GROUPS = (
    ("Text and measurement", TEXT), ("Optimizer", OPTIMIZER), ("Regularizer and metric", REGULARIZER), ("Machine", MACHINE),
)  # fmt: skip


def toggle(elem_id: str = "settings-toggle", form: str = "form", label: str = "Settings of the next run") -> gr.HTML:
    """A button that shows and hides a form on narrow screens; on wide ones both stand side by side. form: the id of its element, of
    the class `folded`."""
    template = TOGGLE.replace("FORM", form).replace("LABEL", label)
    script = TOGGLING.replace("FORM", form)
    return gr.HTML(html_template=template, js_on_load=script, elem_id=elem_id, elem_classes="form-toggle")


def model_box(elem_id: str) -> gr.Textbox:
    """Where the model is typed."""
    return gr.Textbox(
        value="embedded", label="Model", max_lines=1, elem_id=elem_id,
        info="embedded (SmolLM2-135M), a Hub id, or a directory or .gguf file in a folder the operator allowed",
    )  # fmt: skip


def text_box(elem_id: str) -> gr.Dropdown:
    """Where the text is chosen that is learned on."""
    return gr.Dropdown(
        list(CORPORA), value=LearnJob().corpus, allow_custom_value=True, label="Text", elem_id=elem_id,
        info="self is written by the model, bundled comes along, mixed is both; wikitext2 and c4 come from the Hub; or upload your own",
    )  # fmt: skip


class LearnForm:
    """What a run is started with, and a fork takes its changes from.

    preset, model, corpus: components. values: the inputs of all settings, in the order of SETTINGS.
    """

    css = """
.form-toggle { display: none; }
.form-toggle button { width: 100%; padding: 8px; border: 1px solid var(--border-color-primary); border-radius: 6px;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
.form-toggle button[aria-expanded=true] { border-color: #0072B2; }
#next-run { margin: 0; font-size: 1rem; } #next-run + p { margin: 0; padding: 2px 0; font-size: .85rem; }
#preset-note, #differs { font-size: .85rem; } #differs ul { margin: 2px 0; padding-left: 1.2em; }
@media (max-width: 760px) { .form-toggle { display: block; } .folded:not([data-open]) { display: none !important; } }
"""

    def __init__(self, operator: Operator):
        self.operator = operator

    def build(self) -> None:
        gr.HTML(NEXT_RUN)
        self.preset = gr.Dropdown(
            [*PRESETS, AS_SHOWN], value="Quick", label="Preset", elem_id="preset", info="settings to start from"
        )
        self.note = gr.HTML(_note("Quick"), elem_id="preset-note")
        self.differs = gr.HTML(elem_id="differs")
        with gr.Row():
            self.reset = gr.Button("Reset to the preset", size="sm", min_width=120, elem_id="settings-reset")
            self.as_shown = gr.Button("As the run shown", size="sm", min_width=120, elem_id="settings-as-shown")
        self.model, self.corpus = model_box("model"), text_box("corpus")
        self.evaluate_on = gr.Dropdown(
            list(TEXTS), value=list(LearnJob().judged_on), multiselect=True, allow_custom_value=True,
            label="Judge also on", elem_id="evaluate-on",
            info="further texts on which the mask is measured at the end; bundled-other is of another kind than bundled",
        )  # fmt: skip
        self.upload = gr.UploadButton("Upload a text (.txt, .jsonl)", file_count="single", size="sm", elem_id="upload")
        fields = settings(BASIC)
        for title, names in GROUPS:
            with gr.Accordion(title, open=False):
                fields |= settings(names)
        self.values = [fields[name] for name in SETTINGS]

    @property
    def filled(self) -> list:
        """What `fill` updates."""
        return [*self.values, self.corpus, self.evaluate_on, self.model, self.preset, self.note, self.differs]

    def wire(self, shell) -> None:
        """Whatever changes the form, what stands there is compared anew."""
        beside = [self.preset, shell.id, *self.values]
        marking = {"fn": self.marks, "inputs": beside, "outputs": [self.differs], **shell.quietly}
        gr.on([value.change for value in self.values], **marking, trigger_mode="always_last")
        taken = [*self.values, self.preset, self.note, self.differs]
        self.preset.input(self.take_preset, beside, taken, **shell.quietly)
        self.reset.click(self.reset_to_preset, beside, taken, **shell.quietly)
        shell.on(self.as_shown.click, self.fill_as_shown, [shell.id], self.filled)
        shell.on(self.upload.upload, self.keep_text, [self.upload], [self.corpus, self.evaluate_on])

    def fill(self, id: str) -> dict:
        """Put the settings of the run shown into the form: what a fork starts from, and a new run like it. Beside the recorded
        example the form has the default preset: it was recorded for a file of limited size.

        Once for each run that the page comes to show, and not while it is shown: nothing that was typed is overwritten.
        """
        return self.fill_as_shown("" if id == EXAMPLE_ID else id)

    def fill_as_shown(self, id: str) -> dict:
        """Put the settings of a run into the form; without one, those of the default preset."""
        return self.fill_with(self.operator.find(id).job() if id else LearnJob(), id)

    def fill_with(self, job: LearnJob, id: str) -> dict:
        """Put the settings of a job into the form, beside the run shown."""
        values, corpus = values_of(job), self.operator.uploads.name_of(job.corpus)
        nearest = nearest_preset(values)
        preset = AS_SHOWN if differences(values, PRESETS[nearest]) else nearest
        updates = dict(zip(self.values, values, strict=True))
        updates[self.corpus] = gr.update(choices=list(dict.fromkeys((*CORPORA, corpus))), value=corpus)
        judged_on = list(map(self.operator.uploads.name_of, job.judged_on))
        updates[self.evaluate_on] = gr.update(choices=list(dict.fromkeys((*TEXTS, *judged_on))), value=judged_on)
        updates |= {self.model: job.model, self.preset: preset, self.note: _note(preset)}
        return updates | {self.differs: self.marks(preset, id, *values)}

    def take_preset(self, preset: str | None, id: str, *values):
        """Every setting as the preset has it, or as the run shown."""
        preset = preset if preset in PRESETS or id else "Quick"
        taken = values_of(PRESETS[preset] if preset in PRESETS else self.operator.find(id).job())
        return [*taken, preset, _note(preset), self.marks(preset, id, *taken)]

    def reset_to_preset(self, preset: str | None, id: str, *values):
        """Every setting as the preset chosen has it; where that is the run shown, as the preset with which the form is compared."""
        return self.take_preset(preset if preset in PRESETS else nearest_preset(values), id, *values)

    def marks(self, preset: str | None, id: str, *values) -> str:
        """Which settings differ from the preset, marked at each of them and listed, and what a fork would change."""
        base = preset if preset in PRESETS else nearest_preset(values)
        changed = differences(values, PRESETS[base])
        lines = [
            f"As the preset {escape(base)}."
            if not changed
            else f"Differs from the preset {escape(base)}: {_listed(changed)}."
        ]
        fork = differences(values, self.operator.find(id).job()) if id and id != EXAMPLE_ID else {}
        if fork:
            lines.append(f"A fork of the run shown changes: {_listed(fork)}.")
        style = "".join(
            f"#setting-{name} {{ border-left: 3px solid #E69F00 !important; }} "
            f'#setting-{name} [data-testid="block-info"]::after {{ content: " · {_quoted(base)}: {_quoted(other)}"; }}'
            for name, (_, other) in changed.items()
        )
        return f"<style>{style}</style><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"

    def keep_text(self, path: str):
        """Keep an uploaded text, choose it to learn on, and offer it to judge on."""
        name = self.operator.keep_upload(path)
        return gr.update(choices=[*CORPORA, name], value=name), gr.update(choices=[*TEXTS, name])


def _note(preset: str | None) -> str:
    return f"<p>{escape(PRESET_NOTES[preset])}</p>" if preset in PRESET_NOTES else ""


def _listed(changed: dict[str, tuple[str, str]]) -> str:
    return ", ".join(
        f"{escape(label_of(name))} {escape(value)} instead of {escape(other)}"
        for name, (value, other) in changed.items()
    )


def _quoted(text: str) -> str:
    """For a string in a style sheet. Presets are ours, but their names could hold a quotation mark one day."""
    return text.replace("\\", "").replace('"', "'")
