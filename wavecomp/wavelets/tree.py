"""The cascade: a filter bank applied level after level along a tree of branches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from wavecomp.bands import BandLayout
from wavecomp.wavelets.filter_bank import FilterBank

Path: TypeAlias = tuple[int, ...]  # branches from the signal down; 0 is the approximation
Count: TypeAlias = int | Tensor


class Cascade:
    """Banks, one per level, finest first, and the leaves of the tree that they split, coarse to fine.

    Every transform of chunks is this one, whatever fast form it takes. Shapes are ``(rows, length, dim)``.
    """

    def __init__(self, banks: Sequence[FilterBank], leaves: Sequence[Path]) -> None:
        self.banks, self.leaves = list(banks), list(leaves)

    def split(self, x: Tensor, lengths: Tensor | None = None, *, identity: bool = False) -> Tensor:
        """``(rows, length, dim)`` to as many coefficients, leaf after leaf.

        Args:
            identity: whether x are the unit signals, once per head; then their sum is the constant that banks follow.
        """
        constants = [] if identity else self.constants(x.shape[1], x, lengths)
        found: dict[Path, Tensor] = {}
        waiting: list[tuple[Path, Tensor, Count | None]] = [((), x, lengths)]
        while waiting:
            path, node, counts = waiting.pop()
            if path in self.leaves:
                found[path] = node
                continue
            ones = None
            if not any(path):
                ones = self._total(node) if identity else constants[len(path)]
            for branch, part in enumerate(self.analyse(len(path), node, counts, ones)):
                below = None if counts is None else self._count(counts, path, branch)
                waiting.append(((*path, branch), part, below))
        return torch.cat([found[path] for path in self.leaves], dim=1)

    def merge(self, values: Tensor, length: int, lengths: Tensor | None = None, to_level: int = 0) -> Tensor:
        """The inverse, from the coefficients under the approximation of ``to_level``.

        Args:
            values: ``(rows, coefficients, dim)``.
            length, lengths: of the signal, of each row, at level 0.
        """
        return self.approximations(values, length, lengths, to_level)[-1]

    def approximations(
        self, values: Tensor, length: int, lengths: Tensor | None = None, to_level: int = 0
    ) -> list[Tensor]:
        """All that the inverse comes by, ``(rows, nodes, dim)`` from the deepest level up to ``to_level``."""
        root = (0,) * to_level
        constants = self.constants(length, values, lengths)
        leaves = [path for path in self.leaves if path[:to_level] == root]
        parts = dict(zip(leaves, values.split([int(self.count(path, length)) for path in leaves], dim=1)))
        found = []

        def node(path: Path) -> Tensor:
            x = parts[path] if path in parts else merged(path)
            if not any(path):
                found.append(x)
            return x

        def merged(path: Path) -> Tensor:
            ones = None if any(path) else constants[len(path)]
            rows = None if lengths is None else self.count(path, lengths)
            branches = [node((*path, branch)) for branch in range(self.banks[len(path)].branches)]
            return self.synthesise(len(path), branches, rows, ones)

        node(root)
        return found

    def analyse(self, step: int, x: Tensor, lengths: Count | None, ones: Tensor | None) -> tuple[Tensor, ...]:
        """One level, by the bank of that step; ``ones`` goes to a bank that follows constants."""
        bank = self.banks[step]
        return bank.analysis(x, lengths, **({"ones": ones} if bank.follows_constants else {}))  # type: ignore[arg-type]

    def synthesise(self, step: int, branches: Sequence[Tensor], lengths: Count | None, ones: Tensor | None) -> Tensor:
        """The inverse of :meth:`analyse`."""
        bank = self.banks[step]
        return bank.synthesis(branches, lengths, **({"ones": ones} if bank.follows_constants else {}))  # type: ignore[arg-type]

    def count(self, path: Path, length: Count) -> Count:
        """Coefficients at the end of a path, of a signal of this length."""
        for step, branch in enumerate(path):
            length = self._count(length, path[:step], branch)
        return length

    def constants(self, length: int, like: Tensor, lengths: Tensor | None = None) -> list[Tensor | None]:
        """What each level's approximation of a constant one is, ``(1 or rows, samples, heads)``, where a bank asks."""
        if not any(bank.follows_constants for bank in self.banks):
            return [None] * len(self.banks)
        dtype = torch.promote_types(like.dtype, torch.float32)
        rows = 1 if lengths is None else lengths.shape[0]
        ones: Tensor | None = torch.ones(rows, length, self.banks[0].heads, dtype=dtype, device=like.device)
        out = []
        for step, bank in enumerate(self.banks):
            out.append(ones)
            # a bank that is no matrix has no response to carry on
            if ones is not None and bank.linear and step + 1 < len(self.banks):
                counts = None if lengths is None else self.count((0,) * step, lengths)
                ones = self.analyse(step, ones, counts, ones)[0]
            else:
                ones = None
        return out

    def matrix(self, length: int, like: Tensor) -> Tensor:
        """Analysis as ``(length, length)``, or ``(heads, length, length)``, in at least fp32."""
        return _of_heads(self.split(_identity(length, self.banks, like), identity=True), length)

    def inverse_matrix(self, length: int, like: Tensor, to_level: int = 0) -> Tensor:
        """Synthesis, square, of the approximation at ``to_level``."""
        size = int(self.count((0,) * to_level, length))
        return _of_heads(self.merge(_identity(size, self.banks, like), length, None, to_level), size)

    def approximation_matrix(self, length: int, like: Tensor) -> Tensor:
        """The matrices to every level one below the other, the deepest first: ``(nodes, length)``."""
        columns = self.approximations(_identity(length, self.banks, like), length)
        return _of_heads(torch.cat(columns, dim=1), length)

    def level_matrices(self, length: int, like: Tensor) -> list[Tensor]:
        """Each level's own square matrix, branch after branch, in at least fp32; one for each of several heads."""
        out = []
        for step, ones in enumerate(self.constants(length, like)):
            identity = _identity(int(self.count((0,) * step, length)), self.banks, like)
            columns = torch.cat(self.analyse(step, identity, None, ones), dim=1)
            out.append(_of_heads(columns, identity.shape[1]))
        return out

    def layout(self, length: int, position: Tensor) -> BandLayout:
        """What each coefficient of a signal of this length is; its position is given."""
        counts = [int(self.count(path, length)) for path in self.leaves]
        columns = []
        for band, (path, count) in enumerate(zip(self.leaves, counts)):
            rate, frequency, needs = 1, 0, torch.arange(count)
            for bank, branch in zip(self.banks, path):
                # behind a branch of odd order frequencies run backwards
                frequency = frequency * bank.branches + (bank.branches - 1 - branch if frequency % 2 else branch)
                rate *= bank.branches
            for bank, branch in zip(self.banks[: len(path)][::-1], path[::-1]):
                needs = needs * bank.branches + branch
            one = torch.ones(count, dtype=torch.float32)
            centre = (2 * frequency + 1) / (4 * rate)
            columns.append(
                (len(path) * one.long(), band * one.long(), torch.arange(count), needs + 1, rate * one, centre * one)
            )
        level, band_of, index, needed, support, frequencies = (torch.cat(column) for column in zip(*columns))
        return BandLayout(
            level=level,
            band=band_of,
            index=index,
            needs=needed,
            position=position,
            support=support,
            frequency=frequencies,
            names=self.names,
            counts=tuple(counts),
            length=length,
        )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def positions(self, length: int) -> Tensor:
        """The centroid of each squared row of the transform.

        Of a bank that wraps, in a signal that is cut open as far as can be from the samples that the row stands for;
        what then lies before the first sample, or behind the last, is put on that. The rows near both ends are looked
        at in a signal that is shorter by whole strides; those between are strides apart.
        """
        rate = math.prod([bank.branches for bank in self.banks])
        reach = max(bank.reach for bank in self.banks)
        ends = reach + 4
        short = min(length, length % rate + 2 * (ends + reach + 2) * rate)
        near = [_ends(int(self.count(path, short)), ends) for path in self.leaves]
        starts = [0, *itertools.accumulate(int(self.count(path, short)) for path in self.leaves)]
        power = self._rows(short, torch.cat([start + index for start, index in zip(starts, near)])).square()
        place = torch.arange(short, dtype=power.dtype).expand_as(power)
        if any(bank.wraps for bank in self.banks):
            strides = [self._stride(path) for path in self.leaves]
            own = torch.cat([stride * index + (stride - 1) / 2 for stride, index in zip(strides, near)])[:, None]
            place = own + (place - own + short / 2).remainder(short) - short / 2
        centre = ((power * place).sum(-1) / power.sum(-1)).clamp(0, short - 1)
        centre = torch.where(centre < short // 2, centre, centre + (length - short))
        found = centre.float().split([len(index) for index in near])
        return torch.cat([self._between(path, centre, length) for path, centre in zip(self.leaves, found)])

    def _rows(self, length: int, wanted: Tensor) -> Tensor:
        """Rows of the transform's matrix, ``(len(wanted), length)``, as gradients, whatever width a bank asks for."""
        dim = next((bank.dim for bank in self.banks if bank.dim is not None), self.banks[0].heads)
        x = torch.zeros(len(wanted), length, dim, dtype=torch.float64, requires_grad=True)
        outputs = self.split(x)[torch.arange(len(wanted)), wanted, 0]
        return torch.autograd.grad(outputs.sum(), x)[0][..., 0]

    def _between(self, path: Path, centre: Tensor, length: int) -> Tensor:
        """All positions of a band from those of its ends."""
        missing = int(self.count(path, length)) - len(centre)
        half = len(centre) // 2
        between = centre[half - 1] + self._stride(path) * torch.arange(1, missing + 1) if missing else centre[:0]
        return torch.cat([centre[:half], between, centre[half:]])

    def _stride(self, path: Path) -> int:
        """Samples from one coefficient of a band to the next."""
        return math.prod([bank.branches for bank in self.banks[: len(path)]])

    def _total(self, units: Tensor) -> Tensor | None:
        if not any(bank.follows_constants for bank in self.banks):
            return None
        return units.unflatten(-1, (self.banks[0].heads, -1)).sum(-1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bands, coarse to fine."""
        return tuple(self._name(path) for path in self.leaves)

    def _name(self, path: Path) -> str:
        level, last = len(path), path[-1]
        if any(any(leaf[:-1]) for leaf in self.leaves):  # packets
            return "".join("ad"[b] if bank.branches == 2 else str(b) for bank, b in zip(self.banks, path))
        if not last:
            return f"cA{level}"
        return f"cD{level}" if self.banks[level - 1].branches == 2 else f"cD{level}.{last}"

    def _count(self, length: Count, path: Path, branch: int) -> Count:
        return -(-(length - branch) // self.banks[len(path)].branches)


def dwt_leaves(branches: Sequence[int]) -> list[Path]:
    """Only the approximation is split again: ``[cA_n, cD_n, ..., cD_1]``."""
    leaves: list[Path] = [(0,) * len(branches)]
    for level in range(len(branches), 0, -1):
        leaves += [(*(0,) * (level - 1), branch) for branch in range(1, branches[level - 1])]
    return leaves


def packet_leaves(branches: Sequence[int]) -> list[Path]:
    """All branches are split again, in order of frequency."""
    leaves: list[Path] = [()]
    for count in branches:
        turned = [list(range(count))[:: -1 if place % 2 else 1] for place in range(len(leaves))]
        leaves = [(*path, branch) for path, order in zip(leaves, turned) for branch in order]
    return leaves


def _ends(count: int, most: int) -> Tensor:
    index = torch.arange(count)
    return index if count <= 2 * most else torch.cat([index[:most], index[-most:]])


def _identity(size: int, banks: Sequence[FilterBank], like: Tensor) -> Tensor:
    # built in at least fp32 and cast last: bf16 taps would cost exactness for nothing
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.eye(size, dtype=dtype, device=like.device).repeat(1, banks[0].heads)[None]


def _of_heads(columns: Tensor, size: int) -> Tensor:
    """``(1, coefficients, heads * size)`` to ``(heads, coefficients, size)``, without the first for one head."""
    return columns[0].unflatten(-1, (-1, size)).movedim(-2, 0).squeeze(0)
