"""Which packets a best basis keeps."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from wavecomp.bands import Bands
from wavecomp.plots.arguments import array, check_number, check_tokens, row_of
from wavecomp.plots.style import axes_or_new, colour_bar, describe, whole_numbers
from wavecomp.records import check_type
from wavecomp.wavelets import Basis


def plot_packet_tree(tree: Bands | Basis, *, row: int = 0, ax: Axes | None = None) -> Axes:
    """Which packets each chunk keeps: one column per chunk, cut into the nodes' frequencies, coloured by level.

    Args:
        tree: the :class:`Bands` of a :class:`wavecomp.BestBasis1d`, ``(batch, chunks, coefficients, dim)`` or
            ``(chunks, coefficients, dim)`` of one row, or a :class:`wavecomp.wavelets.Basis` over ``(batch, chunks)``,
            ``(chunks,)`` or a single signal.
        row: of the batch.
        ax: where to draw; a figure of its own unless given.

    Raises:
        TypeError: something else than bands or a basis.
        ValueError: a row that is not there, or one without tokens.

    Example:
        >>> t = torch.arange(32)
        >>> click, tone = (t == 5).float(), torch.cos(torch.pi * t)
        >>> ax = plot_packet_tree(wc.BestBasis1d("haar", level=3)(torch.stack([click, tone])[..., None]))
        >>> ax.images[0].get_array()[-1].tolist()  # the highest frequencies: level 1 for a click, 3 for a tone
        [1, 3]
    """
    check_type("tree", tree, Bands, Basis)
    levels, nodes = _of_bands(tree, row) if isinstance(tree, Bands) else _of_basis(tree, row)
    first, last = min(1, int(levels.min())), int(levels.max())
    ax = axes_or_new(ax)
    image = ax.imshow(
        levels,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colormaps["viridis"].resampled(last - first + 1),
        vmin=first - 0.5,
        vmax=last + 0.5,
        extent=(-0.5, levels.shape[1] - 0.5, 0, 0.5),
    )
    ax.add_collection(LineCollection(list(_outlines(nodes)), colors="white", linewidths=0.6))
    describe(ax, title="Packets that each chunk keeps", x="chunk", y="frequency (cycles per token)")
    whole_numbers(ax.xaxis)
    colour_bar(image, ax, "level of the packet", ticks=range(first, last + 1))
    return ax


def _of_bands(bands: Bands, row: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = row_of(bands, row, bands.lengths)
    check_tokens(row, lengths)
    fields = (bands.layout.level, bands.layout.frequency, bands.layout.support)
    shape = bands.values.shape[:-1]
    level, frequency, support = (array(row_of(bands, row, field.expand(shape))[lengths > 0]) for field in fields)
    bins = int(support.max())
    centre = (2 * np.arange(bins) + 1) / (4 * bins)
    # a node of rate r is 1 / 2r wide, and its first coefficient speaks for the others
    holds = np.abs(frequency[..., None] - centre) < 1 / (4 * support[..., None])
    image = np.take_along_axis(level, holds.argmax(1), axis=1).T
    chunks = np.arange(len(level))[:, None] + np.zeros_like(frequency)
    below = frequency - 1 / (4 * support)
    return image, np.unique(np.stack([chunks, below], axis=-1).reshape(-1, 2), axis=0)


def _of_basis(basis: Basis, row: int) -> tuple[np.ndarray, np.ndarray]:
    batched = basis.cost.ndim == 2
    check_number("row", row, len(basis.cost) if batched else 1)
    if basis.cost.ndim > 2:
        raise ValueError(f"tree has rows {tuple(basis.cost.shape)}; allowed: (batch, chunks), (chunks,) or ()")
    kept = {path: np.atleast_1d(array(mark[row] if batched else mark)) for path, mark in basis.kept.items()}
    bins = 2 ** max(map(len, kept))
    image = np.zeros((bins, len(kept[""])), dtype=int)
    nodes = []
    for path, mark in kept.items():
        width = bins >> len(path)
        first = _band_of(path) * width
        image[first : first + width, mark] = len(path)
        nodes += [(chunk, first / (2 * bins)) for chunk in np.flatnonzero(mark)]
    return image, np.array(nodes)


def _band_of(path: str) -> int:
    """Which band of its level a node is, from low to high: below a detail frequencies run backwards."""
    band = 0
    for letter in path:
        band = 2 * band + ((letter == "d") != (band % 2 == 1))
    return band


def _outlines(nodes: np.ndarray) -> np.ndarray:
    """The lower edge of every node, and the right one of every column, as segments."""
    chunk, below = nodes[:, 0], nodes[:, 1]
    across = np.stack([np.stack([chunk - 0.5, below], -1), np.stack([chunk + 0.5, below], -1)], 1)
    column = np.unique(chunk)
    upright = np.stack([np.stack([column + 0.5, 0 * column], -1), np.stack([column + 0.5, 0 * column + 0.5], -1)], 1)
    return np.concatenate([across, upright])
