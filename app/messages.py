"""Sentences in a corner of the page. Gradio takes them for HTML, and what they repeat may come from an address that somebody
else wrote: so they are escaped here, and nothing else in the app calls Gradio's functions for messages."""

from __future__ import annotations

from html import escape

import gradio as gr


def warn(sentence: str, stays: bool = False) -> None:
    """Show a sentence for some seconds, or until it is closed."""
    gr.Warning(escape(sentence), **({"duration": None} if stays else {}))


def refusal(sentence: str) -> gr.Error:
    """What a handler raises where it does not do what was asked: the sentence stays for a minute, or until it is closed."""
    return gr.Error(escape(sentence), duration=60, title="Not possible", print_exception=False)
