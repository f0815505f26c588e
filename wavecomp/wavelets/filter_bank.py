"""Filter banks: one level of analysis, critically sampled and exact at any length."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from wavecomp.modules import Arguments, Module, built_with
from wavecomp.records import check_count, without_waiting
from wavecomp.wavelets.taps import NEARLY, FilterTaps, Wavelet
from wavecomp.wavelets.transform import dwt, idwt, wide


class FilterBank(Module):
    """The contract: one level of analysis and its inverse along axis -2, at any length, zero included.

    Attributes:
        linear: whether the bank is a matrix; a bank that is not runs step by step.
        exact: ``False`` for filters that are free of the reconstruction constraint and held to it by a loss, and for
            wavelets whose taps are cut off, as those of pywt's dmey are.
        branches: how many there are; output q of a branch stands for the samples ``branches * q`` and those after it.
        heads: groups of neighbouring channels, each with filters of its own.
        dim: the channels that a bank must be given, ``None`` for any.
        reach: samples that an output of a linear bank reads before and behind those that it stands for, around the end
            of the row or of the row but its last sample.
        wraps: whether outputs near an end read samples of the other one.
        follows_constants: whether the ends depend on what earlier levels made of a constant. Such a bank's methods
            take it as ``ones=``: the approximation of a constant one so far, ``(rows or 1, length, heads)``.
    """

    linear: bool = True
    exact: bool = True
    branches: int = 2
    heads: int = 1
    dim: int | None = None
    reach: int = 0
    wraps: bool = False
    follows_constants: bool = False

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

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, *, ones: Tensor | None = None
    ) -> Tensor:
        """Put a signal together again: the exact inverse. ``lengths`` are those of the signal."""
        raise NotImplementedError


class WaveletFilterBank(FilterBank):
    """A fixed wavelet, periodised; an odd length passes its last sample into the approximation.

    A row of n samples wraps at its own n, so that ragged rows give what they give alone.

    Args:
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.

    Raises:
        ValueError: an unknown wavelet, or taps whose synthesis is not the inverse of their analysis.

    Example:
        >>> bank = WaveletFilterBank("db2")
        >>> low, high = bank.analysis(torch.randn(1, 7, 3))
        >>> low.shape[-2], high.shape[-2]
        (4, 3)
    """

    wraps = True

    def __init__(self, wavelet: Wavelet) -> None:
        super().__init__()
        self.taps = FilterTaps.of(wavelet)
        if self.taps.error > NEARLY:
            raise ValueError(
                f"wavelet={wavelet!r}: what synthesis makes of analysis is off by {self.taps.error:.2g}; allowed: "
                f"filters that are inverse to {NEARLY}"
            )
        self.exact = self.taps.error < 1e-6
        self.reach = len(self.taps) // 2 - 1

    def extra_repr(self) -> str:
        return f"taps={len(self.taps)}, orthogonal={self.taps.orthogonal}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        wide = widened(x)
        if lengths is not None:
            low, high = periodized_analysis(wide, lengths, self._weights(wide, self.taps.dec_lo, self.taps.dec_hi))
            return low.to(x.dtype), high.to(x.dtype)
        even = x.shape[-2] // 2 * 2
        if not even:
            return x, x[..., :0, :]
        low, high = dwt(wide[..., :even, :], self.taps, mode="periodization", axis=-2)
        return torch.cat([low.to(x.dtype), x[..., even:, :]], dim=-2), high.to(x.dtype)

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, *, ones: Tensor | None = None
    ) -> Tensor:
        dtype = branches[0].dtype
        low, high = (widened(branch) for branch in branches)
        if lengths is not None:
            weights = self._weights(low, self.taps.rec_lo, self.taps.rec_hi)
            return periodized_synthesis(low, high, lengths, weights).to(dtype)
        half = high.shape[-2]
        if not half:
            return low.to(dtype)
        even = idwt(low[..., :half, :], high, self.taps, mode="periodization", axis=-2)
        return torch.cat([even, low[..., half:, :]], dim=-2).to(dtype)

    def _weights(self, like: Tensor, *filters: tuple[float, ...]) -> Tensor:
        return without_waiting(filters, dtype=like.dtype, device=like.device)[..., None]


def periodized_analysis(x: Tensor, lengths: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`wavecomp.wavelets.dwt` with periodization, each row at its own length.

    Args:
        x: ``(rows, length, dim)``.
        lengths: ``(rows,)``; an odd one passes its last sample into the approximation.
        filters: ``(2, taps, dim)`` or ``(2, taps, 1)``, dec_lo and dec_hi.
    """
    length, taps = x.shape[-2], filters.shape[1]
    pairs = (lengths // 2)[:, None]
    x = zero_behind(x, lengths)
    if length < 2:
        return x, x[:, :0]
    out = torch.arange((length + 1) // 2, device=x.device)
    low, high = torch.zeros_like(x[:, : len(out)]), torch.zeros_like(x[:, : len(out)])
    for j in range(taps):
        sample = _take(x, (2 * out + taps // 2 - j).remainder((2 * pairs).clamp(min=1)))
        low, high = low + filters[0, j] * sample, high + filters[1, j] * sample
    paired = (out < pairs)[..., None]
    passed = (out == pairs)[..., None] & (lengths % 2 == 1)[:, None, None]
    last = _take(x, (lengths[:, None] - 1).clamp(min=0))
    low = torch.where(paired, low, torch.where(passed, last, 0))
    return low, torch.where(paired, high, 0)[:, : length // 2]


def periodized_synthesis(low: Tensor, high: Tensor, lengths: Tensor, filters: Tensor) -> Tensor:
    """:func:`wavecomp.wavelets.idwt` with periodization, each row at its own length; ``filters`` rec_lo and rec_hi."""
    length, taps = low.shape[-2] + high.shape[-2], filters.shape[1]
    pairs = (lengths // 2)[:, None]
    out = torch.arange(length, device=low.device)
    if high.shape[-2] == 0:
        return zero_behind(low, lengths)
    even = torch.zeros_like(torch.cat([low, high], dim=-2))
    # x[2q + p] = sum_i rec[2i + p + taps / 2 - 1] c[q - i], the tap depends on the parity p of the output
    for i in range(-(taps // 4), taps // 4 + 1):
        tap = 2 * i + out % 2 + taps // 2 - 1
        weight = filters[:, tap.clamp(0, taps - 1)] * ((tap >= 0) & (tap < taps))[:, None]
        source = (out // 2 - i).remainder(pairs.clamp(min=1))
        even = even + weight[0] * _take(low, source) + weight[1] * _take(high, source)
    passed = (out == 2 * pairs) & (lengths % 2 == 1)[:, None]
    last = _take(low, pairs.clamp(max=low.shape[-2] - 1))
    return torch.where((out < 2 * pairs)[..., None], even, torch.where(passed[..., None], last, 0))


def interleave(low: Tensor, high: Tensor) -> Tensor:
    """Two branches along axis -2, by turns; the first may be one longer."""
    paired = torch.stack([low[..., : high.shape[-2], :], high], dim=-2).flatten(-3, -2)
    return torch.cat([paired, low[..., high.shape[-2] :, :]], dim=-2)


def check_signal(x: Tensor) -> None:
    """Raise ``TypeError`` unless a signal is in floating point: of integers coefficients would be rounded."""
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; allowed: floating point")


def widened(x: Tensor, own: Tensor | None = None) -> Tensor:
    """A signal in at least fp32 and the precision of a bank's ``own`` parameters: it is rounded once, at the end.

    Raises:
        TypeError: a signal that is not in floating point.
    """
    check_signal(x)
    x = wide(x)
    return x if own is None else x.to(torch.promote_types(x.dtype, own.dtype))


def zero_behind(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``(..., length, dim)`` with zeros, whatever was there, behind ``lengths`` ``(...)``."""
    if lengths is None:
        return x
    return torch.where((torch.arange(x.shape[-2], device=x.device) < lengths[..., None])[..., None], x, 0)


def as_built(bank: FilterBank) -> FilterBank:
    """The bank as it was before it learned anything, in double precision on the CPU: of it positions are told.

    It is built again from its arguments, which a model that is saved comes back with; what was learned may be loaded
    later.

    Raises:
        ValueError: a bank that is on the device "meta" even when it is built anew.
    """
    args, kwargs = pytree.tree_map(_as_given, tuple(built_with(bank) or Arguments((), {})))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        torch.default_generator.manual_seed(0)  # the same for all, whatever is drawn; no other device's is touched
        built = type(bank)(*args, **kwargs)
    if any(parameter.is_meta for parameter in built.parameters()):
        raise ValueError(
            f"filter_bank={bank} is on 'meta' when it is built, where no filters are from which positions could be "
            "told; build it on another device"
        )
    return built.double()


def _as_given(argument: Any) -> Any:
    """An argument of a bank as it was, and not shared with the bank that learns."""
    return as_built(argument) if isinstance(argument, FilterBank) else copy.deepcopy(argument)


def check_heads(heads: int) -> int:
    """Raise ``ValueError`` for less than one group of channels."""
    check_count("heads", heads)
    return heads


def _take(x: Tensor, index: Tensor) -> Tensor:
    """``x[row, index[row]]``: ``(rows, length, dim)`` at ``(rows, count)`` gives ``(rows, count, dim)``."""
    index = index.clamp(max=x.shape[-2] - 1)
    return x.gather(-2, index[..., None].expand(-1, -1, x.shape[-1]))
