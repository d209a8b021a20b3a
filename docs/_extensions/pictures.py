"""A picture is a link to itself: a click shows it in its own size, as on a code host."""

import re

PICTURE = re.compile(r'<img\b[^>]*\bsrc="([^"]+)"[^>]*>')


def link(app, page, template, context, doctree):
    if "body" in context:
        context["body"] = PICTURE.sub(r'<a class="picture" href="\1">\g<0></a>', context["body"])


def setup(app):
    app.connect("html-page-context", link)
    return {"parallel_read_safe": True}
