"""What a filter bank does to a signal: its taps, its frequency response, its scaling and wavelet functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from wavecomp.plots.arguments import array, check_number
from wavecomp.plots.style import COLOURS, MARKERS, describe, new_figure, whole_numbers
from wavecomp.records import check_type
from wavecomp.wavelets import FilterBank

LOWEST = -60.0  # dB, of a frequency response
POINTS = 1024  # of a frequency response
RESOLUTION = 256  # points per step of the approximation in a scaling function


class Response(NamedTuple):
    """Weights ``(branches, taps)`` of the samples that an output reads, the first at ``first`` tokens from its own."""

    taps: np.ndarray
    first: int


def plot_filter_bank(bank: FilterBank, *, initial: FilterBank | None = None, head: int = 0) -> Figure:
    """Taps, frequency response, scaling function and wavelets of the analysis, found by sending impulses through.

    The functions are iterates of the cascade: the weights that a coefficient of a deep level puts on its tokens, with
    the distance between two such coefficients as the step of time.

    Args:
        bank: a linear bank.
        initial: a bank to compare with, drawn in dashes: where learning began. It has one head, or as many.
        head: which group of channels.

    Raises:
        TypeError: something else than a filter bank.
        ValueError: one that is no matrix, a head that is not there, or an initial bank of another number of branches.

    Example:
        >>> figure = plot_filter_bank(wc.OrthogonalFilterBank("db2"), initial=wc.WaveletFilterBank("haar"))
        >>> [ax.get_title() for ax in figure.axes]
        ['Taps', 'Frequency response', 'Scaling function', 'Wavelet']
    """
    response = _response("bank", bank, head)
    figure = new_figure(height=4.4)
    figure.suptitle(f"Analysis of {type(bank).__name__}, {response.taps.shape[1]} taps", fontsize="small")
    panels = figure.subplots(2, 2).flatten()
    if initial is not None:
        check_type("initial", initial, FilterBank)
        begun = _response("initial", initial, head if initial.heads > 1 else 0)
        if len(begun.taps) != len(response.taps):
            raise ValueError(f"initial has {initial.branches} branches, bank {bank.branches}; they must agree")
        _draw(panels, begun, "initial ", {"linestyle": "--", "linewidth": 1.0, "alpha": 0.6, "fillstyle": "none"})
    _draw(panels, response, "", {"linestyle": "-", "linewidth": 1.4})
    wavelets = "Wavelets" if len(response.taps) > 2 else "Wavelet"
    describe(panels[0], title="Taps", x="tokens", y="weight")
    describe(panels[1], title="Frequency response", x="cycles per token", y="magnitude (dB)")
    describe(panels[2], title="Scaling function", x="time (steps)", y="amplitude")
    describe(panels[3], title=wavelets, x="time (steps)", y="amplitude")
    panels[1].set_ylim(bottom=LOWEST)
    whole_numbers(panels[0].xaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="x-small")
    return figure


def _draw(panels: np.ndarray, response: Response, prefix: str, style: dict[str, Any]) -> None:
    details = len(response.taps) - 1
    names = ["approximation", *(f"detail {number + 1}" if details > 1 else "detail" for number in range(details))]
    tokens = response.first + np.arange(response.taps.shape[1])
    frequency = np.linspace(0, 0.5, POINTS // 2 + 1)
    magnitude = np.maximum(np.abs(np.fft.rfft(response.taps, POINTS)), 1e-10)
    time, functions = _cascade(response)
    for branch, name in enumerate(names):
        own = {**style, "color": COLOURS[branch % len(COLOURS)], "label": prefix + name}
        panels[0].plot(tokens, response.taps[branch], marker=MARKERS[branch % len(MARKERS)], markersize=4, **own)
        panels[1].plot(frequency, 20 * np.log10(magnitude[branch]), **own)
        panels[3 if branch else 2].plot(time, functions[branch], **own)


def _response(name: str, bank: FilterBank, head: int) -> Response:
    """What an output in the middle of a signal makes of impulses, by the bank's own analysis."""
    check_type(name, bank, FilterBank)
    if not bank.linear:
        raise ValueError(f"{name}={type(bank).__name__} is not linear and has no taps; allowed: linear banks")
    check_number("head", head, bank.heads)
    middle = bank.reach // bank.branches + 1
    length = bank.branches * (2 * middle + 2)
    device = next((parameter.device for parameter in bank.parameters()), None)
    impulses = torch.eye(length, dtype=torch.float64, device=device)[..., None].expand(-1, -1, bank.heads)
    with torch.no_grad():
        found = [array(branch[:, middle, head]) for branch in bank.analysis(impulses)]
    weights = np.stack(found)
    used = np.flatnonzero(np.abs(weights).max(0) > 1e-6 * np.abs(weights).max())
    return Response(weights[:, used[0] : used[-1] + 1], int(used[0]) - bank.branches * middle)


def _cascade(response: Response) -> tuple[np.ndarray, np.ndarray]:
    """Time in steps of the deepest level, and ``(branches, points)``: scaling function, wavelets, zero at both ends."""
    branches = len(response.taps)
    scaling, start, rate = np.ones(1), 0, 1
    while rate * branches <= RESOLUTION:
        spread = np.zeros((branches, (response.taps.shape[1] - 1) * rate + 1))
        spread[:, ::rate] = response.taps
        functions = np.stack([np.convolve(scaling, taps) for taps in spread])
        scaling, start, rate = functions[0], start + rate * response.first, rate * branches
    functions = np.pad(functions, ((0, 0), (1, 1)))
    return (start - 1 + np.arange(functions.shape[1])) / rate, functions * np.sqrt(rate)
