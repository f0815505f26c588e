"""Tables of figures: Markdown that also reads well in a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from wavecomp.benchmarks.measure import Run


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded: words to the left, columns of numbers to the right.

    Example:
        >>> print(markdown(["model", "bits"], [["haar", "1.25"], ["db4", "10.50"]]))
        | model |  bits |
        |:------|------:|
        | haar  |  1.25 |
        | db4   | 10.50 |
    """
    columns = []
    rules = []
    for cells in zip(header, *rows):
        width = max(map(len, cells))
        numbers = all(cell[:1].isdigit() or cell[:1] in ("-", "") for cell in cells[1:])
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in cells])
        rules.append("-" * (width + 1) + ":" if numbers else ":" + "-" * (width + 1))
    first, *others = (f"| {' | '.join(row)} |" for row in zip(*columns))
    return "\n".join([first, f"|{'|'.join(rules)}|", *others])


def mean_and_spread(values: Sequence[float], of: int = 1, form: str = ".3f") -> str:
    """The mean over seeds and how far the furthest lies from it; nothing where there are no values.

    Args:
        values: one per seed.
        of: how many seeds there should be; how many there are is said where some are missing.
        form: of each number.

    Example:
        >>> mean_and_spread([1.0, 1.5, 2.3]), mean_and_spread([1.0, 1.5], of=3, form=".1f"), mean_and_spread([1.0])
        ('1.600 ± 0.700', '1.2 ± 0.2 (2 of 3)', '1.000')
    """
    if not values:
        return ""
    mean = statistics.mean(values)
    spread = f" ± {max(abs(value - mean) for value in values):{form}}" if len(values) > 1 else ""
    return f"{mean:{form}}{spread}" + (f" ({len(values)} of {of})" if len(values) < of else "")


def span(values: Sequence[float], form: str = ".2f") -> str:
    """From the least to the most, one number where both print alike.

    Example:
        >>> span([8.0, 7.91, 8.001]), span([8.0, 8.001]), span([])
        ('7.91 to 8.00', '8.00', '')
    """
    ends = [f"{end:{form}}" for end in (min(values), max(values))] if values else [""]
    return " to ".join(dict.fromkeys(ends))


def bits_by_task(
    runs: Sequence[Run], key: str, tasks: Sequence[str], seeds: int
) -> list[tuple[str, list[Run], list[str]]]:
    """What is compared, the least bits of the first task on top: its name, its runs, and its bits on each task.

    Args:
        runs: each with its ``task``, ``seed`` and ``bits``.
        key: of a run, the name of what is compared.
        tasks: which there are.
        seeds: how many there should be of each.

    Example:
        >>> runs = [{"of": name, "task": "copy", "bits": bits} for name, bits in (("b", 2.0), ("a", 1.0), ("b", 3.0))]
        >>> [(name, len(own), figures) for name, own, figures in bits_by_task(runs, "of", ["copy"], seeds=1)]
        [('a', 1, ['1.000']), ('b', 2, ['2.500 ± 0.500'])]
    """
    found = []
    for name in dict.fromkeys(entry[key] for entry in runs):
        own = [entry for entry in runs if entry[key] == name]
        bits = [[entry["bits"] for entry in own if entry["task"] == task] for task in tasks]
        order = [statistics.mean(values) if values else math.inf for values in bits]
        found.append((order, name, own, [mean_and_spread(values, seeds) for values in bits]))
    return [(name, own, figures) for _, name, own, figures in sorted(found, key=lambda entry: entry[:2])]
