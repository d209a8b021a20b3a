"""Columns of sentences keep a readable width beside long names; tables of many columns are set closer, and those of settings
are stacked on a phone (`_static/site.css`)."""

import re

from docutils import nodes

SENTENCE, PARAGRAPH, MANY = 40, 120, 8  # characters, characters, columns


def mark(app, tree):
    for table in tree.findall(nodes.table):
        rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
        if max(map(len, rows)) > MANY:
            table["classes"].append("many-columns")
        if rows[0][0].astext() == "setting":
            table["classes"].append("settings")
        for column in zip(*rows, strict=True):
            longest = max(len(entry.astext()) for entry in column)
            if longest > SENTENCE:
                for entry in column:
                    entry["classes"].append("paragraph" if longest > PARAGRAPH else "sentence")


def let_names_break(app, page, template, context, doctree):
    """Names of tests after each underscore, names of models before what they are for."""
    if "body" in context:
        tests = re.sub(r'(?<=<span class="pre">)test_\w+', lambda name: name[0].replace("_", "_<wbr>"), context["body"])
        context["body"] = re.sub(r"(?<=[a-z0-9])(?=For(?:Causal|Conditional)[A-Z]\w+</p></td>)", "<wbr>", tests)


def setup(app):
    app.connect("doctree-read", mark)
    app.connect("html-page-context", let_names_break)
    return {"parallel_read_safe": True}
