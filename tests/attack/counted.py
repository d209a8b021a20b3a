"""What the attacks that count tell in the end."""

from tabulate import tabulate


def counted(head, rows):
    """A table in Markdown with a last row of sums. head: the names of the columns; rows: a name and numbers each."""
    sums = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    return tabulate([*rows, sums], head, tablefmt="github")
