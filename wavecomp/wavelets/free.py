"""FreeFilterBank: filters that only a loss holds to perfect reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.compiling import no_autocast
from wavecomp.wavelets.filter_bank import FilterBank, check_heads, periodized_analysis, periodized_synthesis, widened
from wavecomp.wavelets.taps import FilterTaps, Wavelet


class FreeFilterBank(FilterBank):
    """Four free filters, periodised, to compare exact banks with: nothing but two losses keeps the inverse an inverse.

    Args:
        init: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`, where learning starts.
        heads: groups of neighbouring channels with filters of their own; must divide dim.

    Raises:
        ValueError: an unknown wavelet, or no heads.

    Example:
        >>> bank = FreeFilterBank("db2")
        >>> loss = bank.perfect_reconstruction_loss() + bank.alias_cancellation_loss()
        >>> bool(loss < 1e-10)
        True
    """

    exact = False
    wraps = True

    def __init__(self, init: Wavelet = "db4", *, heads: int = 1) -> None:
        super().__init__()
        taps = FilterTaps.of(init)
        self.heads = check_heads(heads)
        self.reach = len(taps) // 2 - 1
        self.dec = nn.Parameter(torch.tensor([taps.dec_lo, taps.dec_hi]).repeat(heads, 1, 1))
        self.rec = nn.Parameter(torch.tensor([taps.rec_lo, taps.rec_hi]).repeat(heads, 1, 1))

    def extra_repr(self) -> str:
        return f"taps={self.dec.shape[-1]}, heads={self.heads}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        wide = widened(x, self.dec)
        branches = periodized_analysis(wide, _lengths(x, lengths), self._spread(self.dec, wide))
        return tuple(branch.to(x.dtype) for branch in branches)

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, *, ones: Tensor | None = None
    ) -> Tensor:
        dtype = branches[0].dtype
        low, high = (widened(branch, self.rec) for branch in branches)
        signal = torch.cat([low, high], dim=-2)
        return periodized_synthesis(low, high, _lengths(signal, lengths), self._spread(self.rec, low)).to(dtype)

    def perfect_reconstruction_loss(self) -> Tensor:
        r"""How far the pair is from a delay: squared distance of :math:`H_0 F_0 + H_1 F_1` from :math:`2 z^{-l}`,
        summed over taps, mean over heads (Strang and Nguyen, Wavelets and Filter Banks, 1996, section 4.1)."""
        through = _products(self.dec, self.rec).sum(1)
        wanted = torch.zeros_like(through)
        wanted[:, through.shape[-1] // 2] = 2
        return (through - wanted).square().sum(-1).mean()

    def alias_cancellation_loss(self) -> Tensor:
        r"""How much aliasing is left: the squares of :math:`H_0(-z) F_0(z) + H_1(-z) F_1(z)`, summed over taps, mean
        over heads."""
        sign = 1.0 - 2.0 * (torch.arange(self.dec.shape[-1], device=self.dec.device) % 2)
        return _products(self.dec * sign, self.rec).sum(1).square().sum(-1).mean()

    def _spread(self, filters: Tensor, like: Tensor) -> Tensor:
        """``(heads, 2, taps)`` to ``(2, taps, dim)``."""
        if like.shape[-1] % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={like.shape[-1]}")
        return filters.to(like.dtype).repeat_interleave(like.shape[-1] // self.heads, 0).permute(1, 2, 0)


def _products(dec: Tensor, rec: Tensor) -> Tensor:
    """The polynomials ``dec * rec``, ``(heads, 2, 2 * taps - 1)``."""
    heads, _, taps = dec.shape
    dec, rec = widened(dec), widened(rec)
    signal, kernel = dec.reshape(1, 2 * heads, taps), rec.reshape(2 * heads, 1, taps).flip(-1)
    with no_autocast(dec):
        return F.conv1d(signal, kernel, padding=taps - 1, groups=2 * heads).view(heads, 2, -1)


def _lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    return torch.full((x.shape[0],), x.shape[-2], device=x.device) if lengths is None else lengths
