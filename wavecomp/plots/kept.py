"""How many codes stand for each chunk, beside how much the text holds there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from wavecomp.codes import Codes
from wavecomp.pace import NEVER
from wavecomp.plots.arguments import array, check_number, check_tokens
from wavecomp.plots.style import COLOURS, axes_or_new, describe, whole_numbers
from wavecomp.records import check_type


def plot_kept_codes(
    codes: Codes, *, stage: int = 0, row: int = 0, surprisal: Tensor | None = None, ax: Axes | None = None
) -> Axes:
    """Codes of each chunk over the sequence, as bars; with ``surprisal`` its mean in each chunk, as a line.

    Args:
        codes: of one stage or of several.
        stage: which, of codes of several.
        row: of the batch.
        surprisal: ``(length,)``, bits that each byte of the row holds for some model.
        ax: where to draw; a figure of its own unless given. The line gets an axis on the right.

    Raises:
        TypeError: something else than codes.
        ValueError: a row or stage that is not there, a row without tokens, or a surprisal that is not as long as the
            row.

    Example:
        >>> network = wc.ChunkNetwork(chunk_length=16, compressor=wc.MeanPoolCompressor(count=4))
        >>> ax = plot_kept_codes(network(wc.Codes.from_tokens(torch.randn(1, 40, 8))))
        >>> counts, edges, _ = ax.patches[0].get_data()
        >>> counts.tolist(), edges.tolist()
        ([4, 4, 2], [0, 16, 32, 40])
    """
    check_type("codes", codes, Codes)
    check_number("row", row, len(codes.tokens))
    check_number("stage", stage, max(len(codes.pace), 1))
    check_tokens(row, codes.tokens[row])
    tokens = int(codes.tokens[row])
    counts, edges = _counts(codes, stage, row, tokens)
    ax = axes_or_new(ax)
    ax.stairs(counts, edges, fill=True, color=COLOURS[4])
    total = counts.sum()
    ratio = f"{tokens / total:.1f} tokens per code" if total else "none kept"
    bars = "codes per chunk" if surprisal is None else "codes per chunk (bars)"
    describe(ax, title=f"Codes of each chunk, {ratio}", x="position (tokens)", y=bars)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, 1.05 * max(counts.max(), 1))
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)
    if surprisal is not None:
        _draw_surprisal(ax, surprisal, edges, tokens)
    return ax


def _counts(codes: Codes, stage: int, row: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes that came at each end of a chunk, and from where to where the chunks go, in tokens."""
    end, mask, chunk = (array(field[row]) for field in (codes.end, codes.mask, codes.chunk))
    span = codes.pace[stage].span if codes.pace else 0
    if len(codes.pace) > 1:
        mine = (end == (chunk + 1) * span) | ((end == NEVER) & (chunk == tokens // span))
        end, mask = end[mine], mask[mine]
    ends = np.unique(end[end != NEVER])
    first = ends[0] - span if len(ends) and span else 0
    counts = [(mask & (end == at)).sum() for at in ends]
    if not len(ends) or ends[-1] < first + tokens:  # a chunk that the end of the row cut short
        ends = np.append(ends, first + tokens)
        counts.append((mask & (end == NEVER)).sum())
        # the first chunks of two stages look alike where neither ends
        kept = codes.statistics.get(f"chunk_networks.{stage}.kept")
        if tokens < span and kept is not None:
            counts[-1] = int(kept[row, 0])
    return np.array(counts), np.insert(ends, 0, first)


def _draw_surprisal(ax: Axes, surprisal: Tensor, edges: np.ndarray, tokens: int) -> None:
    check_type("surprisal", surprisal, Tensor)
    if tuple(surprisal.shape) != (tokens,):
        raise ValueError(f"surprisal has shape {tuple(surprisal.shape)}, expected {(tokens,)}, the tokens of the row")
    sums = np.add.reduceat(array(surprisal.float()), edges[:-1] - edges[0])
    right = ax.twinx()
    right.stairs(sums / np.diff(edges), edges, color=COLOURS[1], linewidth=1.5, baseline=None)
    right.set_ylim(bottom=0)
    right.set_ylabel("surprisal (bits per byte, line)", fontsize="small", color=COLOURS[1])
    right.tick_params(axis="y", labelsize="x-small", colors=COLOURS[1])
