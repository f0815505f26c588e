"""BestBasis1d: wavelet packets whose tree every chunk cuts for itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from wavecomp.bands import BandLayout, Bands
from wavecomp.compiling import constant_numbers, numbers_are_real
from wavecomp.records import check_type
from wavecomp.wavelets.filter_bank import FilterBank, zero_behind
from wavecomp.wavelets.layers import LONG, WaveletPackets1d
from wavecomp.wavelets.packets import COSTS
from wavecomp.wavelets.taps import Wavelet
from wavecomp.wavelets.tree import Cascade, Path, dwt_leaves, packet_leaves


class BestBasis1d(WaveletPackets1d):
    r"""Wavelet packets of chunks, in the cheapest basis that a packet tree holds, chosen by each chunk for itself.

    In order of frequency every node covers the places of the nodes below it, at any chunk length. So a basis is one
    level per place, the same all over a node, and the coefficients are those of that level: a tone is split down to
    narrow bands, a click stays in wide ones. The approximation is always split down to ``level``: the first
    coefficients of every chunk are those of :class:`DWT1d`'s cA_level, which pruners keep.

    A node stays whole where it costs less than the best of the nodes below it together; where both cost the same, up
    to rounding, it is split, and so is a silent chunk all over. Costs add over coefficient vectors v, each of which is
    to be one code. With :math:`p = |v|^2 / E` the share of the chunk's energy E, and N the chunk's samples,

    - ``"shannon"``: :math:`-p \log p`, which asks for few vectors that hold everything,
    - ``"log_energy"``: :math:`\log(1 + 10^6 N p)`, the logarithm of the energy above a floor 60 dB below the mean,
    - ``"l1"``: :math:`\sqrt p`, the norms of the vectors.

    The choice has no gradient, the coefficients have. Costs compare fairly where the bank is orthogonal or nearly so.
    (Coifman and Wickerhauser, 1992.)

    Args:
        filter_bank: as in :class:`DWT1d`, learnable and non-linear ones too.
        level: of the deepest nodes; at most ``floor(log2(chunk_length))`` of the chunks that come.
        cost: ``"shannon"``, ``"log_energy"`` or ``"l1"``.

    Raises:
        ValueError: an unknown cost, and whatever :class:`DWT1d` refuses.

    Example:
        >>> t = torch.arange(16)
        >>> click, tone = (t == 5).float(), torch.cos(torch.pi * t)
        >>> transform = BestBasis1d("haar", level=3)
        >>> bands = transform(torch.stack([click, tone])[..., None])
        >>> [bands.layout.names[row[-1]] for row in bands.layout.band]
        ['d', 'daa']
        >>> torch.allclose(transform.inverse(bands)[1, :, 0], tone, atol=1e-6)
        True
    """

    def __init__(
        self, filter_bank: Wavelet | FilterBank | Sequence[Wavelet | FilterBank], *, level: int, cost: str = "shannon"
    ) -> None:
        if cost not in COSTS:
            raise ValueError(f"cost={cost!r} is unknown; allowed: {', '.join(map(repr, COSTS))}")
        super().__init__(filter_bank, level=level)
        self.cost = cost
        self._branches = [bank.branches for bank in self._cascade.banks]
        self._paths = [packet_leaves(self._branches[:depth]) for depth in range(level + 1)]
        self._nodes = {name[:depth] for name in self._names for depth in range(1, level)}.union(self._names)
        # those of a cascade are a basis of the tree, too
        self._of_dwt = [Cascade(self._initial.banks, dwt_leaves(self._branches[:n])).names for n in range(1, level + 1)]
        self._tables: dict[tuple[int, torch.device], tuple[BandLayout, list[Tensor]]] = {}

    def extra_repr(self) -> str:
        return f"level={self.level}, cost={self.cost!r}"

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, ragged: bool = False) -> Bands:
        """Analysis, each chunk in its own basis.

        Args:
            x, lengths, ragged: as in :class:`DWT1d`.

        Returns:
            :class:`Bands` with ``values`` of x's shape in order of frequency. Their layout has fields of the shape
            ``(batch, chunks, coefficients)``, or ``(rows, coefficients)``; its ``names`` are the paths of all nodes of
            the tree, its ``counts`` theirs.
        """
        self._check_input(x, lengths, ragged)
        length = x.shape[-2]
        self.check_length(length)
        x = zero_behind(x, lengths)
        levels = self._in_form(
            x, lengths, length, self._split, lambda y, form: self._product(self._analysis_matrix(length, y), y), ragged
        ).unflatten(-2, (self.level, length))
        table, members = self._table(length, x.device)
        row = cheapest(self._costs(levels.detach(), x.detach(), lengths), table.band, members, self._branches)
        index = row[..., None, :, None].expand(*x.shape[:-2], 1, *x.shape[-2:])
        return Bands(
            values=levels.gather(-3, index).squeeze(-3),
            lengths=lengths if lengths is not None else torch.full(x.shape[:-2], length, device=x.device),
            layout=_chosen(table, row),
            dense=lengths is None,
            ragged=ragged,
        )

    def inverse(self, bands: Bands, to_level: int = 0) -> Tensor:
        """Synthesis, each chunk from the basis that its layout names; ``to_level`` as in :class:`DWT1d`.

        Raises:
            ValueError: a level that is not there, or bands of a tree that has nodes which this one has not.
        """
        if not 0 <= to_level <= self.level:
            raise ValueError(f"to_level={to_level} is out of range; allowed: 0 to {self.level}")
        check_type("bands", bands, Bands)
        names = bands.layout.names
        if names not in self._of_dwt and not self._nodes.issuperset(names):
            raise ValueError(
                f"BestBasis1d: bands are {', '.join(names)}; allowed: nodes of a tree of level={self.level}, or the "
                f"bands {', '.join(self._of_dwt[-1])}"
            )
        length = bands.layout.length
        coefficients = -(-length // self.rates[to_level])
        values = bands.values if bands.dense else torch.where(bands.mask[..., None], bands.values, 0)
        values = values[..., :coefficients, :]
        chosen = bands.layout.level[..., :coefficients].expand(values.shape[:-1])
        if to_level == self.level:
            return values

        def step_by_step(values: Tensor, chosen: Tensor, lengths: Tensor | None) -> Tensor:
            keep = lambda depth, merged: torch.where((chosen <= depth)[..., None], values, merged)  # noqa: E731
            return self._merge(values, length, lengths, to_level, keep)

        lengths = None if bands.dense else bands.lengths
        if self.form(values, lengths, bands.ragged) == "cascade":
            rows = None if lengths is None else lengths.flatten()
            return step_by_step(values.flatten(0, -3), chosen.flatten(0, -2), rows).view_as(values)
        depths = torch.arange(self.level, to_level, -1, device=values.device)[:, None]
        apart = torch.where((chosen[..., None, :] == depths)[..., None], values[..., None, :, :], 0).flatten(-3, -2)
        y = self._product(self._synthesis_matrix(length, values, to_level), apart)
        if lengths is None or not values.shape[1]:
            return y
        # as in analysis: the chunk of each row that is short goes step by step
        row = torch.arange(values.shape[0], device=values.device)
        tail = ((lengths > 0) & (lengths < length)).int().argmax(-1)
        short = step_by_step(values[row, tail], chosen[row, tail], lengths[row, tail])
        return y.index_put((row, tail), short.to(y.dtype))

    def inverse_levels(self, bands: Bands) -> Tensor:
        return torch.cat([self.inverse(bands, level) for level in range(self.level, -1, -1)], dim=-2)

    def _analysis_matrix(self, chunk_length: int, like: Tensor) -> Tensor:
        """``(level * chunk_length, chunk_length)``: the packets of every level, the deepest first, per head if many."""

        def build() -> Tensor:
            columns = self._split(self._units(chunk_length, like), None)[0].unflatten(-1, (self.heads, -1))
            return columns.movedim(-2, 0).squeeze(0).to(like.dtype)

        return self._kept(("analysis", chunk_length), like, build)

    def _synthesis_matrix(self, chunk_length: int, like: Tensor, to_level: int = 0) -> Tensor:
        """The inverses of the same levels side by side, as far as they lie under the approximation of ``to_level``."""

        def build() -> Tensor:
            units = self._units(-(-chunk_length // self.rates[to_level]), like)
            # each level's own unit signals join the deeper ones on the way up
            rows = self._merge(units, chunk_length, None, to_level, lambda _, merged: torch.cat([merged, units]))
            return rows.unflatten(-1, (self.heads, -1)).permute(2, 1, 0, 3).flatten(-2).squeeze(0).to(like.dtype)

        return self._kept(("synthesis", chunk_length, to_level), like, build)

    @property
    def bands(self) -> int:
        return sum(map(len, self._paths[1:]))  # a chunk may choose nodes of any level

    def layout(self, chunk_length: int, device: torch.device | str | None = None) -> BandLayout:
        """What each coefficient is where the whole tree is split down to ``level``, as it is in a silent chunk.

        Its bands are the first of those that the layouts of chunks name, the approximation again band 0.
        """
        return super().layout(chunk_length, device)

    def layout_of(self, level: Tensor, chunk_length: int) -> BandLayout:
        """The tree in which coefficients have these levels; where a node holds none that is known, it is split."""
        table, members = self._table(chunk_length, level.device)
        row = torch.zeros_like(level)
        for above in range(1, self.level):
            known = torch.nn.functional.pad(level == self.level - above, (0, 1))
            whole = known[..., members[above]].sum(-1) > 0
            row = torch.where(whole[..., table.band[above] - table.band[above, :1]], above, row)
        return _chosen(table, row)

    def form(self, x: Tensor, lengths: Tensor | None = None, ragged: bool = False) -> str:
        # a matrix per level grows faster than the tree has nodes
        return "cascade" if self.backend == "auto" and x.shape[-2] >= LONG else super().form(x, lengths, ragged)

    def _split(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """``(rows, length, dim)`` to ``(rows, level * length, dim)``, the deepest level first."""
        constants = self._cascade.constants(x.shape[1], x, lengths)
        found: dict[Path, Tensor] = {(): x}
        for step, paths in enumerate(self._paths[:-1]):
            for path in paths:
                counts = None if lengths is None else self._cascade.count(path, lengths)
                ones = None if any(path) else constants[step]
                for branch, part in enumerate(self._cascade.analyse(step, found[path], counts, ones)):
                    found[(*path, branch)] = part
        return torch.cat([found[path] for paths in self._paths[:0:-1] for path in paths], dim=1)

    def _merge(
        self,
        values: Tensor,
        length: int,
        lengths: Tensor | None,
        to_level: int,
        joined: Callable[[int, Tensor], Tensor],
    ) -> Tensor:
        """From the deepest level up to ``to_level``; ``joined`` makes of what came up to a level what goes on up."""
        constants = self._cascade.constants(length, values, lengths)
        for step in range(self.level - 1, to_level - 1, -1):
            below = self._under(to_level, step + 1)
            parts = dict(zip(below, values.split([int(self._cascade.count(path, length)) for path in below], dim=1)))
            nodes = []
            for path in self._under(to_level, step):
                counts = None if lengths is None else self._cascade.count(path, lengths)
                ones = None if any(path) else constants[step]
                branches = [parts[(*path, branch)] for branch in range(self._branches[step])]
                nodes.append(self._cascade.synthesise(step, branches, counts, ones))
            values = torch.cat(nodes, dim=1)
            values = joined(step, values) if step > to_level else values
        return values

    def _under(self, to_level: int, level: int) -> list[Path]:
        """Paths of a level that go through the approximation of ``to_level``."""
        return [path for path in self._paths[level] if not any(path[:to_level])]

    def _units(self, size: int, like: Tensor) -> Tensor:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.eye(size, dtype=dtype, device=like.device).repeat(1, self.heads)[None]

    def _costs(self, levels: Tensor, x: Tensor, lengths: Tensor | None) -> Tensor:
        """``(..., level, length)``: what each coefficient vector costs; half precision is summed in single."""
        wide = torch.promote_types(x.dtype, torch.float32)
        # squares of what is very loud or quiet have no number
        peak = x.abs().amax((-2, -1), keepdim=True).to(wide).clamp_min(torch.finfo(wide).tiny)
        loudness = torch.linalg.vector_norm(x.to(wide) / peak, dim=(-2, -1))[..., None, None]
        norms = torch.linalg.vector_norm(levels.to(wide) / peak[..., None], dim=-1)
        norms = norms / loudness.clamp_min(torch.finfo(wide).tiny)
        if self.cost == "l1":
            return norms
        if self.cost == "shannon":
            return torch.special.entr(norms.square())
        samples = x.shape[-2] if lengths is None else lengths[..., None, None]
        return (1e6 * samples * norms.square()).log1p()

    def _table(self, length: int, device: torch.device) -> tuple[BandLayout, list[Tensor]]:
        """What a place is in each level, fields ``(level, length)``, and the places of each level's nodes."""
        if not numbers_are_real():
            return self._built_table(length, device)
        if (length, device) not in self._tables:
            self._tables[length, device] = self._built_table(length, device)
        return self._tables[length, device]

    def _built_table(self, length: int, device: torch.device) -> tuple[BandLayout, list[Tensor]]:
        layouts: list[BandLayout] = []
        names: list[str] = []
        counts: list[int] = []
        members: list[Tensor] = []
        deepest = self.layout(length).names
        positions = self._positions_at_levels(length)
        for level in range(self.level, 0, -1):
            tree = self._initial_tree(level)
            layout = tree.layout(length, positions[level - 1])
            layouts.append(layout.replace(band=layout.band + len(names), names=(), counts=()))
            # the first of the deepest nodes under a node has its path, and more
            step = math.prod(self._branches[level:])
            names += deepest if level == self.level else [name[:level] for name in deepest[::step]]
            counts += layout.counts
            members.append(_members(layout.counts).to(device))
        table: BandLayout = pytree.tree_map(lambda *columns: torch.stack(columns), *layouts)
        return table.replace(names=tuple(names), counts=tuple(counts)).to(device), members

    def _initial_tree(self, level: int) -> Cascade:
        return Cascade(self._initial.banks[:level], self._paths[level])

    @constant_numbers(torch.float32)
    def _positions_at_levels(self, length: int) -> Tensor:
        """``(level, length)``, the finest first."""
        return torch.stack([self._initial_tree(level).positions(length) for level in range(1, self.level + 1)])


def cheapest(costs: Tensor, band: Tensor, members: Sequence[Tensor], branches: Sequence[int]) -> Tensor:
    """The cheapest basis in which the approximation is split down to the deepest level, place by place.

    Bottom-up: a node stays whole where it costs less than the best of those below it together.

    Args:
        costs: ``(..., level, length)``, of each place at each level, the deepest first, in order of frequency.
        band: ``(level, length)``, the node that each place belongs to, counted through all levels.
        members: per level ``(nodes, width)``, the places of each node, and ``length`` where it has no more.
        branches: per level, the finest first.

    Returns:
        ``(..., length)`` integers: 0 where the deepest level is chosen, 1 for the one above it, and so on.

    Example:
        >>> costs = torch.tensor([[9.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 3.0]])  # of aa, ad, dd, da, and of a, a, d, d
        >>> band = torch.tensor([[0, 1, 2, 3], [4, 4, 5, 5]])
        >>> cheapest(costs, band, [torch.tensor([[0], [1], [2], [3]]), torch.tensor([[0, 1], [2, 3]])], [2, 2])
        tensor([0, 0, 1, 1])
    """
    rounding = 100 * torch.finfo(costs.dtype).eps
    padded = torch.nn.functional.pad(costs, (0, 1))
    best = padded[..., 0, members[0]].sum(-1)
    row = torch.zeros_like(costs[..., 0, :], dtype=torch.long)
    for above in range(1, len(members)):
        own = padded[..., above, members[above]].sum(-1)
        halves = best.unflatten(-1, (-1, branches[len(members) - above])).sum(-1)
        whole = own < halves - rounding * (1 + halves.abs())
        # the approximation never stays whole
        whole = whole & (torch.arange(own.shape[-1], device=own.device) > 0)
        best = torch.where(whole, own, halves)
        row = torch.where(whole[..., band[above] - band[above, :1]], above, row)
    return row


def _chosen(table: BandLayout, row: Tensor) -> BandLayout:
    """The layout of chunks whose places are each in this row of the table."""
    place = torch.arange(row.shape[-1], device=row.device)
    chosen: BandLayout = pytree.tree_map(lambda column: column[row, place], table)
    return chosen


def _members(counts: Sequence[int]) -> Tensor:
    """``(nodes, width)``: the places of each node, one node behind the other; ``sum(counts)`` where it has no more."""
    sizes, place = torch.tensor(counts)[:, None], torch.arange(max(counts))
    return torch.where(place < sizes, sizes.cumsum(0) - sizes + place, sum(counts))
