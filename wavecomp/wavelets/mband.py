"""MBandFilterBank: a learnable paraunitary bank of more than two branches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavecomp.compiling import no_autocast
from wavecomp.records import check_count
from wavecomp.wavelets.filter_bank import FilterBank, check_heads, widened, zero_behind


class MBandFilterBank(FilterBank):
    r"""A learnable paraunitary filter bank of M branches, exact at every length.

    Groups of M samples go through

    .. math:: E(z) = V_N(z) \cdots V_1(z)\, E_0, \qquad V_i(z) = I - v_i v_i^T + z^{-1} v_i v_i^T, \quad |v_i| = 1

    with an orthogonal :math:`E_0` that begins as the DCT-II and keeps its first row, the mean, so that constants stay
    out of the details. Delays wrap around each row. Samples that fill no group go through a DCT-II of their own
    number. (Paraunitary factorisation: Vaidyanathan, Multirate Systems and Filter Banks, 1993, chapter 14.)

    Args:
        branches: M, 2 and above.
        order: N, delays; each filter is ``M * (N + 1)`` taps long.
        heads: groups of neighbouring channels with filters of their own; must divide dim.

    Raises:
        ValueError: less than 2 branches, a negative order, no heads.

    Example:
        >>> bank = MBandFilterBank(3)
        >>> x = torch.randn(2, 10, 4)
        >>> [b.shape[-2] for b in bank.analysis(x)], torch.allclose(bank.synthesis(bank.analysis(x)), x, atol=1e-5)
        ([4, 3, 3], True)
    """

    wraps = True

    def __init__(self, branches: int = 3, *, order: int = 1, heads: int = 1) -> None:
        super().__init__()
        check_count("branches", branches, least=2)
        check_count("order", order, least=0)
        self.branches, self.order, self.heads = branches, order, check_heads(heads)
        # delays wrap where the whole groups end, up to branches - 1 samples before a row does
        self.reach = order * branches + branches - 1
        # Cayley coordinates of what turns the details among themselves
        self.turn = nn.Parameter(torch.zeros(heads, branches - 1, branches - 1))
        # a delay of the last branch alone changes no filter's shape
        last = torch.eye(branches)[-1]
        self.delayed = nn.Parameter(last.repeat(heads, order, 1))

    def extra_repr(self) -> str:
        return f"branches={self.branches}, order={self.order}, heads={self.heads}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        groups, rows = self._groups(x, lengths)
        with no_autocast(x):
            mixed = _mix(self._first(groups), groups)
            for direction in self._directions(groups):
                mixed = _delay(mixed, direction, rows, 1)
            values = self._ends(groups, mixed, rows, inverse=False).to(x.dtype)
        sizes = [-(-(x.shape[1] - branch) // self.branches) for branch in range(self.branches)]
        return tuple(values[:, :size, branch] for branch, size in enumerate(sizes))

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, *, ones: Tensor | None = None
    ) -> Tensor:
        count = branches[0].shape[1]
        padded = [nn.functional.pad(b, (0, 0, 0, count - b.shape[1])) for b in branches]
        y = torch.stack(padded, dim=2).flatten(1, 2)[:, : sum(b.shape[1] for b in branches)]
        groups, rows = self._groups(y, lengths)
        mixed = groups
        with no_autocast(y):
            for direction in reversed(self._directions(groups)):
                mixed = _delay(mixed, direction, rows, -1)
            x = self._ends(groups, _mix(self._first(groups).mT, mixed), rows, inverse=True)
        return zero_behind(x.flatten(1, 2)[:, : y.shape[1]], lengths).to(y.dtype)

    def _groups(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(rows, groups, branches, dim)``, zero behind each row, and the rows' lengths."""
        if x.shape[-1] % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={x.shape[-1]}")
        wide = zero_behind(widened(x, self.turn), lengths)
        count = -(-x.shape[1] // self.branches)
        wide = nn.functional.pad(wide, (0, 0, 0, count * self.branches - x.shape[1]))
        if lengths is None:
            lengths = torch.full((1,), x.shape[1], device=x.device)
        return wide.unflatten(1, (count, self.branches)), lengths

    def _first(self, like: Tensor) -> Tensor:
        """E_0, ``(heads, branches, branches)``."""
        dtype = torch.promote_types(like.dtype, torch.float32)  # half precision cannot solve
        skew = self.turn.to(dtype)
        skew = skew - skew.mT
        eye = torch.eye(self.branches - 1, dtype=dtype, device=like.device)
        turn = torch.linalg.solve(eye - skew, eye + skew)
        dct = _dct(self.branches, dtype, like.device)
        return torch.cat([dct[:1].expand(self.heads, -1, -1), turn @ dct[1:]], dim=1).to(like.dtype)

    def _directions(self, like: Tensor) -> tuple[Tensor, ...]:
        """Each ``(heads, branches)``, of length one."""
        v = self.delayed.to(like.dtype)
        return (v / v.norm(dim=-1, keepdim=True)).unbind(1)

    def _ends(self, groups: Tensor, mixed: Tensor, lengths: Tensor, *, inverse: bool) -> Tensor:
        """The samples that fill no group, each row's last, through a DCT-II of their own number."""
        rest = [torch.zeros_like(_dct(self.branches, groups.dtype, groups.device)) for _ in range(self.branches)]
        for count in range(1, self.branches):
            rest[count][:count, :count] = _dct(count, groups.dtype, groups.device)
        own = torch.stack(rest)[lengths % self.branches]
        ends = (own.mT if inverse else own)[:, None] @ groups
        whole = (lengths // self.branches)[:, None]
        place = torch.arange(groups.shape[1], device=groups.device)
        return torch.where(
            (place < whole)[..., None, None], mixed, torch.where((place == whole)[..., None, None], ends, 0)
        )


def _mix(matrix: Tensor, groups: Tensor) -> Tensor:
    """``(heads, branches, branches)`` by ``(rows, groups, branches, dim)``."""
    heads = groups.unflatten(-1, (matrix.shape[0], -1))
    return torch.einsum("hbm,rgmhd->rgbhd", matrix, heads).flatten(-2)


def _delay(groups: Tensor, direction: Tensor, lengths: Tensor, by: int) -> Tensor:
    """What points along ``direction`` comes from the group before (``by`` 1) or after (-1), around each row."""
    spread = direction.T.repeat_interleave(groups.shape[-1] // direction.shape[0], 1)
    along = (groups * spread).sum(-2)
    whole = (lengths // groups.shape[2]).clamp(min=1)[:, None]
    source = (torch.arange(groups.shape[1], device=groups.device) - by).remainder(whole)
    moved = along.gather(1, source[..., None].expand(along.shape))
    return groups + (moved - along)[..., None, :] * spread


def _dct(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II, row k a cosine of k half periods."""
    k = torch.arange(size, dtype=torch.float64, device=device)
    rows = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    return torch.cat([rows[:1] / math.sqrt(2), rows[1:]]).to(dtype)
