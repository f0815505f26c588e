"""What a grid of runs gave, every seed a mark: bits of what is compared, and ratios beside those asked for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from wavecomp.plots.arguments import all_of, check_runs
from wavecomp.plots.style import axes_or_new, describe, line

Run = Mapping[str, Any]


def plot_bits(
    runs: Sequence[Run],
    *,
    by: str = "compressor",
    ratios: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The bits of what is compared, one below the other, the least on top: a mark per seed, a bar at their mean.

    Args:
        runs: records with ``bits``, the key ``by`` and perhaps ``asked``, which is the ratio and has a colour each.
        by: key of the name of what is compared.
        ratios: that have a colour each, for several panels to have the same; those of the runs unless given.
        ax: where to draw; a figure of its own unless given.

    Raises:
        ValueError: no runs, a record that lacks a key, or a ratio that is not among those given.

    Example:
        >>> ax = plot_bits([{"compressor": name, "bits": bits} for name, bits in (("mean", 2.0), ("haar", 1.0))])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['mean', 'haar']
    """
    check_runs(runs, ("bits", by))
    own = sorted({run["asked"] for run in runs if "asked" in run})
    ratios = all_of("ratios", ratios, own)
    groups: dict[str, dict[Any, list[float]]] = {}
    for run in runs:
        groups.setdefault(run[by], {}).setdefault(run.get("asked"), []).append(run["bits"])
    best = {name: min(map(statistics.mean, mine.values())) for name, mine in groups.items()}
    names = sorted(groups, key=lambda name: (-best[name], name))
    ax = axes_or_new(ax, height=0.8 + 0.17 * len(names))
    for place, name in enumerate(names):
        for ratio, bits in groups[name].items():
            look = _look(ratios.index(ratio) if ratio in ratios else 0)
            ax.plot(bits, [place] * len(bits), label="_seeds", alpha=0.7, **look)
            ax.plot([statistics.mean(bits)] * 2, [place - 0.35, place + 0.35], "-", label="_mean", color=look["color"])
    if len(ratios) > 1 and own:
        for ratio in own:
            ax.plot([], [], label=f"{ratio:g}", **_look(ratios.index(ratio)))
        ax.legend(title="ratio", fontsize="x-small", title_fontsize="x-small")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    least, most = (pick(run["bits"] for run in runs) for pick in (min, max))
    if least < most / 2:  # where all are alike, how they differ is to be seen
        ax.set_xlim(0, 1.05 * most)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    describe(ax, title=f"Bits by {by}", x="bits", y="")
    return ax


def plot_ratio_error(
    runs: Sequence[Run],
    *,
    key: str = "trained",
    bound: float = 0.02,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How far the ratios that were reached lie from those that were asked for: a mark per seed.

    Args:
        runs: records with ``compressor``, ``asked`` and the key.
        key: of the ratio that was reached.
        bound: share of the ratio that it may be off by, shaded.
        names: of all compressors, in the order of their colours, where panels share these; those of the runs unless
            given.
        ax: where to draw; a figure of its own unless given.

    Raises:
        ValueError: no runs, a record that lacks a key, or names that leave out some of the runs.

    Example:
        >>> ax = plot_ratio_error([{"compressor": "leaves", "asked": 8, "trained": 8.2}])
        >>> [round(float(off), 1) for off in ax.lines[0].get_ydata()]
        [2.5]
    """
    check_runs(runs, ("compressor", "asked", key))
    ax = axes_or_new(ax, height=3.0)
    ax.axhspan(-100 * bound, 100 * bound, color="0.9")
    present = list(dict.fromkeys(run["compressor"] for run in runs))
    names = all_of("names", names, present)
    for place, name in enumerate(names):
        beside = 1.05 ** (place - (len(names) - 1) / 2)  # marks of several at one ratio stand side by side
        mine = [run for run in runs if run["compressor"] == name]
        off = [100 * (run[key] / run["asked"] - 1) for run in mine]
        ax.plot([run["asked"] * beside for run in mine], off, label=name, **_look(place))
    asked = sorted({run["asked"] for run in runs})
    ax.set_xscale("log", base=2)
    ax.set_xlim(asked[0] / 1.4, asked[-1] * 1.4)
    ax.xaxis.set_major_locator(FixedLocator(asked))
    ax.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(fontsize="x-small")
    describe(ax, title=f"Ratio, {key}", x="ratio asked for, tokens per code", y="off by, %")
    return ax


def _look(place: int) -> dict[str, Any]:
    return line(place) | {"linestyle": ""}
