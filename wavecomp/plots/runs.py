"""What training gave: bits against codes over many runs, and the course of one."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from wavecomp.plots.arguments import all_of, check_runs
from wavecomp.plots.style import COLOURS, axes_or_new, describe, line, new_figure

NEEDED = ("compressor", "codes_per_byte", "bits_per_byte", "seed")
PANELS = {  # columns of metrics.csv behind "train/" and "val/", in the order that they are drawn
    "bits_per_byte": ("Bits per byte", "bits per byte"),
    "reconstruction_bits": ("Bits of the reconstruction", "bits per byte"),
    "answer_bits": ("Bits of the answers", "bits per answer byte"),
    "loss": ("Loss", "bits"),
    "accuracy": ("What is right", "share"),
    "compression_ratio": ("Compression ratio", "tokens per code"),
    "context_gain": ("Context gain", "bits per byte"),
    "answer_accuracy": ("Answers that are right", "share"),
    "bytes_per_second": ("Speed", "bytes per second"),
}

STAGES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 1.0},
    "val": {"linewidth": 1.2, "linestyle": "--", "marker": "o", "markersize": 4},
}


def plot_rate_distortion(
    runs: Sequence[Mapping[str, Any]], *, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Bits per byte against codes per byte: a line per compressor, the mean over seeds and bars from least to most.

    Seeds are averaged over runs of a compressor that asked for the same: equal ``asked`` where records have it, equal
    codes per byte otherwise. A compressor without codes is a line across.

    Args:
        runs: records with ``compressor``, ``codes_per_byte``, ``bits_per_byte``, ``seed`` and perhaps ``asked``.
        names: of all compressors, in the order of their colours, where panels share these; those of the runs unless
            given.
        ax: where to draw; a figure of its own unless given.

    Raises:
        ValueError: no runs, a record that lacks a key or holds a rate below 0, one seed twice, or names that leave
            out some of the runs.

    Example:
        >>> runs = [
        ...     {"compressor": "haar", "codes_per_byte": 1 / ratio, "bits_per_byte": 2 + 0.1 * seed, "seed": seed}
        ...     for ratio in (4, 8) for seed in (0, 1)
        ... ]
        >>> line = plot_rate_distortion(runs).lines[0]
        >>> line.get_xdata().tolist(), [round(y, 2) for y in line.get_ydata().tolist()]
        ([0.125, 0.25], [2.05, 2.05])
    """
    compressors = _grouped(runs)
    names = all_of("names", names, list(compressors))
    ax = axes_or_new(ax, height=3.0)
    for name, rates in compressors.items():
        points = sorted((list(mine.values()) for mine in rates.values()), key=lambda mine: np.mean(mine, axis=0)[0])
        mean, low, high = (np.array([of(mine, axis=0) for mine in points]) for of in (np.mean, np.min, np.max))
        look = line(names.index(name))
        if not mean[:, 0].any():
            ax.axhline(float(mean[:, 1].mean()), label=name, **look | {"marker": ""})
            continue
        ax.plot(mean[:, 0], mean[:, 1], label=name, **look)
        # the mean of equal numbers may lie beside them by its last digit
        x_error, y_error = np.stack([mean - low, high - mean]).clip(min=0).transpose(2, 0, 1)
        bars = {"fmt": "none", "ecolor": look["color"], "elinewidth": 0.8, "capsize": 2}
        ax.errorbar(mean[:, 0], mean[:, 1], y_error, x_error, **bars)
    groups = [list(mine.values()) for rates in compressors.values() for mine in rates.values()]
    _octaves(ax, [rate for mine in groups for rate, _ in mine])
    describe(ax, title="Rate and distortion", x="codes per byte", y="bits per byte")
    seeds = sorted({len(mine) for mine in groups})
    title = None if seeds == [1] else f"mean and range\nof {' or '.join(map(str, seeds))} seeds"
    sizes = {"fontsize": "x-small", "title_fontsize": "x-small", "labelspacing": 0.3}
    ax.legend(title=title, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, **sizes)
    return ax


def plot_training(metrics_csv: str | Path, *, target_ratio: float | None = None) -> Figure:
    """The course of a run: a panel for each figure that its ``metrics.csv`` holds, training and validation together.

    Args:
        metrics_csv: written by Lightning's ``CSVLogger``.
        target_ratio: tokens per code that were asked for; a line across the ratio's panel.

    Raises:
        ValueError: a file without steps or without any figure that is known here.
    """
    series = _read(Path(metrics_csv))
    known = [name for name in PANELS if any(f"{stage}/{name}" in series for stage in ("train", "val"))]
    if "bits_per_byte" in known and "loss" in known:
        known.remove("loss")  # which is made of those bits
    if not known:
        allowed = ", ".join(PANELS)
        raise ValueError(f"{metrics_csv} has columns {sorted(series)}; allowed: step, and train/ or val/ of {allowed}")
    across = min(len(known), 2)
    down = math.ceil(len(known) / across)
    figure = new_figure(height=0.3 + 2.0 * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True).flatten()
    for panel, name in zip(panels, known):
        for number, (stage, style) in enumerate(STAGES.items()):
            if f"{stage}/{name}" in series:
                steps, values = zip(*series[f"{stage}/{name}"])
                panel.plot(steps, values, color=COLOURS[number], label=stage, **style)
        if name == "compression_ratio" and target_ratio is not None:
            panel.axhline(target_ratio, color="black", linestyle=":", linewidth=1.0, label="target")
        title, unit = PANELS[name]
        describe(panel, title=title, x="step", y=unit)
        panel.tick_params(labelbottom=True)
        if name == "bytes_per_second":
            panel.yaxis.set_major_formatter(EngFormatter(sep=""))
    for panel in panels[len(known) :]:
        panel.remove()
    entries = {label: handle for panel in figure.axes for handle, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), fontsize="x-small")
    return figure


def _grouped(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[Any, dict[Any, tuple[float, float]]]]:
    """Compressor -> what was asked for -> seed -> codes and bits per byte."""
    check_runs(runs, NEEDED)
    found: dict[str, dict[Any, dict[Any, tuple[float, float]]]] = {}
    for place, run in enumerate(runs):
        for key in ("codes_per_byte", "bits_per_byte"):
            if not isinstance(run[key], Real) or not 0 <= run[key] < math.inf:
                raise ValueError(f"runs[{place}] has {key}={run[key]!r}; allowed: numbers from 0 on")
        asked = run.get("asked", run["codes_per_byte"])
        mine = found.setdefault(run["compressor"], {}).setdefault(asked, {})
        if run["seed"] in mine:
            raise ValueError(f"runs[{place}] repeats seed={run['seed']!r} of {run['compressor']!r}; allowed: each once")
        mine[run["seed"]] = (run["codes_per_byte"], run["bits_per_byte"])
    return found


def _octaves(ax: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis in powers of two, from about the one below all rates to the one above."""
    octaves = [math.log2(rate) for rate in rates if rate]
    if octaves:
        first, last = math.floor(min(octaves) + 0.1), math.ceil(max(octaves) - 0.1)
        ax.set_xscale("log", base=2)
        ax.set_xlim(2.0 ** (first - 0.2), 2.0 ** (last + 0.2))
        ax.xaxis.set_major_locator(FixedLocator([2.0**octave for octave in range(first, last + 1)]))
        ax.xaxis.set_major_formatter(lambda rate, _: f"1/{1 / rate:g}" if rate < 1 else f"{rate:g}")
        ax.xaxis.set_minor_locator(NullLocator())


def _read(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Column -> (step, value), of those cells that hold something."""
    series: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for record in csv.DictReader(file):
            for name, value in record.items():
                if value and record.get("step"):
                    series.setdefault(name, []).append((float(record["step"]), float(value)))
    return series
