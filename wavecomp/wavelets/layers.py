"""DWT1d and WaveletPackets1d: multilevel transforms of chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavecomp.bands import BandLayout, Bands
from wavecomp.compiling import constant_numbers, no_autocast, numbers_are_real
from wavecomp.records import check_count, check_lengths, check_type, values_are_at_hand
from wavecomp.wavelets import banded, kernels
from wavecomp.wavelets.chunk_transform import ChunkTransform
from wavecomp.wavelets.filter_bank import FilterBank, WaveletFilterBank, as_built, zero_behind
from wavecomp.wavelets.taps import Wavelet
from wavecomp.wavelets.tree import Cascade, Path, dwt_leaves, packet_leaves

Product = Callable[[Tensor, str], Tensor]
Backend = Literal["auto", "matrix", "banded", "cascade", "triton"]
BACKENDS = ("auto", "matrix", "banded", "cascade", "triton")
# from here on the banded product does less work than one matrix per chunk, measured on two cores
LONG = 512
# matrices that a transform keeps: of analysis and synthesis, training and inference, for a few lengths
MOST_KEPT = 16


class DWT1d(ChunkTransform):
    """Multilevel wavelet transform of chunks, critically sampled and exactly invertible at any length.

    One transform, several forms, equal in value and gradient:

    - ``"matrix"``: one product with the transform's matrix, made by running the bank on the identity, so that gradients
      reach a learnable bank through it. The fastest up to chunks of some hundred samples.
    - ``"banded"``: per level a product with one small band that slides along the signal, for long sequences.
    - ``"triton"``: all levels in one kernel on a GPU, for analysis; the inverse is the matrix.
    - ``"cascade"``: the bank itself, level after level: the truth of the others, and all that a non-linear bank has.

    ``"auto"`` takes the cascade for non-linear banks, of others the matrix for chunks of less than 512 samples; from
    there on the band, or the cascade where there is none: with several heads, and for packets. In every form a chunk
    shorter than the others, one per row, goes through the cascade at its own length.

    Args:
        filter_bank: a pywt name, a ``pywt.Wavelet``, :class:`FilterTaps` or a :class:`FilterBank` for all levels, or
            a list with one per level, finest first.
        level: how many levels; at most ``floor(log2(chunk_length))`` of the chunks that come.
        backend: the form.

    Raises:
        ValueError: a level below 1, a list of another length, a form that this bank does not have.

    Example:
        >>> transform = DWT1d("haar", level=2)
        >>> x = torch.randn(1, 3, 8, 5)
        >>> bands = transform(x)
        >>> bands.layout.names, torch.allclose(transform.inverse(bands), x, atol=1e-6)
        (('cA2', 'cD2', 'cD1'), True)
    """

    _slides = True  # only the approximation is split again, so there is a banded form

    def __init__(
        self,
        filter_bank: Wavelet | FilterBank | Sequence[Wavelet | FilterBank],
        *,
        level: int,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_count("level", level)
        banks = list(filter_bank) if isinstance(filter_bank, (list, tuple, nn.ModuleList)) else [filter_bank]
        if isinstance(filter_bank, (list, tuple, nn.ModuleList)) and len(banks) != level:
            raise ValueError(f"filter_bank lists {len(banks)} banks for level={level}; give one, or one per level")
        self.filter_banks = nn.ModuleList(b if isinstance(b, FilterBank) else WaveletFilterBank(b) for b in banks)
        per_level: list[FilterBank] = list(self.filter_banks) * (level if len(banks) == 1 else 1)  # type: ignore[assignment]
        branches = [bank.branches for bank in per_level]
        self.level = level
        self.backend = backend
        self.heads = per_level[0].heads
        self.binary = set(branches) == {2}
        self.dyadic = self._slides and self.binary
        self.rates = [math.prod(branches[:depth]) for depth in range(level + 1)]
        self._tree = self._leaves(branches)
        # what a coefficient stands for is said of the transform that learning starts from
        self._initial = Cascade([as_built(bank) for bank in per_level], self._tree)
        self._names = self._initial.names
        self._matrices: dict[tuple[object, ...], Tensor] = {}
        self._check_banks()

    def extra_repr(self) -> str:
        return f"level={self.level}, backend={self.backend!r}"

    @property
    def _cascade(self) -> Cascade:
        banks: list[FilterBank] = list(self.filter_banks)  # type: ignore[arg-type]
        return Cascade(banks * (self.level if len(banks) == 1 else 1), self._tree)

    @property
    def linear(self) -> bool:
        """Whether the transform is a matrix; one that is not runs step by step."""
        return all(bank.linear for bank in self._cascade.banks)

    @property
    def bands(self) -> int:
        return len(self._cascade.leaves)

    def check_length(self, chunk_length: int) -> None:
        """Raise ``ValueError`` when chunks of this length cannot be split ``level`` times."""
        most = max((depth for depth, rate in enumerate(self.rates) if rate <= chunk_length), default=0)
        if most < self.level:
            name = f"log{self._cascade.banks[0].branches}"
            bound = f"floor({name}(chunk_length)) = {most}" if len(self.filter_banks) == 1 else f"{most} of its banks"
            raise ValueError(f"level={self.level} is too deep for chunk_length={chunk_length}; allowed: 1 to {bound}")

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, ragged: bool = False) -> Bands:
        """Analysis.

        Args:
            x: ``(batch, chunks, chunk_length, dim)``, or ``(rows, chunk_length, dim)``.
            lengths: ``(batch, chunks)`` or ``(rows,)``, valid samples of each chunk; all unless given. With four
                dimensions at most one chunk of each row may be short (and not empty), unless ``ragged`` is said.
            ragged: whether several may be; then all go step by step.

        Returns:
            :class:`Bands` with ``values`` of x's shape, coarse to fine.
        """
        self._check_input(x, lengths, ragged)
        self.check_length(x.shape[-2])
        x = zero_behind(x, lengths)
        values = self._in_form(x, lengths, x.shape[-2], self._cascade.split, self._analysed, ragged)
        full = lengths if lengths is not None else torch.full(x.shape[:-2], x.shape[-2], device=x.device)
        layout = self.layout(x.shape[-2], x.device)
        return Bands(values=values, lengths=full, layout=layout, dense=lengths is None, ragged=ragged)

    def inverse(self, bands: Bands, to_level: int = 0) -> Tensor:
        """Synthesis.

        Args:
            to_level: the level to come back to: 0 for the signal, l for its approximation at level l.

        Returns:
            ``(..., ceil(chunk_length / rate), dim)`` with the rate of that level, zero behind each chunk's length.

        Raises:
            ValueError: a level that is not there, or bands of another transform.
        """
        if not 0 <= to_level <= self.level:
            raise ValueError(f"to_level={to_level} is out of range; allowed: 0 to {self.level}")
        values, lengths, length = self._coefficients(bands, to_level)
        return self._in_form(
            values,
            lengths,
            length,
            lambda rows, n: self._cascade.merge(rows, length, n, to_level),
            lambda y, form: self._synthesised(y, form, length, to_level),
            bands.ragged,
        )

    def inverse_levels(self, bands: Bands) -> Tensor:
        """Synthesis to every level, in one way up.

        Returns:
            ``(..., nodes, dim)``, what :meth:`inverse` gives for each level, in the order of :meth:`approximations`.

        Raises:
            ValueError: bands of another transform.
        """
        values, lengths, length = self._coefficients(bands)
        return self._in_form(
            values,
            lengths,
            length,
            lambda rows, n: torch.cat(self._cascade.approximations(rows, length, n), dim=1),
            lambda y, form: self._levels_synthesised(y, form, length),
            bands.ragged,
        )

    def _coefficients(self, bands: Bands, to_level: int = 0) -> tuple[Tensor, Tensor | None, int]:
        """What a synthesis reads: coefficients, zero where there are none; lengths where they differ; chunk length."""
        check_type("bands", bands, Bands)
        if bands.layout.names != self._names:
            raise ValueError(
                f"{type(self).__name__}: bands are {', '.join(bands.layout.names)}; allowed: {', '.join(self._names)}"
            )
        length = bands.values.shape[-2]
        count = -(-length // self.rates[to_level])
        values = bands.values[..., :count, :]
        if bands.dense:
            return values, None, length
        return torch.where(bands.mask[..., :count, None], values, 0), bands.lengths, length

    def upsample(self, x: Tensor, lengths: Tensor | None = None, *, level: int, chunk_length: int) -> Tensor:
        """An approximation as that of the next finer level, with details of zero.

        Args:
            x: ``(..., nodes, dim)``, the approximation at this level of chunks of this length.
            lengths: ``(...)``, samples of each chunk at level 0; all unless given.

        Returns:
            ``(..., finer nodes, dim)``, zero behind each chunk's length.

        Raises:
            ValueError: a level that the transform does not have, or other nodes than it has there.
        """
        if not 1 <= level <= self.level:
            raise ValueError(f"level={level} is out of range; allowed: 1 to {self.level}")
        nodes = -(-chunk_length // self.rates[level])
        if x.shape[-2] != nodes:
            raise ValueError(f"x has {x.shape[-2]} nodes; allowed: the {nodes} of level={level}")
        step = level - 1
        finer = (0,) * step
        low = x.reshape(-1, *x.shape[-2:])
        branches = [low]
        for branch in range(1, self._cascade.banks[step].branches):
            count = int(self._cascade.count((*finer, branch), chunk_length))
            branches.append(low.new_zeros(low.shape[0], count, low.shape[-1]))
        rows = None if lengths is None else lengths.flatten()
        ones = self._cascade.constants(chunk_length, low, rows)[step]
        counts = None if rows is None else self._cascade.count(finer, rows)
        y = self._cascade.synthesise(step, branches, counts, ones)
        return y.view(*x.shape[:-2], *y.shape[1:])

    def analysis_matrix(self, chunk_length: int, like: Tensor) -> Tensor:
        """``(chunk_length, chunk_length)``, coarse rows first, in the dtype of ``like``, for each of several heads.

        Of a :class:`BestBasis1d` ``(level * chunk_length, chunk_length)``: the packets of all levels, deepest first.
        """
        return self._analysis_matrix(chunk_length, like).clone()

    def synthesis_matrix(self, chunk_length: int, like: Tensor, to_level: int = 0) -> Tensor:
        """The inverse of :meth:`analysis_matrix`, or of its coarse corner from ``to_level`` up.

        Of a :class:`BestBasis1d` the inverses of its levels side by side.
        """
        return self._synthesis_matrix(chunk_length, like, to_level).clone()

    def _analysis_matrix(self, chunk_length: int, like: Tensor) -> Tensor:
        build = lambda: self._cascade.matrix(chunk_length, like).to(like.dtype)  # noqa: E731
        return self._kept(("analysis", chunk_length), like, build)

    def _synthesis_matrix(self, chunk_length: int, like: Tensor, to_level: int = 0) -> Tensor:
        build = lambda: self._cascade.inverse_matrix(chunk_length, like, to_level).to(like.dtype)  # noqa: E731
        return self._kept(("synthesis", chunk_length, to_level), like, build)

    def layout(self, chunk_length: int, device: torch.device | str | None = None) -> BandLayout:
        """What each coefficient of a chunk of this length is; positions are those that the bank began with."""
        self.check_length(chunk_length)
        build = lambda: self._initial.layout(chunk_length, self._positions(chunk_length))  # noqa: E731
        return self._remembered("bands", chunk_length, device, build)

    def approximations(self, chunk_length: int, device: torch.device | str | None = None) -> BandLayout:
        """What each approximation of every level is, coarse to fine, down to level 0, the tokens themselves."""
        self.check_length(chunk_length)
        return self._remembered("approximations", chunk_length, device, lambda: self._approximations(chunk_length))

    def _approximations(self, chunk_length: int) -> BandLayout:
        rates = self.rates[::-1]
        counts = self._node_counts(chunk_length)
        ones = [torch.ones(count, dtype=torch.float32) for count in counts]
        levels = range(self.level, -1, -1)
        index = torch.cat([torch.arange(count) for count in counts])
        support = torch.cat([rate * one for rate, one in zip(rates, ones)])
        return BandLayout(
            level=torch.cat([level * one.long() for level, one in zip(levels, ones)]),
            band=torch.cat([band * one.long() for band, one in enumerate(ones)]),
            index=index,
            needs=index * support.long() + 1,
            position=torch.cat([self._centres(chunk_length, level) for level in levels]),
            support=support,
            frequency=1 / (4 * support),
            names=tuple(f"cA{level}" for level in levels),
            counts=tuple(counts),
            length=chunk_length,
        )

    def _node_counts(self, chunk_length: int) -> list[int]:
        """Approximations of each level, coarse to fine."""
        return [-(-chunk_length // rate) for rate in self.rates[::-1]]

    def _centres(self, chunk_length: int, level: int) -> Tensor:
        if not level:
            return torch.arange(chunk_length).float()
        return self._positions(chunk_length, level)[: -(-chunk_length // self.rates[level])]

    @constant_numbers(torch.float32)
    def _positions(self, chunk_length: int, level: int | None = None) -> Tensor:
        if level in (None, self.level):
            return self._initial.positions(chunk_length)
        banks = self._initial.banks[:level]
        return Cascade(banks, dwt_leaves([bank.branches for bank in banks])).positions(chunk_length)

    def _leaves(self, branches: list[int]) -> list[Path]:
        return dwt_leaves(branches)

    def _in_form(
        self,
        x: Tensor,  # chunks, or their coefficients down to some level
        lengths: Tensor | None,
        chunk_length: int,
        cascade: Callable[[Tensor, Tensor | None], Tensor],
        product: Product,
        ragged: bool = False,
    ) -> Tensor:
        form = self.form(x, lengths, ragged)
        if form == "cascade":
            rows = cascade(x.reshape(-1, *x.shape[-2:]), None if lengths is None else lengths.flatten())
            return rows.view(*x.shape[:-2], *rows.shape[-2:])
        y = product(x, form)
        if lengths is None or not x.shape[1]:
            return y
        # the chunk of each row that is short goes through the cascade; where none is, its first chunk, for nothing
        rows = torch.arange(x.shape[0], device=x.device)
        tail = _short(lengths, chunk_length).int().argmax(-1)
        return y.index_put((rows, tail), cascade(x[rows, tail], lengths[rows, tail]).to(y.dtype))

    def _analysed(self, x: Tensor, form: str) -> Tensor:
        length = x.shape[-2]
        if form == "matrix":
            return self._product(self._analysis_matrix(length, x), x)
        if form == "banded":
            return banded.analysis(x.reshape(-1, *x.shape[-2:]), self._cascade).view_as(x)
        banks = self._cascade.banks
        rows = kernels.cascade(
            x.reshape(-1, *x.shape[-2:]),
            self._cascade.level_matrices(length, x),
            [bank.reach for bank in banks],
            [bank.branches for bank in banks],
        )
        return rows.view_as(x)

    def _synthesised(self, values: Tensor, form: str, length: int, to_level: int) -> Tensor:
        if form == "banded":
            rows = values.reshape(-1, *values.shape[-2:])
            return banded.synthesis(rows, self._cascade, length, to_level).view_as(values)
        return self._product(self._synthesis_matrix(length, values, to_level), values)

    def _levels_synthesised(self, values: Tensor, form: str, length: int) -> Tensor:
        counts = self._node_counts(length)
        read = [values[..., :count, :] for count in counts]  # what is finer has no part in an approximation
        if form == "banded":
            levels = range(self.level, -1, -1)
            return torch.cat([self._synthesised(x, form, length, to) for x, to in zip(read, levels)], dim=-2)
        build = lambda: self._cascade.approximation_matrix(length, values).to(values.dtype)  # noqa: E731
        rows = self._kept(("approximations", length), values, build).split(counts, dim=-2)
        return torch.cat([self._product(m[..., :count], x) for m, count, x in zip(rows, counts, read)], dim=-2)

    def _product(self, matrix: Tensor, x: Tensor) -> Tensor:
        with no_autocast(x):  # the other forms do not round either, and what is rounded is not quite inverted
            if self.heads == 1:
                return matrix @ x
            grouped = x.unflatten(-1, (self.heads, -1)).movedim(-2, -3)
            return (matrix @ grouped).movedim(-3, -2).flatten(-2)

    def _kept(self, key: tuple[object, ...], like: Tensor, build: Callable[[], Tensor]) -> Tensor:
        """A matrix made once of wavelets; of other banks anew each time, since nothing tells when they change.

        A write to ``parameter.data``, as averages of weights are put in place, moves no counter of versions.
        """
        # in bf16 the filters' own products would make a matrix that is not quite inverted
        with no_autocast(like):
            banks: list[Any] = list(self.filter_banks)
            if not numbers_are_real() or any(type(bank) is not WaveletFilterBank for bank in banks):
                return build()
            taps = tuple(bank.taps for bank in banks)
            key = (*key, taps, like.dtype, like.device, torch.is_inference_mode_enabled())
            if key not in self._matrices:
                while len(self._matrices) >= MOST_KEPT:  # the oldest go, where many lengths come
                    del self._matrices[next(iter(self._matrices))]
                self._matrices[key] = build()
            return self._matrices[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_matrices": {}}  # they are made again

    def form(self, x: Tensor, lengths: Tensor | None = None, ragged: bool = False) -> str:
        """Which ``backend`` would take chunks like these, or their coefficients; arguments as of :meth:`forward`."""
        ragged = lengths is not None and (ragged or x.ndim == 3)
        if self.backend == "auto":
            if not self.linear or ragged:
                return "cascade"
            if x.shape[-2] < LONG:
                return "matrix"
            return "banded" if self._slides and self.heads == 1 else "cascade"
        if self.backend == "triton" and not kernels.available(x):
            raise ValueError(f"backend='triton' cannot run on {x.device}; allowed: CUDA, with triton installed")
        if ragged and self.backend != "cascade":
            raise ValueError(
                f"backend={self.backend!r} cannot run rows of {tuple(x.shape)} that each have a length of their own; "
                "allowed: 'auto' and 'cascade', or chunks (batch, chunks, chunk_length, dim)"
            )
        return self.backend

    def _check_banks(self) -> None:
        banks = self._cascade.banks
        if len({bank.heads for bank in banks}) > 1:
            raise ValueError(f"filter_bank: heads {[bank.heads for bank in banks]} differ; give every level the same")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r} is unknown; allowed: {', '.join(map(repr, BACKENDS))}")
        if self.backend in ("matrix", "banded", "triton") and not self.linear:
            raise ValueError(f"backend={self.backend!r} needs a linear bank; allowed: 'auto' and 'cascade'")
        if self.backend in ("banded", "triton") and self.heads > 1:
            raise ValueError(f"backend={self.backend!r} has heads={self.heads}; allowed: 1, or another backend")

    def _check_input(self, x: Tensor, lengths: Tensor | None, ragged: bool = False) -> None:
        if x.ndim not in (3, 4):
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}; "
                "allowed: (batch, chunks, chunk_length, dim) or (rows, chunk_length, dim)"
            )
        if x.shape[-1] % self.heads:
            raise ValueError(
                f"{type(self).__name__}: x has {x.shape[-1]} channels; allowed: a multiple of heads={self.heads}"
            )
        if not x.is_floating_point():
            raise TypeError(f"{type(self).__name__}: x has dtype {x.dtype}; allowed: floating point")
        if lengths is not None:
            check_lengths(type(self).__name__, lengths, tuple(x.shape[:-2]), x.shape[-2])
            if x.ndim == 4 and not ragged and values_are_at_hand(lengths):
                short = int(_short(lengths, x.shape[-2]).sum(-1).max())
                if short > 1:
                    raise ValueError(f"{type(self).__name__}: a row has {short} short chunks; allowed: one, its last")


class WaveletPackets1d(DWT1d):
    """Wavelet packets of chunks: every branch is split again at every level, so that all bands are equally wide.

    Bands come in order of frequency and are named by their path, such as ``"ad"``. As fast as :class:`DWT1d`: it is
    another matrix. (Coifman and Wickerhauser, 1992.)

    Args:
        filter_bank, level, backend: as in :class:`DWT1d`; there is no banded form.

    Example:
        >>> WaveletPackets1d("haar", level=2).layout(16).names
        ('aa', 'ad', 'dd', 'da')
    """

    _slides = False

    def _leaves(self, branches: list[int]) -> list[Path]:
        return packet_leaves(branches)

    def _check_banks(self) -> None:
        super()._check_banks()
        if self.backend in ("banded", "triton"):
            raise ValueError(f"backend={self.backend!r} has no packets; allowed: 'auto', 'matrix' and 'cascade'")


def _short(lengths: Tensor, chunk_length: int) -> Tensor:
    return (lengths > 0) & (lengths < chunk_length)
