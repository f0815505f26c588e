"""How all plots look: colours that colour blindness and print leave apart, sizes that follow the user's font size."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wavecomp.records import check_type

# Okabe and Ito, "Color Universal Design", 2008, without the yellow, which paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
COLOUR_MAP = "cividis"
FLOOR = 40.0  # dB under the loudest, below which all is drawn alike


def axes_or_new(ax: Axes | None, *, height: float = 2.4) -> Axes:
    """The axes that were given, or those of a figure of their own, as wide as a page."""
    if ax is not None:
        check_type("ax", ax, Axes)
        return ax
    return new_figure(height=height).add_subplot()


def new_figure(*, height: float) -> Figure:
    """A figure that pyplot does not know, so that nothing keeps it alive."""
    return Figure(figsize=(7.0, height), layout="constrained")


def describe(ax: Axes, *, title: str, x: str, y: str) -> None:
    """Title and axes, in sizes that fit a column of print."""
    ax.set_title(title, fontsize="small")
    ax.set_xlabel(x, fontsize="small")
    ax.set_ylabel(y, fontsize="small")
    ax.tick_params(labelsize="x-small")


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def colour_bar(image: ScalarMappable, ax: Axes, label: str, **options: Any) -> Colorbar:
    """A colour bar beside ``ax``, with its label."""
    bar = ax.figure.colorbar(image, ax=ax, pad=0.03, **options)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="x-small")
    return bar


def line(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of this number; 56 differ in colour or marker."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 4,
        "linewidth": 1.2,
    }


def decibels(energy: np.ndarray) -> np.ndarray:
    """``10 log10`` of energies, not lower than ``FLOOR`` under the largest; what is no number stays none."""
    largest = max(energy[np.isfinite(energy)], default=0.0)
    least = max(float(largest) * 10 ** (-FLOOR / 10), np.finfo(float).tiny)
    return 10 * np.log10(np.maximum(energy, least))
