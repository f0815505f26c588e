"""Where the energy of a transform lies: by band and chunk, and by band and token."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from wavecomp.bands import BandLayout, Bands
from wavecomp.codes import Codes
from wavecomp.plots.arguments import array, check_number, check_tokens, row_of, statistic
from wavecomp.plots.style import COLOUR_MAP, axes_or_new, colour_bar, decibels, describe, whole_numbers
from wavecomp.records import check_type

TEXT_SIZE = 5.5  # points
CHARACTERS = 72 / (0.6 * TEXT_SIZE)  # per inch
MOST_NAMES = 24  # of bands beside a heat map
LEAST_WIDTH, MOST_LINES = 4, 16  # of the text under a chunk


def plot_band_energy(
    codes_or_bands: Codes | Bands,
    *,
    layout: BandLayout | None = None,
    stage: int = 0,
    row: int = 0,
    text: str | bytes | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How loud each band of each chunk is: a heat map in dB, the approximation at the bottom.

    What is 40 dB under the loudest, or quieter, is drawn alike.
    Bands know their names. Codes do not: they are those of ``layout``; without it they are cA_n, cD_n, ..., cD_1 where
    the levels of the codes show that the transform was dyadic and of one stage, and numbers otherwise.

    Args:
        codes_or_bands: codes of a compressor or of a ChunkReduce that report ``band_energy``, or :class:`Bands` with
            values ``(batch, chunks, coefficients, dim)``, or ``(chunks, coefficients, dim)`` of one row.
        layout: of the transform that made the codes, ``transform.layout(chunk_length)``.
        stage: which Chunk-Network, of codes of several.
        row: of the batch.
        text: the row's own bytes, one per token; written under the chunks where these are wide enough in the figure as
            it is, and left out otherwise.
        ax: where to draw; a figure of its own unless given.

    Raises:
        TypeError: something else than codes or bands.
        ValueError: codes without band energies, a row or stage that is not there, a layout with another number of
            bands, or a text that is not as long as the row.

    Example:
        >>> bands = wc.DWT1d("haar", level=2)(torch.randn(1, 5, 16, 8))
        >>> ax = plot_band_energy(bands)
        >>> [label.get_text() for label in ax.get_yticklabels()], ax.images[0].get_array().shape
        (['cA2', 'cD2', 'cD1'], (3, 5))
    """
    check_type("codes_or_bands", codes_or_bands, Codes, Bands)
    if isinstance(codes_or_bands, Bands):
        energy, lengths = (row_of(codes_or_bands, row, x) for x in (codes_or_bands.energy(), codes_or_bands.lengths))
        names = codes_or_bands.layout.names
    else:
        whole = statistic(codes_or_bands, "band_energy", stage)
        check_number("row", row, len(whole))
        energy, lengths = whole[row], statistic(codes_or_bands, "places", stage)[row]
        names = _names(codes_or_bands, energy.shape[-1], layout)
    check_tokens(row, lengths)
    shown = energy[lengths > 0].T
    pieces = [] if text is None else _pieces(text, lengths[lengths > 0].tolist(), stage)
    own = ax is None
    ax = axes_or_new(ax)
    image = ax.imshow(decibels(array(shown)), origin="lower", aspect="auto", interpolation="nearest", cmap=COLOUR_MAP)
    describe(ax, title="Energy of the bands of each chunk", x="chunk", y="band")
    _name_bands(ax, names)
    whole_numbers(ax.xaxis)
    colour_bar(image, ax, "energy (dB)")
    if pieces:
        lines = _write_under(ax, pieces)
        if own:
            ax.figure.figure.set_figheight(2.4 + 0.1 * lines)
    return ax


def plot_scalogram(bands: Bands, *, row: int = 0, channel: int | None = None, ax: Axes | None = None) -> Axes:
    """The energy of every coefficient over the tokens that it stands for, band by band: dyadic tiles, in dB.

    The chunks of the row lie one after another. Filters longer than Haar's also read beyond their tile. What is 40 dB
    under the loudest, or quieter, is drawn alike.

    Args:
        bands: ``(batch, chunks, coefficients, dim)``, or ``(chunks, coefficients, dim)`` of one row, all chunks in
            one basis.
        row: of the batch.
        channel: which one; the mean over all unless given.
        ax: where to draw; a figure of its own unless given.

    Raises:
        TypeError: something else than bands.
        ValueError: chunks with a basis each, a row or channel that is not there, or a row without tokens.

    Example:
        >>> ax = plot_scalogram(wc.DWT1d("haar", level=2)(torch.randn(1, 5, 16, 8)))
        >>> ax.images[0].get_array().shape
        (3, 80)
    """
    check_type("bands", bands, Bands)
    if bands.layout.level.ndim != 1:
        raise ValueError("bands have a basis for each chunk; allowed: one layout for all, or plot_packet_tree")
    values, lengths = (row_of(bands, row, x) for x in (bands.values, bands.lengths))
    check_tokens(row, lengths)
    if channel is not None:
        check_number("channel", channel, values.shape[-1])
        values = values[..., channel : channel + 1]
    tiles = _tiles((array(values) ** 2).mean(-1), lengths.tolist(), bands.layout)
    ax = axes_or_new(ax)
    edges = (0, tiles.shape[1], -0.5, len(tiles) - 0.5)
    image = ax.imshow(
        decibels(tiles), origin="lower", aspect="auto", interpolation="nearest", cmap=COLOUR_MAP, extent=edges
    )
    what = f"mean of {bands.values.shape[-1]} channels" if channel is None else f"channel {channel}"
    describe(ax, title=f"Energy of the coefficients, {what}", x="position (tokens)", y="band")
    _name_bands(ax, bands.layout.names)
    whole_numbers(ax.xaxis)
    colour_bar(image, ax, "energy (dB)")
    return ax


def _name_bands(ax: Axes, names: tuple[str, ...]) -> None:
    """The names on the left, or as many of them as have room."""
    step = -(-len(names) // MOST_NAMES)
    ax.set_yticks(range(0, len(names), step), labels=names[::step])


def _names(codes: Codes, count: int, layout: BandLayout | None) -> tuple[str, ...]:
    if layout is not None:
        check_type("layout", layout, BandLayout)
        if len(layout.names) != count:
            raise ValueError(f"layout names {len(layout.names)} bands, the codes have energies of {count}")
        return layout.names
    deepest = int(codes.level[codes.mask].max()) if codes.mask.any() else 0
    # each level of any tree has at least one detail: as many bands as this are a dyadic tree's
    if count == deepest + 1 and not any(name.startswith("chunk_networks.1.") for name in codes.statistics):
        return (f"cA{deepest}", *(f"cD{level}" for level in range(deepest, 0, -1)))
    return tuple(f"band {number}" for number in range(count))


def _pieces(text: str | bytes, lengths: list[int], stage: int) -> list[str]:
    """The text of each chunk, of characters that can be seen."""
    if stage:
        raise ValueError(f"text goes with the chunks of stage=0, not with those of stage={stage}")
    given = text.encode() if isinstance(text, str) else text
    if len(given) != sum(lengths):
        raise ValueError(f"text has {len(given)} bytes, the row {sum(lengths)} tokens; they must agree")
    starts = np.cumsum([0, *lengths])
    pieces = [given[start : start + length].decode(errors="replace") for start, length in zip(starts, lengths)]
    return ["".join(c if c.isprintable() else "·" for c in piece.replace("\n", "↵")) for piece in pieces]


def _write_under(ax: Axes, pieces: list[str]) -> int:
    """Each chunk's text under its number, as wide as the chunk, where that is wide enough; says how many lines."""
    ax.figure.figure.draw_without_rendering()  # the layout decides how wide the axes are
    inches = ax.get_window_extent().width / ax.figure.dpi
    width = int(inches / len(pieces) * CHARACTERS) - 1
    lines = -(-max(map(len, pieces)) // max(width, 1))
    if width < LEAST_WIDTH or lines > MOST_LINES:
        return 0
    wrapped = ["\n".join(piece[start : start + width] for start in range(0, len(piece), width)) for piece in pieces]
    ax.set_xticks(range(len(pieces)), labels=[f"{number}\n{piece}" for number, piece in enumerate(wrapped)])
    for label in ax.get_xticklabels():
        label.set(fontsize=TEXT_SIZE, family="monospace", parse_math=False, multialignment="left")
    return lines


def _tiles(power: np.ndarray, lengths: list[int], layout: BandLayout) -> np.ndarray:
    """``(chunks, coefficients)`` to ``(bands, tokens)``."""
    starts = np.cumsum([0, *layout.counts])
    place = np.arange(layout.length)
    rows = []
    for band, count in enumerate(layout.counts):
        index = place // int(layout.support[starts[band]])
        # at an odd length the last tokens may have no coefficient of their own in a band
        rows.append(np.where(index < count, power[:, starts[band] + np.minimum(index, count - 1)], 0))
    tiles = np.stack(rows)
    return np.concatenate([tiles[:, chunk, :length] for chunk, length in enumerate(lengths)], axis=1)
