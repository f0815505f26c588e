"""What is aimed at, and how much of it is reached: one row per target, from the files of results.

Each benchmark gives its own as ``targets()``.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from wavecomp.benchmarks.measure import Run
from wavecomp.benchmarks.tables import markdown, mean_and_spread

Values = Callable[[Sequence[Run]], list[float]]


class Target(NamedTuple):
    """A figure of a benchmark and its bound.

    Args:
        what: the figure, with its unit.
        bound: what it is to be at least, or at most.
        values: of the runs the figure of each seed; none while it is not measured.
        at_most: which of the two.
        seeds: how many there should be; 1 where seeds change nothing, or one figure tells of all.
        form: of its numbers.
        gpu: whether it is one of a GPU.
    """

    what: str
    bound: float
    values: Values
    at_most: bool = False
    seeds: int = 1
    form: str = ".2f"
    gpu: bool = False

    def met(self, runs: Sequence[Run]) -> bool | None:
        """Whether the mean over seeds keeps the bound; nothing while it is not measured.

        Example:
            >>> target = Target("bits", 2.4, lambda runs: [run["bits"] for run in runs], at_most=True)
            >>> target.met([{"bits": 2.3}, {"bits": 2.4}]), target.met([{"bits": 2.5}]), target.met([])
            (True, False, None)
        """
        return self._keeps(self.values(runs))

    def told(self, runs: Sequence[Run]) -> list[str]:
        """Cells of a row: the figure, what is asked, what is measured, and whether that will do."""
        asked = f"{'at most' if self.at_most else 'at least'} {self.bound:{self.form}}"
        found = self.values(runs)
        measured = mean_and_spread(found, self.seeds, self.form) or "not yet"
        return [self.what, asked, measured, {True: "yes", False: "no", None: ""}[self._keeps(found)]]

    def _keeps(self, found: Sequence[float]) -> bool | None:
        if not found:
            return None
        mean = statistics.mean(found)
        return mean <= self.bound if self.at_most else mean >= self.bound


def where(runs: Iterable[Run], **wanted: object) -> list[Run]:
    """Those runs that say all of this.

    Example:
        >>> where([{"task": "copy", "seed": 0}, {"task": "text", "seed": 0}], task="copy")
        [{'task': 'copy', 'seed': 0}]
    """
    return [entry for entry in runs if all(entry.get(key) == value for key, value in wanted.items())]


def lead(own: Sequence[float], peer: Sequence[float]) -> float:
    """How many bits fewer than its peer's something takes, in the mean of seeds less the spread of what spreads more.

    Example:
        >>> lead([1.0, 1.5], [3.0, 3.0])
        1.5
    """
    spread = max(abs(bits - statistics.mean(each)) for each in (own, peer) for bits in each)
    return statistics.mean(peer) - statistics.mean(own) - spread


def paired(runs: Iterable[Run], others: Iterable[Run]) -> list[tuple[Run, Run]]:
    """Runs with those of the same seed, of seeds that both have.

    Example:
        >>> paired([{"seed": 0}, {"seed": 1}], [{"seed": 1, "bits": 2.0}])
        [({'seed': 1}, {'seed': 1, 'bits': 2.0})]
    """
    by_seed = {entry["seed"]: entry for entry in others}
    return [(entry, by_seed[entry["seed"]]) for entry in runs if entry["seed"] in by_seed]


def table(results: Mapping[str, Sequence[Run]], benchmarks: Sequence[str]) -> str:
    """How many targets are met, which are missed, and, folded, a row per target.

    Args:
        results: the runs of each file of results by its name: ``NAME-cpu``, or ``NAME-`` and a GPU.
        benchmarks: whose targets, in this order.
    """
    rows: list[list[str]] = []
    for name in benchmarks:
        module = importlib.import_module(f"wavecomp.benchmarks.{name}")
        for target in module.targets() if hasattr(module, "targets") else ():
            files = [file for file in results if file.startswith(f"{name}-")]
            files = [file for file in files if file.startswith(f"{name}-cpu") != target.gpu]
            rows.append([f"`{name}`", *target.told([entry for file in files for entry in results[file]])])
    answers = [row[-1] for row in rows]
    note = (
        f"Of {len(rows)} targets {sum(map(bool, answers))} are measured, and {answers.count('yes')} of those are met: "
        "of several seeds the mean, ± the furthest of them. These are missed:"
    )
    header = ["benchmark", "target", "asked", "measured"]
    missed = markdown(header, [row[:-1] for row in rows if row[-1] == "no"])
    everything = markdown([*header, "met"], rows)
    return "\n\n".join(
        [note, missed, "<details>", "<summary><b>targets</b>: all of them</summary>", everything, "</details>"]
    )
