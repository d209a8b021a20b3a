"""Docstrings are plain text with numpydoc sections, not reStructuredText: |w| is a magnitude there, and no substitution."""


def escape(app, what, name, obj, options, lines):
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else line.replace("|", "\\|") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape, priority=900)  # after napoleon
    return {"parallel_read_safe": True}
