"""What an encoding says of where codes lie and which frequency they are."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wavecomp.codes import Codes
from wavecomp.plots.arguments import array, check_number
from wavecomp.plots.style import COLOUR_MAP, colour_bar, describe, new_figure
from wavecomp.positions import DyadicPositionCode, PositionFrequencyEncoding
from wavecomp.records import check_type


def plot_position_code(
    encoding: PositionFrequencyEncoding | DyadicPositionCode, codes: Codes, *, row: int = 0
) -> Figure:
    """The vector that an encoding adds to each code of a row, and how alike those vectors are.

    Codes come in their order: by chunk, with white lines between, and coarse to fine in each.

    Args:
        encoding: adds its mark to the codes' values.
        codes: whose positions, chunks, levels and frequencies are looked at; their values are not.
        row: of the batch.

    Raises:
        TypeError: another encoding, or something else than codes.
        ValueError: a row that is not there or is empty.

    Example:
        >>> codes = wc.MeanPoolCompressor(count=4)(wc.Codes.from_tokens(torch.randn(1, 64, 8)).cut(16))
        >>> figure = plot_position_code(wc.PositionFrequencyEncoding(8), codes)
        >>> [ax.images[0].get_array().shape for ax in figure.axes[:2]]
        [(16, 8), (16, 16)]
    """
    check_type("encoding", encoding, PositionFrequencyEncoding, DyadicPositionCode)
    check_type("codes", codes, Codes)
    check_number("row", row, len(codes.mask))
    mask = array(codes.mask[row])
    if not mask.any():
        raise ValueError(f"row={row} holds no codes; allowed: a row with some")
    with torch.no_grad():
        silent = torch.zeros(*codes.mask.shape, encoding.dim, device=codes.mask.device)
        marked = encoding(codes.replace(values=silent)).values[row]
    marks, chunk = array(marked)[mask], array(codes.chunk[row])[mask]
    figure = new_figure(height=3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    _draw(left, marks, float(np.abs(marks).max()) or 1.0, "added value")
    describe(left, title="Position code", x="dimension", y="code")
    length = np.maximum(np.linalg.norm(marks, axis=1, keepdims=True), np.finfo(float).tiny)
    _draw(right, (marks / length) @ (marks / length).T, 1.0, "cosine")
    describe(right, title="Similarity", x="code", y="code")
    for start in np.flatnonzero(np.diff(chunk)):
        for draw in (left.axhline, right.axhline, right.axvline):
            draw(start + 0.5, color="white", linewidth=0.6)
    return figure


def _draw(ax: Axes, values: np.ndarray, limit: float, label: str) -> None:
    image = ax.imshow(values, aspect="auto", interpolation="nearest", cmap=COLOUR_MAP, vmin=-limit, vmax=limit)
    colour_bar(image, ax, label)
