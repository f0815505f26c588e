"""Lifting: filter banks made of predictions and updates, exact at any length whatever predicts and updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.compiling import no_autocast
from wavecomp.records import check_count
from wavecomp.wavelets.filter_bank import FilterBank, check_heads, interleave, widened, zero_behind
from wavecomp.wavelets.taps import FilterTaps, Wavelet

Count: TypeAlias = int | Tensor  # samples of a half: a number, or (rows, 1)


class Step(NamedTuple):
    """One lifting step: ``sum_k taps[k] * source[n + first + k]`` is added to the other half.

    ``into`` is 0 for an update of the approximation from the details, 1 for a prediction of the details.
    """

    into: int
    first: int
    taps: tuple[float, ...]


class Scheme(NamedTuple):
    """Lifting steps, and what the approximation and the details are scaled by at the end."""

    steps: tuple[Step, ...]
    scale: tuple[float, float]


def _nine_seven() -> Scheme:
    a, b, c, d = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
    kappa = 1.149604398860241
    steps = (Step(1, 0, (a, a)), Step(0, -1, (b, b)), Step(1, 0, (c, c)), Step(0, -1, (d, d)))
    return Scheme(steps, (kappa, -1 / kappa))


_R2, _R3 = math.sqrt(2), math.sqrt(3)
# Steps of a single tap are given a neighbour on either side, so that their constraint leaves something to learn.
# Details have pywt's sign. (Daubechies and Sweldens, 1998.)
SCHEMES = {
    "haar": Scheme((Step(1, -1, (0.0, -1.0, 0.0)), Step(0, -1, (0.0, 0.5, 0.0))), (_R2, -1 / _R2)),
    "db2": Scheme(
        (
            Step(0, -1, (0.0, _R3, 0.0)),
            Step(1, -1, ((2 - _R3) / 4, -_R3 / 4)),
            Step(0, 0, (0.0, -1.0, 0.0)),
        ),
        ((_R3 - 1) / _R2, -(_R3 + 1) / _R2),
    ),
    "bior2.2": Scheme((Step(1, 0, (-0.5, -0.5)), Step(0, -1, (0.25, 0.25))), (_R2, -1 / _R2)),
    "bior4.4": _nine_seven(),
}
SCHEMES["db1"] = SCHEMES["haar"]


def _scheme_of(init: Wavelet) -> str:
    """The name of the scheme for a wavelet."""
    if isinstance(init, str):
        found: str | None = init.lower()
    else:
        taps = FilterTaps.of(init)
        found = next((name for name in SCHEMES if FilterTaps.of(name) == taps), None)
    if found not in SCHEMES:
        told = getattr(init, "name", init)
        raise ValueError(f"init={told!r} has no lifting scheme here; allowed: {', '.join(map(repr, SCHEMES))}")
    return found


class LiftingFilterBank(FilterBank):
    """A learnable biorthogonal filter bank in lifting steps.

    A signal is split into its even samples e and odd samples o; each step adds to one half a filtered copy of the
    other, ``d = o - P(e)``, ``s = e + U(d)``; the inverse subtracts the same in reverse order. Beyond either end of a
    row its outermost sample goes on. The taps of every step are learned, but for their sum, which stays what it was:
    so constants stay out of the details, and the approximation keeps the mean, away from the ends of a row.
    (Lifting: Sweldens, 1996.)

    Args:
        init: where learning starts: ``"haar"``, ``"db2"``, ``"bior2.2"`` (5/3) or ``"bior4.4"`` (9/7), by name or as a
            ``pywt.Wavelet`` or :class:`FilterTaps`.
        heads: groups of neighbouring channels with taps of their own; must divide dim.

    Raises:
        ValueError: another init, or no heads.

    Example:
        >>> bank = LiftingFilterBank("bior4.4")
        >>> x = torch.randn(2, 13, 3)
        >>> torch.allclose(bank.synthesis(bank.analysis(x)), x, atol=1e-5)
        True
    """

    def __init__(self, init: Wavelet = "bior2.2", *, heads: int = 1) -> None:
        super().__init__()
        self.init, self.heads = _scheme_of(init), check_heads(heads)
        self.scheme = SCHEMES[self.init]
        self.reach = 2 * sum(max(-step.first, step.first + len(step.taps) - 1) for step in self.scheme.steps)
        # what is learned is added to the taps of each step, less its mean
        self.free = nn.ParameterList(torch.zeros(heads, len(step.taps)) for step in self.scheme.steps)

    def extra_repr(self) -> str:
        return f"init={self.init!r}, steps={len(self.scheme.steps)}, heads={self.heads}"

    def analysis(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        halves, counts = self._halves(x, lengths)
        for number, step in enumerate(self.scheme.steps):
            halves[step.into] = halves[step.into] + self._lift(number, halves, counts)
        return tuple(half.to(x.dtype) for half in _scaled(halves, counts, self.scheme.scale))

    def synthesis(
        self, branches: Sequence[Tensor], lengths: Tensor | None = None, *, ones: Tensor | None = None
    ) -> Tensor:
        y = interleave(*branches)
        halves, counts = self._halves(y, lengths)
        halves = _scaled(halves, counts, [1 / scale for scale in self.scheme.scale])
        for number, step in reversed(list(enumerate(self.scheme.steps))):
            halves[step.into] = halves[step.into] - self._lift(number, halves, counts)
        return zero_behind(interleave(*halves), lengths).to(y.dtype)

    def _halves(self, x: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], list[Count]]:
        """Even and odd samples, in at least the precision of the taps, and how many of each a row has."""
        if x.shape[-1] % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={x.shape[-1]}")
        if self.dim is not None and x.shape[-1] != self.dim:
            raise ValueError(f"dim={x.shape[-1]} channels came to a bank of dim={self.dim}")
        x = zero_behind(widened(x, self.free[0]), lengths)
        n: Count = x.shape[1] if lengths is None else lengths[:, None]
        return [x[:, 0::2], x[:, 1::2]], [(n + 1) // 2, n // 2]

    def _lift(self, number: int, halves: list[Tensor], counts: list[Count]) -> Tensor:
        """What step ``number`` adds: the shape of the half that it adds to."""
        step = self.scheme.steps[number]
        target, source, count = halves[step.into], halves[1 - step.into], counts[1 - step.into]
        if not source.shape[1]:
            return torch.zeros_like(target)
        added = self._filtered(number, _window(step, source, target.shape[1], count))
        return added if isinstance(count, int) else torch.where((count > 0)[..., None], added, 0)

    def _filtered(self, number: int, window: Tensor) -> Tensor:
        """``(rows, places, taps, dim)`` to ``(rows, places, dim)``."""
        free = self.free[number].to(window.dtype)
        # the sum of a step's taps is kept: what is learned has no mean
        taps = free - free.mean(-1, keepdim=True) + free.new_tensor(self.scheme.steps[number].taps)
        return (window * taps.repeat_interleave(window.shape[-1] // self.heads, 0).T).sum(-2)


def _window(step: Step, source: Tensor, places: int, count: Count) -> Tensor:
    """``(rows, places, taps, dim)``: the samples of the other half that each place reads, held within its row."""
    taps = len(step.taps)
    index = torch.arange(places, device=source.device)[:, None] + torch.arange(taps, device=source.device) + step.first
    if isinstance(count, int):
        return source[:, index.clamp(0, count - 1)]
    index = torch.minimum(index.flatten().clamp(min=0), (count - 1).clamp(min=0))
    return source.gather(1, index[..., None].expand(-1, -1, source.shape[-1])).unflatten(1, (places, taps))


def _scaled(halves: list[Tensor], counts: list[Count], scale: Sequence[float]) -> list[Tensor]:
    """Zero behind each row. A row of a single sample passes as it is."""
    low, high = halves
    if isinstance(counts[1], int) or isinstance(counts[0], int):
        return [low * scale[0], high * scale[1]] if counts[1] else halves
    low = torch.where((counts[1] > 0)[..., None], low * scale[0], low)
    return [zero_behind(low, counts[0][:, 0]), zero_behind(high * scale[1], counts[1][:, 0])]


class NeuralLiftingFilterBank(LiftingFilterBank):
    """A filter bank that looks at what it filters: lifting steps with a small network beside the linear taps.

    Each step adds to the linear filter ``W (tanh(U window) * V differences)``, in which the window are a few
    neighbouring samples of the other half and the differences those between them, all channels together; a gate per
    step starts at zero. It is non-linear and depends on the input, and still exactly invertible, since the inverse
    sees the same other half. The differences keep constants out of the details, and as the weights that content puts
    on them are bounded, loud input is not amplified beyond what rounding can undo.

    Args:
        init: as in :class:`LiftingFilterBank`.
        dim: channels.
        hidden: width of the networks, ``dim / 4``, at least 4, unless given.

    Raises:
        ValueError: a width below 1, and whatever :class:`LiftingFilterBank` refuses.

    Example:
        >>> bank = NeuralLiftingFilterBank(dim=8)
        >>> x = torch.randn(2, 13, 8)
        >>> torch.allclose(bank.synthesis(bank.analysis(x)), x, atol=1e-5)
        True
    """

    linear = False

    def __init__(self, init: Wavelet = "bior2.2", *, dim: int, hidden: int | None = None) -> None:
        super().__init__(init)
        hidden = max(dim // 4, 4) if hidden is None else hidden
        for name, value in (("dim", dim), ("hidden", hidden)):
            check_count(name, value)
        self.dim = dim
        widths = [len(step.taps) for step in self.scheme.steps]
        self.look = nn.ModuleList(nn.Linear(width * dim, hidden, bias=False) for width in widths)
        self.slope = nn.ModuleList(nn.Linear((width - 1) * dim, hidden, bias=False) for width in widths)
        self.out = nn.ModuleList(nn.Linear(hidden, dim, bias=False) for _ in widths)
        self.gate = nn.Parameter(torch.zeros(len(widths)))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, {super().extra_repr()}"

    def _filtered(self, number: int, window: Tensor) -> Tensor:
        with no_autocast(window):  # rounded inputs would not come again on the way back
            weights = torch.tanh(_linear(self.look[number], window.flatten(-2)))
            slopes = _linear(self.slope[number], window.diff(dim=-2).flatten(-2))
            added = _linear(self.out[number], weights * slopes)
        return super()._filtered(number, window) + self.gate[number] * added


def _linear(layer: Any, x: Tensor) -> Tensor:
    """In the precision of the input, which may be more than that of the weights."""
    return F.linear(x, layer.weight.to(x.dtype))
