"""Sentences in a corner of the page. Gradio takes them for HTML, and what they repeat may come from an address that somebody
else wrote: so they are escaped here, and nothing else in the app calls Gradio's functions for messages."""

from __future__ import annotations

from html import escape

import gradio as gr


def warn(sentence: str) -> None:
    """Show a sentence for some seconds."""
    gr.Warning(escape(sentence))


def refusal(sentence: str) -> gr.Error:
    """What a handler raises where it does not do what was asked: the sentence stays until it is closed."""
    return gr.Error(escape(sentence), duration=None, title="Not possible", print_exception=False)
