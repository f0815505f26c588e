"""Filter banks: one level of analysis, critically sampled and exact at any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavecomp.wavelets.taps import FilterTaps, Wavelet
from wavecomp.wavelets.transform import dwt, idwt


class FilterBank(nn.Module):
    """The contract: one level of analysis and its inverse along axis -2, at any length, zero included.

    ``linear`` says that the bank is a matrix; a bank that is not runs step by step. ``exact`` is ``False`` only for
    filters that are free of the reconstruction constraint and held to it by a loss.
    """

    linear: bool = True
    exact: bool = True
    branches: int = 2

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        """Split a signal.

        Args:
            x: ``(rows, length, dim)``.
            lengths: ``(rows,)``, valid samples of each row; all unless given. What lies behind is not read.

        Returns:
            One tensor per branch, coarse first; branch b has ``ceil((length - b) / branches)`` samples, zero where a
            row has none.
        """
        raise NotImplementedError

    def synthesis(self, branches: Sequence[Tensor], lengths: Tensor | None = None) -> Tensor:
        """Put a signal together again: the exact inverse. ``lengths`` are those of the signal."""
        raise NotImplementedError


class WaveletFilterBank(FilterBank):
    """A fixed wavelet, periodised; an odd length passes its last sample into the approximation.

    A row of n samples wraps at its own n, so that ragged rows give what they give alone.

    Args:
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.

    Example:
        >>> bank = WaveletFilterBank("db2")
        >>> low, high = bank.analysis(torch.randn(1, 7, 3))
        >>> low.shape[-2], high.shape[-2]
        (4, 3)
    """

    def __init__(self, wavelet: Wavelet) -> None:
        super().__init__()
        self.taps = FilterTaps.of(wavelet)

    def extra_repr(self) -> str:
        return f"taps={len(self.taps)}, orthogonal={self.taps.orthogonal}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if lengths is not None:
            return self._ragged_analysis(x, lengths)
        even = x.shape[-2] // 2 * 2
        if not even:
            return x, x[..., :0, :]
        low, high = dwt(x[..., :even, :], self.taps, mode="periodization")
        return torch.cat([low, x[..., even:, :]], dim=-2), high

    def synthesis(self, branches: Sequence[Tensor], lengths: Tensor | None = None) -> Tensor:
        low, high = branches
        if lengths is not None:
            return self._ragged_synthesis(low, high, lengths)
        half = high.shape[-2]
        if not half:
            return low
        return torch.cat([idwt(low[..., :half, :], high, self.taps, mode="periodization"), low[..., half:, :]], dim=-2)

    def _ragged_analysis(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        length = x.shape[-2]
        pairs = (lengths // 2)[:, None]
        x = torch.where((torch.arange(length, device=x.device) < lengths[:, None])[..., None], x, 0)
        out = torch.arange((length + 1) // 2, device=x.device)
        low, high = torch.zeros_like(x[:, : len(out)]), torch.zeros_like(x[:, : len(out)])
        reach = len(self.taps) // 2
        for j, (lo, hi) in enumerate(zip(self.taps.dec_lo, self.taps.dec_hi)):
            source = (2 * out + reach - j).remainder((2 * pairs).clamp(min=1))
            sample = _take(x, source)
            low, high = low + lo * sample, high + hi * sample
        paired = (out < pairs)[..., None]
        passed = (out == pairs)[..., None] & (lengths % 2 == 1)[:, None, None]
        last = _take(x, (lengths[:, None] - 1).clamp(min=0))
        low = torch.where(paired, low, torch.where(passed, last, 0))
        return low, torch.where(paired, high, 0)[:, : length // 2]

    def _ragged_synthesis(self, low: Tensor, high: Tensor, lengths: Tensor) -> Tensor:
        length = low.shape[-2] + high.shape[-2]
        pairs = (lengths // 2)[:, None]
        out = torch.arange(length, device=low.device)
        if high.shape[-2] == 0:
            return torch.where((out < lengths[:, None])[..., None], low, 0)
        reach = len(self.taps) // 2
        # x[2q + p] = sum_i rec[2i + p + reach - 1] c[q - i], the tap depends on the parity p of the output
        rec = torch.tensor([self.taps.rec_lo, self.taps.rec_hi], dtype=low.dtype, device=low.device)
        even = torch.zeros_like(torch.cat([low, high], dim=-2))
        for i in range(-(reach // 2), reach // 2 + 1):
            tap = 2 * i + out % 2 + reach - 1
            weight = torch.where((tap >= 0) & (tap < len(self.taps)), rec[:, tap.clamp(0, len(self.taps) - 1)], 0)
            source = (out // 2 - i).remainder(pairs.clamp(min=1))
            even = even + weight[0, :, None] * _take(low, source) + weight[1, :, None] * _take(high, source)
        passed = (out == 2 * pairs) & (lengths % 2 == 1)[:, None]
        last = _take(low, pairs.clamp(max=low.shape[-2] - 1))
        return torch.where((out < 2 * pairs)[..., None], even, torch.where(passed[..., None], last, 0))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """``x[row, index[row]]``: ``(rows, length, dim)`` at ``(rows, count)`` gives ``(rows, count, dim)``."""
    index = index.clamp(max=x.shape[-2] - 1)
    return x.gather(-2, index[..., None].expand(-1, -1, x.shape[-1]))
