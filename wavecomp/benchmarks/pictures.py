"""The pictures of grids, beside their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wavecomp import plots
from wavecomp.benchmarks.measure import Run
from wavecomp.plots.style import new_figure
from wavecomp.report.figure import Drawing


def bits_by_task(runs: Sequence[Run], by: str) -> Drawing:
    """A panel per task, two abreast.

    Args:
        runs: each with its ``task`` and ``bits``.
        by: key of the name of what is compared.
    """
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run["task"], []).append(run)
    ratios = sorted({run["asked"] for run in runs if "asked" in run})
    rows = max(len({run[by] for run in mine}) for mine in tasks.values())
    down = -(-len(tasks) // 2)
    figure = new_figure(height=down * (0.8 + 0.17 * rows))
    panels = figure.subplots(down, 2, squeeze=False).flatten()
    for panel, (task, mine) in zip(panels, tasks.items()):
        plots.plot_bits(mine, by=by, ratios=ratios, ax=panel)
        panel.set_title(task, fontsize="small")
    for panel in panels[len(tasks) :]:
        panel.remove()
    return figure


def ratios(errors: Sequence[Run], points: Sequence[Run]) -> Drawing:
    """How far ratios are off, and below it what they cost.

    Args:
        errors: a row per kind of text, which is ``what``; on the left as trained, on the right as calibrated.
        points: of :func:`~wavecomp.plots.plot_rate_distortion`.
    """
    kinds = list(dict.fromkeys(run["what"] for run in errors))
    names = list(dict.fromkeys(run["compressor"] for run in errors))
    heights = [len(kinds)] * bool(kinds) + [1] * bool(points)
    figure = new_figure(height=2.6 * sum(heights))
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if len(heights) == 2 else [figure] * 2
    above, below = parts
    if kinds:
        for row, kind in zip(above.subplots(len(kinds), 2, squeeze=False, sharey="row"), kinds):
            for panel, key in zip(row, ("trained", "calibrated")):
                mine = [run for run in errors if run["what"] == kind]
                plots.plot_ratio_error(mine, key=key, names=names, ax=panel)
                panel.set_title(f"{key}, {kind}", fontsize="small")
                panel.get_legend().remove()
        handles, labels = above.axes[0].get_legend_handles_labels()
        above.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="x-small")
    if points:
        plots.plot_rate_distortion(points, ax=below.subplots())
    return figure
