"""A number in a table stays in one piece: with its error, and with its unit."""

import re

NO_BREAK = "\N{NO-BREAK SPACE}"


def keep_together(app, page, source):
    lines = source[0].splitlines(keepends=True)
    source[0] = "".join(_kept(line) if line.startswith("|") else line for line in lines)


def _kept(row: str) -> str:
    return re.sub(r"(?<=\d) (?=(?:GB|s|M)\b)", NO_BREAK, row.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}"))


def setup(app):
    app.connect("source-read", keep_together)
    return {"parallel_read_safe": True}
