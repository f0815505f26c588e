"""Dropping what could be foreseen: the most surprising tokens stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import gather_rows
from wavecomp.compressors.counted import CountedCompressor
from wavecomp.records import check_count, check_weight


class SurprisalDropCompressor(CountedCompressor):
    """Keeps the ``count`` tokens of each chunk that a small causal model predicts worst, in order.

    A convolution over the ``window`` tokens before token t, of its own chunk, predicts its vector; the mean squared
    error is its surprisal. The predictor learns from ``losses["surprisal"]`` alone and that loss moves nothing else:
    an encoder that it could reach would learn to be predictable.

    Args:
        dim: width of the tokens and of the codes.
        count: codes per whole chunk; a short chunk has its share of them.
        window: how many tokens the predictor reads.
        weight: what the mean surprisal is multiplied by in the loss.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count or window below 1, a count above the chunk length, or a negative weight.

    Example:
        >>> compressor = SurprisalDropCompressor(dim=8, count=4)
        >>> codes = compressor(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16))
        >>> codes.values.shape, codes.losses["surprisal"].shape
        (torch.Size([2, 8, 8]), torch.Size([]))
    """

    def __init__(
        self, *, dim: int, count: int, window: int = 4, weight: float = 0.1, encoding: nn.Module | None = None
    ) -> None:
        super().__init__(count=count, encoding=encoding)
        check_count("window", window)
        check_weight("weight", weight)
        self.window = window
        self.weight = weight
        self.predictor = nn.Sequential(nn.Conv1d(dim, dim, window), nn.GELU(), nn.Conv1d(dim, dim, 1))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, window={self.window}, weight={self.weight}"

    def surprisal(self, values: Tensor) -> Tensor:
        """``(batch, chunks, chunk_length, dim)`` to the error of each token, ``(batch, chunks, chunk_length)``."""
        target = values.detach()
        # shifted by one: what is predicted of token t has read the tokens before it
        before = F.pad(target.flatten(0, 1).transpose(1, 2), (self.window, -1))
        predicted = self.predictor(before).transpose(1, 2).reshape(target.shape)
        return (predicted.float() - target.float()).square().mean(-1)

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        length = values.shape[-2]
        surprisal = self.surprisal(values)
        # stable: of equal ones the earliest stay
        score = surprisal.detach().masked_fill(~chunks.mask, -torch.inf)
        index = score.argsort(dim=-1, descending=True, stable=True)[..., : self.count]
        kept = torch.arange(self.count, device=index.device) < self.budget(chunks)[..., None]
        # empty places sort behind the kept ones
        index = torch.where(kept, index, length).sort(dim=-1).values
        mask, index = index < length, index.clamp(max=length - 1)
        loss = torch.where(chunks.mask, surprisal, 0).sum() / chunks.mask.sum().clamp(min=1)
        return chunks.codes(
            gather_rows(values, index),
            mask=mask,
            position=index.float(),
            support=torch.ones_like(index, dtype=torch.float32),
            frequency=torch.full_like(index, 0.25, dtype=torch.float32),
            level=torch.zeros_like(index),
            index=index,
            losses={"surprisal": self.weight * loss},
            statistics={"surprisal": torch.where(chunks.mask, surprisal.detach(), 0)},
        )
