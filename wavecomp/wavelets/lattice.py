"""OrthogonalFilterBank: a learnable orthogonal filter bank as a lattice of rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavecomp.compiling import plain_operations
from wavecomp.wavelets.filter_bank import FilterBank, check_heads, interleave, widened, zero_behind
from wavecomp.wavelets.taps import FilterTaps, Wavelet

LONGEST = 20  # taps; beyond it pywt's own rounding is magnified by the factorisation


class OrthogonalFilterBank(FilterBank):
    r"""A learnable orthogonal filter bank: exact at every length, whatever its parameters are.

    K = F / 2 layers of two-sample reflections, each acting on neighbours, the pairs shifted by one from layer to layer:

    .. math:: (u, v) \mapsto (a u + b v,\; b u - a v), \qquad a^2 + b^2 = 1

    An unpaired sample at either end passes. Every layer is orthogonal and its own inverse, so the bank is orthogonal
    too: at odd lengths and at the ends of short rows as well. With a vanishing moment the last layer has no angle of
    its own: its blocks send whatever the layers before make of a constant to the approximation. In the interior that
    is the angle that makes the sum of all pi / 4; at the ends it is what keeps constants out of the details.
    (Lattices: Vaidyanathan and Hoang, 1988.)

    Args:
        init: an orthogonal wavelet of at most 20 taps, where learning starts.
        vanishing_moments: 1 for details that are zero on constants, 0 to leave all angles free.
        heads: groups of neighbouring channels with angles of their own; must divide dim.

    Raises:
        ValueError: a wavelet that is not orthogonal or too long, other moments than 0 and 1, no heads.

    Example:
        >>> bank = OrthogonalFilterBank("db4")
        >>> x = torch.randn(2, 13, 3)
        >>> torch.allclose(bank.synthesis(bank.analysis(x)), x, atol=1e-5)
        True
    """

    def __init__(self, init: Wavelet = "db4", *, vanishing_moments: int = 1, heads: int = 1) -> None:
        super().__init__()
        if vanishing_moments not in (0, 1):
            raise ValueError(f"vanishing_moments={vanishing_moments} cannot be held; allowed: 0 and 1")
        angles = lattice_angles(init)
        if vanishing_moments and abs(math.remainder(sum(angles) - math.pi / 4, 2 * math.pi)) > 1e-3:
            raise ValueError(
                f"init={init!r} does not send constants to sqrt(2) times themselves, so that vanishing_moments=1 would "
                "change it; allowed: a low-pass filter that sums to sqrt(2), or vanishing_moments=0"
            )
        self.heads = check_heads(heads)
        self.vanishing_moments = vanishing_moments
        self.follows_constants = vanishing_moments == 1
        self.reach = len(angles) - 1
        self.angles = nn.Parameter(torch.tensor(angles[: len(angles) - vanishing_moments]).repeat(heads, 1))

    def extra_repr(self) -> str:
        return f"taps={2 * self.reach + 2}, vanishing_moments={self.vanishing_moments}, heads={self.heads}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None, ones: Tensor | None = None) -> tuple[Tensor, ...]:
        """As of :class:`FilterBank`; ``ones`` are ones unless given."""
        grouped = self._grouped(zero_behind(x, lengths))
        y = _reflect(grouped, self._layers(grouped, lengths, ones)).flatten(-2).to(x.dtype)
        return y[:, 0::2], y[:, 1::2]

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, ones: Tensor | None = None
    ) -> Tensor:
        y = interleave(*branches)
        grouped = self._grouped(zero_behind(y, lengths))
        layers = Layers(*(part.flip(0) for part in self._layers(grouped, lengths, ones)))
        return _reflect(grouped, layers).flatten(-2).to(y.dtype)

    def _grouped(self, x: Tensor) -> Tensor:
        """``(rows, length, heads, dim / heads)``, in at least the precision of the angles."""
        if x.shape[-1] % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={x.shape[-1]}")
        return widened(x, self.angles).unflatten(-1, (self.heads, -1))

    def _layers(self, grouped: Tensor, lengths: Tensor | None, ones: Tensor | None) -> Layers:
        angles = self.angles.to(grouped.dtype)
        if self.follows_constants:
            angles = torch.cat([angles, math.pi / 4 - angles.sum(-1, keepdim=True)], dim=-1)
        cos, sin = angles.cos().T[:, None, None, :, None], angles.sin().T[:, None, None, :, None]
        a, b = torch.cat([cos[:1], -sin[1:]]), torch.cat([sin[:1], cos[1:]])
        place = torch.arange(grouped.shape[1], device=grouped.device)
        first = (len(a) - 1 - torch.arange(len(a), device=grouped.device))[:, None] % 2
        partner = ((place + first) ^ 1) - first
        later = torch.maximum(partner, place)[:, None, :, None, None]
        length = grouped.shape[1] if lengths is None else lengths[:, None, None, None]
        paired = (partner >= 0)[:, None, :, None, None] & (later < length)
        leads = (partner > place)[:, None, :, None, None]
        layers = Layers(
            partner=partner.clamp(0, max(grouped.shape[1] - 1, 0)),
            own=torch.where(paired, torch.where(leads, a, -a), 1),
            other=torch.where(paired, b, 0),
        )
        if not self.follows_constants:
            return layers
        if ones is None:
            ones = grouped.new_ones(1, grouped.shape[1], self.heads)
        ones = zero_behind(ones, lengths).to(grouped.dtype)[..., None]
        return _following(layers, ones, paired[-1], leads[-1])


class Layers(NamedTuple):
    """Reflections, one after the other: ``y = own * x + other * x[partner]``.

    ``partner`` has shape ``(layers, length)``, ``own`` and ``other`` ``(layers, rows or 1, length, heads, 1)``.
    """

    partner: Tensor
    own: Tensor
    other: Tensor


def _following(layers: Layers, ones: Tensor, paired: Tensor, leads: Tensor) -> Layers:
    """The same layers, but for the last one: that sends what the others make of ``ones`` to the first of each pair.

    Args:
        paired, leads: which samples have a partner in the last layer, and which of them are the first of two.
    """
    mine = _reflect(ones, Layers(*(part[:-1] for part in layers)))
    theirs = mine.index_select(1, layers.partner[-1])
    power = mine.square() + theirs.square()
    # where nothing of a constant arrives, behind a row or in a detail, there is nothing to follow
    follows = paired & (power > 1e-12)
    norm = torch.where(follows, power, 1).sqrt()
    own = torch.where(follows, torch.where(leads, mine, -theirs) / norm, layers.own[-1])
    other = torch.where(follows, torch.where(leads, theirs, mine) / norm, layers.other[-1])
    rows = (max(layers.own.shape[1], own.shape[0]), -1, -1, -1)
    return Layers(
        partner=layers.partner,
        own=torch.cat([layers.own[:-1].expand(-1, *rows), own.expand(rows)[None]]),
        other=torch.cat([layers.other[:-1].expand(-1, *rows), other.expand(rows)[None]]),
    )


def _reflect(x: Tensor, layers: Layers) -> Tensor:
    """Layer after layer on ``(rows, length, heads, channels)``."""
    if plain_operations():
        return _reflect_plain(x, *layers)
    return _Reflections.apply(x, *layers)


def _reflect_plain(x: Tensor, partner: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """In operations that autograd knows, to any order."""
    for layer in zip(partner, own, other):
        x = _layer(x, *layer)
    return x


def _layer(x: Tensor, partner: Tensor, own: Tensor, other: Tensor) -> Tensor:
    return torch.addcmul(own * x, other, x.index_select(1, partner))


class _Reflections(torch.autograd.Function):
    """Keeps the last layer's output alone: a layer is its own inverse, so the others come again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, partner: Tensor, own: Tensor, other: Tensor) -> Tensor:
        y = _reflect_plain(x, partner, own, other)
        learned = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        ctx.save_for_backward(x, partner, own, other, *([y] if learned else []))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, partner, own, other, *y = ctx.saved_tensors
        if torch.is_grad_enabled():
            # aliases: what a layer may owe to x must not enter the gradient of x twice
            x, own, other = (operand.view_as(operand) for operand in (x, own, other))
            wanted = [t for t, needed in zip((x, partner, own, other), ctx.needs_input_grad) if needed]
            plain = _reflect_plain(x, partner, own, other)
            found = iter(torch.autograd.grad(plain, wanted, grad, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        if not y:
            return _reflect_plain(grad, partner.flip(0), own.flip(0), other.flip(0)), None, None, None
        # the outputs on their way back and their gradients go through the same layers, side by side
        channels = grad.shape[-1]
        pair = torch.cat([*y, grad], dim=-1)
        of_own, of_other = torch.empty_like(own), torch.empty_like(other)
        for k in reversed(range(len(partner))):
            over, pair = pair[..., channels:], _layer(pair, partner[k], own[k], other[k])
            below = pair[..., :channels]
            of_own[k] = (over * below).sum_to_size(own[k].shape)
            of_other[k] = (over * below.index_select(1, partner[k])).sum_to_size(other[k].shape)
        return pair[..., channels:], None, of_own, of_other


def lattice_angles(wavelet: Wavelet) -> list[float]:
    """The lattice's angles from an orthogonal wavelet's taps: one rotation a step shortens both filters by two taps.

    Example:
        >>> [round(angle / math.pi * 12, 6) for angle in lattice_angles("db2")]
        [10.0, -7.0]
    """
    taps = FilterTaps.of(wavelet)
    if not taps.orthogonal or len(taps) > LONGEST:
        raise ValueError(
            f"init={wavelet!r} has {len(taps)} taps and is {'' if taps.orthogonal else 'not '}orthogonal; "
            f"allowed: orthogonal wavelets of at most {LONGEST} taps, such as 'haar', 'db4' or 'sym8'"
        )
    if taps.mirrored(1e-6) != 1:
        raise ValueError(
            f"init={wavelet!r} has a dec_hi that is not (-1)^(n+1) dec_lo[-1-n], which a lattice always has; "
            "allowed: the mirror image, as in pywt's wavelets"
        )
    low = list(taps.rec_lo)
    high = [(-1) ** n * tap for n, tap in enumerate(reversed(low))]
    angles = []
    while len(low) > 2:
        angle = math.atan2(-low[0], high[0])
        c, s = math.cos(angle), math.sin(angle)
        low, high = (
            [c * h + s * g for h, g in zip(low, high)][2:],
            [c * g - s * h for h, g in zip(low, high)][:-2],
        )
        angles.append(angle)
    return [math.atan2(low[1], low[0]), *reversed(angles)]
