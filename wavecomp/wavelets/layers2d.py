"""DWT2d: chunks split along their tokens and their channels at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import BandLayout, Bands
from wavecomp.compiling import constant_numbers
from wavecomp.records import check_count, check_lengths, check_type
from wavecomp.wavelets.chunk_transform import ChunkTransform
from wavecomp.wavelets.filter_bank import FilterBank, WaveletFilterBank, as_built, zero_behind
from wavecomp.wavelets.taps import Wavelet
from wavecomp.wavelets.tree import Cascade, dwt_leaves


class DWT2d(ChunkTransform):
    """Wavelet transform over tokens and channels together, four sub-bands a level, as in :func:`wavedec2`.

    Each level halves the tokens and the channels of the approximation, so a coefficient vector of level l has
    ``dim / 2 ** l`` channels of ``2 ** l`` times as many tokens. Neighbouring ones are put side by side until they are
    dim wide: these are the coefficients. Per level, ``cV`` is the detail along the channels alone and ``cHD`` that
    along the tokens, of both halves of the channels. Runs step by step; at odd lengths the last coefficient of a band
    may be partly empty.

    Args:
        filter_bank: a wavelet or a bank of two branches, along the tokens.
        channel_bank: the same along the channels; the Haar wavelet unless given.
        level: how many levels; at most ``floor(log2(chunk_length))``, and dim must be divisible by ``2 ** level``.

    Raises:
        ValueError: a level below 1, or a bank that has not two branches.

    Example:
        >>> transform = DWT2d("db2", level=2)
        >>> x = torch.randn(1, 3, 16, 8)
        >>> bands = transform(x)
        >>> bands.layout.names, bands.layout.counts
        (('cA2', 'cV2', 'cHD2', 'cV1', 'cHD1'), (1, 1, 2, 4, 8))
        >>> torch.allclose(transform.inverse(bands), x, atol=1e-5)
        True
    """

    def __init__(
        self, filter_bank: Wavelet | FilterBank, *, level: int, channel_bank: Wavelet | FilterBank = "haar"
    ) -> None:
        super().__init__()
        check_count("level", level)
        tokens, channels = (
            bank if isinstance(bank, FilterBank) else WaveletFilterBank(bank) for bank in (filter_bank, channel_bank)
        )
        self.filter_banks = nn.ModuleList([tokens, channels])
        for name, bank in (("filter_bank", tokens), ("channel_bank", channels)):
            if bank.branches != 2:
                raise ValueError(f"{name}={bank} has {bank.branches} branches; allowed: 2")
        self.level = level
        if channels.heads > 1:
            raise ValueError(f"channel_bank={channels} has heads={channels.heads}; allowed: 1")
        self._initial = Cascade([as_built(tokens)] * level, dwt_leaves([2] * level))
        details = [f"{name}{step}" for step in range(level, 0, -1) for name in ("cV", "cHD")]
        self._names = (f"cA{level}", *details)

    def extra_repr(self) -> str:
        return f"level={self.level}"

    @property
    def _tokens(self) -> Cascade:
        return self._of_bank(0)

    @property
    def _channels(self) -> Cascade:
        return self._of_bank(1)

    def _of_bank(self, axis: int) -> Cascade:
        bank: Any = self.filter_banks[axis]
        return Cascade([bank] * self.level, dwt_leaves([2] * self.level))

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, ragged: bool = False) -> Bands:
        if lengths is not None:
            check_lengths("DWT2d", lengths, tuple(x.shape[:-2]), x.shape[-2])
        if x.shape[-1] % 2**self.level:
            raise ValueError(f"DWT2d: dim={x.shape[-1]} is not divisible by 2 ** level = {2**self.level}")
        layout = self.layout(x.shape[-2], x.device)
        rows = None if lengths is None else lengths.flatten()
        low = zero_behind(x.reshape(-1, *x.shape[-2:]), rows)
        constants = self._tokens.constants(x.shape[-2], x, rows)
        of_channels = self._channels.constants(x.shape[-1], x)
        bands: list[Tensor] = []
        for step in range(self.level):
            low = torch.cat(self._along_channels(step, low, of_channels[step]), dim=-1)
            low, high = self._tokens.analyse(step, low, self._rows(rows, step), constants[step])
            low, channels = low.chunk(2, dim=-1)
            bands = [_side_by_side(channels, x.shape[-1]), _side_by_side(high, x.shape[-1]), *bands]
        values = torch.cat([_side_by_side(low, x.shape[-1]), *bands], dim=1)
        full = lengths if lengths is not None else torch.full(x.shape[:-2], x.shape[-2], device=x.device)
        return Bands(
            values=values.view(*x.shape[:-2], *values.shape[1:]),
            lengths=full,
            layout=layout,
            dense=lengths is None,
            ragged=ragged,
        )

    def inverse(self, bands: Bands) -> Tensor:
        """As of :class:`ChunkTransform`.

        Raises:
            ValueError: bands of another transform.
        """
        check_type("bands", bands, Bands)
        if bands.layout.names != self._names:
            raise ValueError(f"DWT2d: bands are {', '.join(bands.layout.names)}; allowed: {', '.join(self._names)}")
        shape, dim, length = bands.lengths.shape, bands.values.shape[-1], bands.layout.length
        values = bands.values if bands.dense else torch.where(bands.mask[..., None], bands.values, 0)
        rows = None if bands.dense else bands.lengths.flatten()
        low, *details = values.reshape(-1, *values.shape[-2:]).split(bands.layout.counts, dim=1)
        constants = self._tokens.constants(length, low, rows)
        of_channels = self._channels.constants(dim, low)
        count = -(-length // 2**self.level)
        low = _apart(low, dim >> self.level, count)
        for step in reversed(range(self.level)):
            channels, high, *details = details
            finer = -(-length // 2**step)
            low = torch.cat([low, _apart(channels, dim >> (step + 1), count)], dim=-1)
            branches = (low, _apart(high, dim >> step, finer - count))
            low = self._tokens.synthesise(step, branches, self._rows(rows, step), constants[step])
            halves = [half.transpose(1, 2) for half in low.chunk(2, dim=-1)]
            low, count = self._channels.synthesise(step, halves, None, of_channels[step]).transpose(1, 2), finer
        return low.reshape(*shape, *low.shape[1:])

    @property
    def bands(self) -> int:
        return 2 * self.level + 1

    def layout(self, chunk_length: int, device: torch.device | str | None = None) -> BandLayout:
        """What each coefficient of a chunk of this length is; positions are means over those side by side."""
        most = max(chunk_length, 1).bit_length() - 1
        if self.level > most:
            raise ValueError(
                f"level={self.level} is too deep for chunk_length={chunk_length}; "
                f"allowed: 1 to floor(log2(chunk_length)) = {most}"
            )
        return self._remembered("bands", chunk_length, device, lambda: self._grouped_layout(chunk_length))

    @constant_numbers(torch.float32)
    def _positions(self, length: int, level: int) -> Tensor:
        return Cascade(self._initial.banks[:level], dwt_leaves([2] * level)).positions(length)

    def _grouped_layout(self, length: int) -> BandLayout:
        parts = []
        for level in range(self.level, 0, -1):
            # of the tokens alone, of this level: its approximation and its detail
            tokens = Cascade(self._initial.banks[:level], dwt_leaves([2] * level))
            alone = tokens.layout(length, self._positions(length, level))
            for name, band, side in (("cA", 0, 2**level), ("cV", 0, 2**level), ("cHD", 1, 2 ** (level - 1))):
                if f"{name}{level}" in self._names:
                    parts.append(_grouped(alone, band, side))
        columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        counts = tuple(len(part["needs"]) for part in parts)
        bands = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
        return BandLayout(band=bands, names=self._names, counts=counts, length=length, **columns)

    def _along_channels(self, step: int, x: Tensor, ones: Tensor | None) -> list[Tensor]:
        return [branch.transpose(1, 2) for branch in self._channels.analyse(step, x.transpose(1, 2), None, ones)]

    def _rows(self, lengths: Tensor | None, step: int) -> Tensor | None:
        return None if lengths is None else -(-lengths // 2**step)


def _side_by_side(x: Tensor, dim: int) -> Tensor:
    """``(rows, count, part)`` to ``(rows, ceil(count * part / dim), dim)``."""
    side = dim // x.shape[-1]
    return F.pad(x, (0, 0, 0, -x.shape[1] % side)).reshape(x.shape[0], -(-x.shape[1] // side), dim)


def _apart(x: Tensor, part: int, count: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1] * (x.shape[2] // part), part)[:, :count]


def _grouped(layout: BandLayout, band: int, side: int) -> dict[str, Tensor]:
    """The coefficients of one band of the tokens' layout, ``side`` of them to one."""
    start, count = sum(layout.counts[:band]), layout.counts[band]
    first = slice(start, start + count, side)
    members = F.pad(layout.position[start : start + count], (0, -count % side), value=torch.nan).view(-1, side)
    return {
        "level": layout.level[first],
        "index": torch.arange(len(members)),
        "needs": layout.needs[first],
        "position": members.nanmean(-1),
        "support": side * layout.support[first],
        "frequency": layout.frequency[first],
    }
