"""Formulas as MathML, which browsers draw themselves: no script, no font, and it works from disk."""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

BAR = re.compile(r"<mo\b[^>]*>(&#x0007C;|&#x02016;)</mo>")  # of a magnitude or a norm, written \lvert … \rvert


def write_inline(writer, node):
    writer.body.append(_formula(node.astext(), "inline"))
    raise SkipNode


def write_block(writer, node):
    writer.body.append(f"<div class='formula'>{_formula(node.astext(), 'block')}</div>")
    raise SkipNode


def _formula(latex: str, display: str) -> str:
    """With bars as high as a letter and no space at either side: a browser cannot know which one opens."""
    return BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', convert(latex, display=display))


def setup(app):
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
