"""Wavelet packets, and the best basis among all that a packet tree holds.

A wavelet transform splits its approximation again and again; a packet tree splits the details as well. Cutting the
tree anywhere gives a basis: a set of nodes that every way from the root to the bottom meets exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from wavecomp.records import Record, check_count, check_shape, record
from wavecomp.wavelets.extension import check_mode
from wavecomp.wavelets.taps import FilterTaps, Wavelet
from wavecomp.wavelets.transform import check_data, dwt, idwt

ORDERS = ("natural", "frequency")
COSTS = ("shannon", "log_energy", "l1")


@record
class Basis(Record):
    """Which nodes of a packet tree each row keeps.

    Args:
        kept: path -> bool ``(rows...)``, for every node of the tree; in each row the marked nodes are a basis.
        cost: ``(rows...)``, what the kept nodes cost together.
    """

    kept: dict[str, Tensor]
    cost: Tensor

    def __post_init__(self) -> None:
        for path, mark in self.kept.items():
            check_shape("Basis", f"kept[{path!r}]", mark, tuple(self.cost.shape))


@record
class WaveletPacket(Record):
    """A full packet tree; ``tree["ad"]`` is the detail of the approximation.

    Made by :func:`wavelet_packet`. As a pytree it maps: ``tree_map(shrink, tree)`` changes every node.

    Args:
        nodes: path -> ``(..., count, ...)``. ``""`` is the signal; each letter is a split, the first letter the first
            one, ``a`` for the approximation and ``d`` for the detail.
        taps, mode, axis: of the splits.
    """

    nodes: dict[str, Tensor]
    taps: FilterTaps
    mode: str
    axis: int

    static: ClassVar[tuple[str, ...]] = ("taps", "mode", "axis")

    def __post_init__(self) -> None:
        wanted = {path for level in range(self.level + 1) for path in self.paths(level)}
        if wanted != set(self.nodes):
            differing = sorted(wanted ^ set(self.nodes))
            raise ValueError(f"WaveletPacket: nodes lacks or should not have {differing}; allowed: a full tree")

    def __getitem__(self, path: str) -> Tensor:
        if path not in self.nodes:
            raise KeyError(f"{path!r} is not in this tree; allowed: words of 'a' and 'd' up to {self.level} letters")
        return self.nodes[path]

    @property
    def level(self) -> int:
        """Splits from the root to a leaf."""
        return max(map(len, self.nodes), default=0)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The nodes of the deepest level, in natural order."""
        return {path: self[path] for path in self.paths()}

    def paths(self, level: int | None = None, *, order: str = "natural") -> tuple[str, ...]:
        """The paths of one level, the deepest unless given.

        Args:
            order: ``"natural"`` sorts by letters; ``"frequency"`` by the nodes' pass bands: a detail is a band turned
                upside down, so the halves of what lies below it trade places (a Gray code).

        Example:
            >>> wavelet_packet(torch.randn(8), "haar", level=2).paths(order="frequency")
            ('aa', 'ad', 'dd', 'da')
        """
        level = self.level if level is None else level
        if not 0 <= level <= self.level:
            raise ValueError(f"level={level} is not in this tree; allowed: 0 to {self.level}")
        if order not in ORDERS:
            raise ValueError(f"order={order!r} is unknown; allowed: {', '.join(map(repr, ORDERS))}")
        paths = [""]
        for _ in range(level):
            below_detail = paths if order == "natural" else paths[::-1]
            paths = ["a" + path for path in paths] + ["d" + path for path in below_detail]
        return tuple(paths)

    def inverse(self, leaves: Mapping[str, Tensor] | None = None, *, basis: Basis | None = None) -> Tensor:
        """The signal, at exactly its length.

        Args:
            leaves: path -> coefficients of the node's shape, the tree's deepest level unless given. The paths may be
                any basis: every way from the root to the bottom meets exactly one of them.
            basis: instead of ``leaves``, lets each row take the nodes of this tree that the basis keeps.

        Raises:
            ValueError: paths that overlap, leave a gap or are not in the tree, shapes that differ, a basis of another
                tree, or both arguments.

        Example:
            >>> x = torch.randn(2, 33)
            >>> tree = wavelet_packet(x, "db2", level=2)
            >>> torch.allclose(tree.inverse({p: tree[p] for p in ("aa", "ad", "d")}), x, atol=1e-5)
            True
        """
        if basis is not None:
            if leaves is not None:
                raise ValueError("WaveletPacket.inverse: leaves and basis are both given; allowed: one of them")
            return self._inverse_by_row(basis)
        leaves = self.leaves if leaves is None else leaves
        self._check_leaves(leaves)

        def rebuilt(path: str) -> Tensor:
            return leaves[path] if path in leaves else self._joined(path, rebuilt)

        return rebuilt("")

    def _inverse_by_row(self, basis: Basis) -> Tensor:
        if basis.kept.keys() != self.nodes.keys():
            raise ValueError(
                f"WaveletPacket.inverse: the basis marks {len(basis.kept)} nodes, the tree has {len(self.nodes)}; "
                "allowed: a basis of a tree of the same level"
            )
        axes = _cost_axes(self)
        rows = tuple(size for axis, size in enumerate(self[""].shape) if axis not in axes)
        check_shape("WaveletPacket.inverse", "basis.cost", basis.cost, rows)

        def rebuilt(path: str) -> Tensor:
            if len(path) == self.level:
                return self[path]
            kept = basis.kept[path]
            for axis in axes:
                kept = kept.unsqueeze(axis)
            return torch.where(kept, self[path], self._joined(path, rebuilt))

        return rebuilt("")

    def _joined(self, path: str, rebuilt: Callable[[str], Tensor]) -> Tensor:
        length = self[path].shape[self.axis]
        children = rebuilt(path + "a"), rebuilt(path + "d")
        return idwt(*children, self.taps, mode=self.mode, axis=self.axis, length=length)

    def _check_leaves(self, leaves: Mapping[str, Tensor]) -> None:
        split = {path[:letters] for path in leaves for letters in range(len(path))}
        for path, values in leaves.items():
            if path not in self.nodes:
                raise ValueError(
                    f"leaves: {path!r} is not in this tree; allowed: words of 'a' and 'd' up to {self.level} letters"
                )
            if path in split:
                under = next(other for other in leaves if other != path and other.startswith(path))
                raise ValueError(f"leaves: {under!r} and {path!r} overlap; allowed: one node on each way down")
            check_shape("WaveletPacket.inverse", f"leaves[{path!r}]", values, tuple(self[path].shape))
        reached = {path + letter for path in split for letter in "ad"} or {""}
        missing = sorted(reached - split - leaves.keys())
        if missing:
            raise ValueError(
                f"leaves: {missing[0]!r} is missing, with all below it; allowed: one node on each way down"
            )


def wavelet_packet(
    data: Tensor, wavelet: Wavelet, *, level: int, mode: str = "symmetric", axis: int = -1
) -> WaveletPacket:
    """The full packet tree of a signal: every node down to ``level``, with pywt's numbers and paths.

    Args:
        data: ``(..., length, ...)``, floating point.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        level: splits from the root to a leaf; at 0 the tree is the signal alone.

    Returns:
        A :class:`WaveletPacket` of ``2 ** (level + 1) - 1`` nodes, the signal among them.

    Raises:
        ValueError: a negative level, and whatever :func:`dwt` refuses.
        TypeError: data that is not floating point.

    Example:
        >>> tree = wavelet_packet(torch.randn(2, 64, 3), "haar", level=3, axis=-2)
        >>> tree["aad"].shape, len(tree.leaves)
        (torch.Size([2, 8, 3]), 8)
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    check_data(data, axis)
    check_count("level", level, least=0)
    nodes = {"": data}
    paths = [""]
    for _ in range(level):
        for path in paths:
            nodes[path + "a"], nodes[path + "d"] = dwt(nodes[path], taps, mode=mode, axis=axis)
        paths = [path + letter for path in paths for letter in "ad"]
    return WaveletPacket(nodes=nodes, taps=taps, mode=mode, axis=axis)


def best_basis(tree: WaveletPacket, *, cost: str = "shannon") -> Basis:
    r"""The cheapest basis of a packet tree, for each row its own.

    Bottom-up: a node stays whole where its own cost is at most what the best of its two halves cost together. So every
    basis in the tree is compared without being listed, without a wait for the device, for all rows at once. Costs add
    over coefficients x, which are all those of a row: along the transformed axis and along the last one. With p the
    share :math:`x^2 / E` of the row's energy E, and N the samples of the row,

    - ``"shannon"``: :math:`-p \log p`, which asks for few coefficients that hold everything,
    - ``"log_energy"``: :math:`\log(1 + 10^6 N p)`, the logarithm of the energy above a floor 60 dB below the mean,
    - ``"l1"``: :math:`|x|`.

    Counting energy is fair to all nodes when the tree neither adds nor loses any: an orthogonal wavelet with
    ``mode="periodization"`` and lengths that stay even.

    Args:
        tree: of data ``(rows..., length)``, or with ``axis=-2`` ``(rows..., length, dim)``.
        cost: ``"shannon"``, ``"log_energy"`` or ``"l1"``.

    Returns:
        A :class:`Basis` over ``(rows...)``; give it to :meth:`WaveletPacket.inverse`.

    Raises:
        ValueError: an unknown cost.

    After Coifman and Wickerhauser, "Entropy-based algorithms for best basis selection", IEEE Transactions on
    Information Theory 38(2), 1992.

    Example:
        >>> click = torch.zeros(1, 16).index_fill(1, torch.tensor([5]), 1.0)
        >>> tree = wavelet_packet(click, "haar", level=3, mode="periodization")
        >>> bool(best_basis(tree).kept[""])  # nothing is more compact than the click itself
        True
    """
    if cost not in COSTS:
        raise ValueError(f"cost={cost!r} is unknown; allowed: {', '.join(map(repr, COSTS))}")
    own = _cost_of(tree, cost)
    best, whole = {}, {}
    for path in tree.paths():
        best[path] = own(tree[path])
        whole[path] = torch.ones_like(best[path], dtype=torch.bool)
    for level in reversed(range(tree.level)):
        for path in tree.paths(level):
            alone, halves = own(tree[path]), best[path + "a"] + best[path + "d"]
            whole[path] = alone <= halves
            best[path] = torch.where(whole[path], alone, halves)
    kept, reached = {}, {"": torch.ones_like(whole[""])}
    for level in range(tree.level + 1):
        for path in tree.paths(level):
            kept[path] = reached[path] & whole[path]
            reached[path + "a"] = reached[path + "d"] = reached[path] & ~whole[path]
    return Basis(kept=kept, cost=best[""])


def _cost_of(tree: WaveletPacket, cost: str) -> Callable[[Tensor], Tensor]:
    """Node -> its cost in each row; half precision is summed in single."""
    axes = _cost_axes(tree)
    root = tree[""]
    wide = torch.promote_types(root.dtype, torch.float32)
    root, tiny = root.to(wide), torch.finfo(wide).tiny
    samples = math.prod([root.shape[axis] for axis in axes])
    # in units of the largest sample, so that squares neither overflow nor vanish; then only silence has less than 1
    peak = root.detach().abs().amax(axes, keepdim=True).clamp_min(tiny)
    energy = (root / peak).square().sum(axes, keepdim=True).clamp_min(1)

    def own(node: Tensor) -> Tensor:
        if cost == "l1":
            return node.to(wide).abs().sum(axes)
        share = (node.to(wide) / peak).square() / energy
        if cost == "shannon":
            return -(share * share.clamp_min(tiny).log()).sum(axes)
        return (share * (1e6 * samples)).log1p().sum(axes)

    return own


def _cost_axes(tree: WaveletPacket) -> tuple[int, ...]:
    dims = tree[""].ndim
    return tuple(sorted({tree.axis % dims, dims - 1}))
