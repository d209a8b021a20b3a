"""The look of the page. System fonts only: nothing is fetched from anywhere."""

import gradio as gr

SANS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Liberation Mono", "Menlo", "monospace"]

HEAD = "<script src='plotly.min.js' defer></script>"


def theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=SANS, font_mono=MONO, radius_size="sm", spacing_size="sm"
    )
    # Gradio's own shades of small text and of the main button have a contrast below 4.5 (WCAG 2, AA).
    return theme.set(
        body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    )  # fmt: skip


CSS = """
.gradio-container { max-width: 1680px !important; }
#who { flex-grow: 1; min-width: 200px !important; overflow: visible; font-size: .85em; opacity: .85; align-self: center; }
header h1 { margin: 0; font-size: 1.35rem; } header p { margin: 0; opacity: .75; }
.banner { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 10px 14px; }
.banner .facts { opacity: .8; font-size: .92em; margin-top: 2px; overflow-wrap: anywhere; }
.track { height: 6px; margin-top: 8px; border-radius: 3px; background: rgba(128,128,128,.22); }
.track div { height: 6px; border-radius: 3px; background: #0072B2; transition: width .4s; }
.status { font-weight: 600; padding: 1px 8px; border-radius: 10px; color: #fff; background: #5b6470; }
.status.running, .status.starting, .status.waiting { background: #0072B2; } .status.paused { background: #8a5a00; }
.status.done { background: #00734f; } .status.failed, .status.interrupted, .status.unreadable { background: #b03a00; }
.doing { opacity: .75; margin-left: 6px; }
.failure { border-left: 4px solid #D55E00; padding: 6px 10px; margin-top: 8px; overflow-wrap: anywhere; }
.heading { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.note, .empty { padding: 8px 2px; opacity: .9; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(108px, 1fr)); gap: 8px; }
.tile { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 8px 12px; }
.tile.lead { border-color: #0072B2; }
.tile .name { font-size: .85em; opacity: .8; } .tile .value { font-size: 1.5em; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile .hint { font-size: .76em; opacity: .7; line-height: 1.25; }
table.plain { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.plain, table.plain :is(thead, tbody, tr) { border: 0 !important; }
table.plain :is(td, th) { padding: 4px 14px 4px 0 !important; text-align: left; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
table.plain :is(td, th).number { text-align: right; white-space: nowrap; }
body:not(.dark) button[role=tab][aria-selected=true] { color: #1d4ed8; } /* Gradio's blue on white has a contrast of 3.7 */
.cm-content span { color: var(--body-text-color) !important; } /* the editor's grey of comments has a contrast of 3.7 */
.secondary-wrap input { padding-right: 44px !important; text-overflow: ellipsis; } /* a name in a list ends before the arrow */
.scroll { overflow-x: auto; } details .scroll { max-height: 460px; overflow-y: auto; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; } #top > #who { flex: 1 1 100% !important; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  table.plain { font-size: .86em; } table.plain :is(td, th) { padding-right: 8px !important; }
}
"""
