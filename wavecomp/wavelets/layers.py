"""DWT1d: a multilevel transform of chunks as one matrix product."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wavecomp.bands import BandLayout, Bands
from wavecomp.records import check_lengths, values_are_at_hand
from wavecomp.wavelets.filter_bank import FilterBank, WaveletFilterBank
from wavecomp.wavelets.taps import Wavelet

Cascade = Callable[[Tensor, Tensor], Tensor]


class DWT1d(nn.Module):
    """Multilevel wavelet transform of chunks, critically sampled and exactly invertible at any length.

    The transform of a chunk is one matrix, made by running the filter bank on the identity, so gradients reach a
    learnable bank through it. Short chunks go through the bank itself, one per row, without a host synchronisation.

    Args:
        filter_bank: a pywt name, a ``pywt.Wavelet``, :class:`FilterTaps` or a :class:`FilterBank` for all levels, or
            a list with one per level, finest first.
        level: how many levels; at most ``floor(log2(chunk_length))`` of the chunks that come.

    Raises:
        ValueError: a level below 1, or a list of another length.

    Example:
        >>> transform = DWT1d("haar", level=2)
        >>> x = torch.randn(1, 3, 8, 5)
        >>> bands = transform(x)
        >>> bands.layout.names, torch.allclose(transform.inverse(bands), x, atol=1e-6)
        (('cA2', 'cD2', 'cD1'), True)
    """

    def __init__(self, filter_bank: Wavelet | FilterBank | Sequence[Wavelet | FilterBank], *, level: int) -> None:
        super().__init__()
        if level < 1:
            raise ValueError(f"level={level} is too small; allowed: 1 and above")
        banks = list(filter_bank) if isinstance(filter_bank, (list, tuple)) else [filter_bank]
        if isinstance(filter_bank, (list, tuple)) and len(banks) != level:
            raise ValueError(f"filter_bank lists {len(banks)} banks for level={level}; give one, or one per level")
        self.filter_banks = nn.ModuleList(b if isinstance(b, FilterBank) else WaveletFilterBank(b) for b in banks)
        self.level = level

    def extra_repr(self) -> str:
        return f"level={self.level}"

    @property
    def linear(self) -> bool:
        """Whether the transform is a matrix; one that is not runs step by step."""
        return all(bank.linear for bank in self.filter_banks)

    def check_length(self, chunk_length: int) -> None:
        """Raise ``ValueError`` when chunks of this length cannot be split ``level`` times."""
        most = max(chunk_length, 1).bit_length() - 1
        if self.level > most:
            raise ValueError(
                f"level={self.level} is too deep for chunk_length={chunk_length}; "
                f"allowed: 1 to floor(log2(chunk_length)) = {most}"
            )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Bands:
        """Analysis.

        Args:
            x: ``(batch, chunks, chunk_length, dim)``, or ``(rows, chunk_length, dim)``.
            lengths: ``(batch, chunks)`` or ``(rows,)``, valid samples of each chunk; all unless given. With four
                dimensions at most one chunk of each row may be short (and not empty).

        Returns:
            :class:`Bands` with ``values`` of x's shape, coarse to fine.
        """
        self._check_input(x, lengths)
        self.check_length(x.shape[-2])
        matrix = self.analysis_matrix(x.shape[-2], x)
        layout = self._layout(x.shape[-2], matrix)
        if not self.linear:
            full = lengths if lengths is not None else torch.full(x.shape[:-2], x.shape[-2], device=x.device)
            split = self._split(x.reshape(-1, *x.shape[-2:]), None if lengths is None else lengths.flatten())
            return Bands(values=torch.cat(split, dim=-2).view_as(x), lengths=full, layout=layout)
        if lengths is None:
            full = torch.full(x.shape[:-2], x.shape[-2], device=x.device)
            return Bands(values=matrix @ x, lengths=full, layout=layout)
        x = _zero_behind(x, lengths)
        values = self._with_tails(matrix @ x, x, lengths, lambda rows, n: torch.cat(self._split(rows, n), dim=-2))
        return Bands(values=values, lengths=lengths, layout=layout)

    def inverse(self, bands: Bands, to_level: int = 0) -> Tensor:
        """Synthesis.

        Args:
            to_level: the level to come back to: 0 for the signal, l for its approximation at level l.

        Returns:
            ``(..., ceil(chunk_length / 2 ** to_level), dim)``, zero behind each chunk's length.
        """
        if not 0 <= to_level <= self.level:
            raise ValueError(f"to_level={to_level} is out of range; allowed: 0 to {self.level}")
        length = -(-bands.values.shape[-2] // 2**to_level)
        values = bands.values[..., :length, :]
        lengths = -(-bands.lengths // 2**to_level)
        values = _zero_behind(values, lengths, bands.mask[..., :length])
        if not self.linear:
            rows = self._merge(values.reshape(-1, *values.shape[-2:]), lengths.flatten(), to_level)
            return rows.view_as(values)
        product = self.synthesis_matrix(length, values, to_level) @ values
        return self._with_tails(product, values, lengths, lambda rows, n: self._merge(rows, n, to_level))

    def analysis_matrix(self, chunk_length: int, like: Tensor) -> Tensor:
        """``(chunk_length, chunk_length)``, coarse rows first, in the dtype of ``like``."""
        return torch.cat(self._split(_identity(chunk_length, like)), dim=-2).to(like.dtype)

    def synthesis_matrix(self, chunk_length: int, like: Tensor, to_level: int = 0) -> Tensor:
        """The inverse of :meth:`analysis_matrix`, or of its coarse corner from ``to_level`` up."""
        return self._merge(_identity(chunk_length, like), None, to_level).to(like.dtype)

    def layout(self, chunk_length: int) -> BandLayout:
        """What each coefficient of a chunk of this length is."""
        self.check_length(chunk_length)
        return self._layout(chunk_length, self.analysis_matrix(chunk_length, torch.empty(0, dtype=torch.float64)))

    def _bank(self, step: int) -> FilterBank:
        return self.filter_banks[step if len(self.filter_banks) > 1 else 0]  # type: ignore[return-value]

    def _split(self, x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """The cascade, step by step: ``[cA_n, cD_n, ..., cD_1]``."""
        details: list[Tensor] = []
        for step in range(self.level):
            x, detail = self._bank(step).analysis(x, lengths)
            details.append(detail)
            lengths = None if lengths is None else (lengths + 1) // 2
        return [x, *reversed(details)]

    def _merge(self, values: Tensor, lengths: Tensor | None = None, to_level: int = 0) -> Tensor:
        length = values.shape[-2]
        sizes = [-(-length // 2**step) for step in range(self.level - to_level + 1)]
        x, *details = values.split([sizes[-1], *(fine - coarse for fine, coarse in _pairs(sizes))], dim=-2)
        for step, detail in zip(reversed(range(self.level - to_level)), details):
            rows = None if lengths is None else -(-lengths // 2**step)
            x = self._bank(to_level + step).synthesis((x, detail), rows)
        return x

    def _with_tails(self, product: Tensor, x: Tensor, lengths: Tensor, cascade: Cascade) -> Tensor:
        """Replace what the matrix made of short chunks by what the cascade makes of them."""
        if x.ndim == 3:
            return cascade(x, lengths)
        if not x.shape[1]:
            return product
        rows = torch.arange(x.shape[0], device=x.device)
        tail = _short(lengths, x.shape[-2]).int().argmax(-1)
        return product.index_put((rows, tail), cascade(x[rows, tail], lengths[rows, tail]).to(product.dtype))

    def _layout(self, chunk_length: int, matrix: Tensor) -> BandLayout:
        device = matrix.device
        sizes = [-(-chunk_length // 2**step) for step in range(self.level + 1)]
        counts = [sizes[-1], *(fine - coarse for fine, coarse in _pairs(sizes))]
        levels = [self.level, *range(self.level, 0, -1)]
        names = (f"cA{self.level}", *(f"cD{level}" for level in levels[1:]))
        band = torch.cat([torch.full((n,), b, device=device) for b, n in enumerate(counts)])
        level = torch.cat([torch.full((n,), v, device=device) for v, n in zip(levels, counts)])
        index = torch.cat([torch.arange(n, device=device) for n in counts])
        step = 2**level
        needs = torch.where(band == 0, index * step, index * step + step // 2) + 1
        frequency = torch.where(band == 0, 1.0, 3.0) / (4 * step)
        power = matrix.detach().float().square()
        place = torch.arange(chunk_length, device=device, dtype=power.dtype)
        return BandLayout(
            level=level,
            band=band,
            index=index,
            needs=needs,
            position=(power @ place) / power.sum(-1),
            support=step.float(),
            frequency=frequency,
            names=names,
            counts=tuple(counts),
        )

    def _check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        if x.ndim not in (3, 4):
            raise ValueError(
                f"DWT1d: x has shape {tuple(x.shape)}; "
                "allowed: (batch, chunks, chunk_length, dim) or (rows, chunk_length, dim)"
            )
        if not x.is_floating_point():
            raise TypeError(f"DWT1d: x has dtype {x.dtype}; allowed: floating point")
        if lengths is not None:
            check_lengths("DWT1d", lengths, tuple(x.shape[:-2]), x.shape[-2])
            if x.ndim == 4 and values_are_at_hand(lengths):
                short = int(_short(lengths, x.shape[-2]).sum(-1).max())
                if short > 1:
                    raise ValueError(f"DWT1d: a row has {short} short chunks; allowed: one, its last")


def _identity(length: int, like: Tensor) -> Tensor:
    # built in at least fp32 and cast last: bf16 taps would cost exactness for nothing
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.eye(length, dtype=dtype, device=like.device)


def _short(lengths: Tensor, chunk_length: int) -> Tensor:
    return (lengths > 0) & (lengths < chunk_length)


def _zero_behind(x: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        mask = torch.arange(x.shape[-2], device=x.device) < lengths[..., None]
    return torch.where(mask[..., None], x, 0)


def _pairs(sizes: list[int]) -> list[tuple[int, int]]:
    """``(size, next size)``, coarsest last level first."""
    return list(itertools.pairwise(sizes))[::-1]
