"""Markdown tables, read back."""


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(text):
    """Each line of the tables in a text, headers and rules left out."""
    lines = text.splitlines()
    rules = {place for place, line in enumerate(lines) if set(line) <= set("|:-") and line}
    return [cells(line) for place, line in enumerate(lines) if line.startswith("|") and not {place, place + 1} & rules]
