"""``long``: long texts: what trained models know of them, and what it costs to read them and to go on.

What a checkpoint is asked depends on what it was trained for: passkeys by length and depth, sorting, or a task of RULER
(:mod:`wavecomp.benchmarks.answers`). Generation and the stream (:mod:`wavecomp.benchmarks.reading`) need none.
"""

from __future__ import annotations

from collections.abc import Sequence

from wavecomp.benchmarks import answers, grid, reading
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.targets import Target


def members(options: Options) -> dict[str, grid.Member]:
    """Of both parts."""
    return reading.members(options.small, options.repeats) | answers.members(options.checkpoint, options.small)


def targets() -> list[Target]:
    """Of both parts."""
    return [*answers.targets(), *reading.targets()]


def table(runs: Sequence[Run]) -> str:
    """Of both parts, those that are there."""
    costs = [entry for entry in runs if entry["what"] in ("generation", "stream")]
    known = [entry for entry in runs if entry not in costs]
    return "\n\n".join(filter(None, (answers.table(known), reading.table(costs))))
