"""What details say that could not be told without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.compressors.compressor import node_counts
from wavecomp.compressors.selection import relative_loudness
from wavecomp.modules import Module, weight_dtype
from wavecomp.records import check_count, check_shape, check_weight, check_width


class DetailPredictor(Module):
    r"""Guesses details from the approximations beside them, and leaves what it missed.

    The approximations of a level and its details make those of the next finer level. So what a code of a coarse level
    does not tell of its tokens is what its details do not share with what is coarser, level by level (the chain rule of
    entropy; that a detail is told by what is coarser: Shapiro's zerotrees, 1993). How much that is is not known; the
    squared error of a guess stands for it, which reads one approximation and has learned from the texts of training.
    What always comes in the same way may be as loud as anything, but is soon guessed, and so is what an encoder has
    learned to put into its averages.

    A network of two layers for each level reads one approximation and guesses the detail of the same index. It learns
    from the loss alone and the loss moves nothing else: an encoder that it could reach would learn to be predictable.

    Args:
        dim: width of the values.
        level: that of the transform.
        hidden: width of the networks.
        weight: what the mean squared error is multiplied by in the loss.

    Raises:
        ValueError: a dim, level or hidden below 1, or a negative weight.

    Example:
        >>> transform = wc.DWT1d("haar", level=3)
        >>> bands = transform(torch.randn(1, 2, 16, 8))
        >>> missed, loss = DetailPredictor(dim=8, level=3)(bands, transform.inverse_levels(bands))
        >>> missed.values.shape == bands.values.shape, loss.shape
        (True, torch.Size([]))
    """

    def __init__(self, *, dim: int, level: int, hidden: int = 32, weight: float = 0.1) -> None:
        super().__init__()
        check_count("dim", dim)
        check_count("level", level)
        check_count("hidden", hidden)
        check_weight("weight", weight)
        self.dim, self.level, self.weight = dim, level, weight
        self.read = nn.ModuleList(nn.Linear(dim, hidden) for _ in range(level))
        self.guess = nn.ModuleList(nn.Linear(hidden, dim) for _ in range(level))
        for layer in self.guess:  # at first all of a detail is missed
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"weight={self.weight}"

    def forward(self, bands: Bands, approximations: Tensor) -> tuple[Bands, Tensor]:
        """What is missed, and the loss.

        Args:
            bands: of a dyadic transform of this level, values ``(batch, chunks, coefficients, dim)``.
            approximations: ``(batch, chunks, nodes, dim)``, what ``transform.inverse_levels`` gives of them.

        Returns:
            The bands with the error of each detail in its place, without a gradient, and the approximations as they
            were; and a scalar, the mean squared error times ``weight``.

        Raises:
            ValueError: bands of another transform, level or width, or approximations of other nodes.
        """
        check_width(self, self.dim, bands.values)
        levels = range(self.level, 0, -1)
        names = (f"cA{self.level}", *(f"cD{level}" for level in levels))
        if bands.layout.names != names:
            raise ValueError(f"bands are {', '.join(bands.layout.names)}; allowed: {', '.join(names)}")
        counts = node_counts(bands.layout.length, self.level)
        rows = tuple(bands.values.shape[:-2])
        check_shape("DetailPredictor", "approximations", approximations, (*rows, sum(counts), self.dim))
        values, nodes = bands.values.detach(), approximations.detach()
        coarsest, *details = values.split(list(bands.layout.counts), dim=-2)
        missed = []
        for read, guess, level, detail, above in zip(
            self.read, self.guess, levels, details, nodes.split(counts, dim=-2)
        ):
            means = above[..., : detail.shape[-2], :] * 2 ** (-level / 2)
            missed.append(detail - guess(F.silu(read(means.to(weight_dtype(read, means))))).to(detail.dtype))
        has = bands.mask[..., coarsest.shape[-2] :]
        errors = torch.where(has[..., None], torch.cat(missed, dim=-2), 0)
        lost = torch.where(has, relative_loudness(errors).square(), 0).sum() / has.sum().clamp(min=1)
        return bands.replace(values=torch.cat([coarsest, errors.detach()], dim=-2)), self.weight * lost

    if TYPE_CHECKING:
        __call__ = forward
