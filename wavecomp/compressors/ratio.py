"""The ratio that is asked for is the ratio delivered: a controller of thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.compressors.forecast import Forecast
from wavecomp.compressors.pruner import check_ratio
from wavecomp.records import check_weight

REACH = 40.0
"""How far the logarithm of a threshold goes from the first one."""
FASTEST = 0.02
"""How far it goes per step where there is no error."""


class RatioController(nn.Module):
    r"""Holds a compression ratio by moving the logarithm of a threshold: a PI controller of its speed.

    With the error :math:`e = \min(\text{codes} \cdot \text{target} / \text{tokens} - 1,\; 1)` of the last step,

    .. math:: v \leftarrow v + g K e / 32, \quad \log \tau \leftarrow \log \tau + g K e + v

    The error is linear in the codes, so where it keeps to zero on average the target is met, sum over sum, even where
    the ratio jumps as the threshold moves. A network that learns asks for another threshold at every step: the speed
    :math:`|v| \le 0.02` follows such a drift, behind which a controller of the threshold itself would lag.

    How much the ratio changes with the threshold is not known, and may be anything up to a jump. So g follows the
    error e' of the step before, with the mean m of :math:`e^2` over about ten steps,

    .. math:: \log g \leftarrow \log g + 0.1\, (\mathrm{clip}(e e' / m,\, -1,\, 1) + 0.1), \quad 1/1024 \le g \le 2

    Errors that keep their sign say that the threshold lags, errors that alternate that it swings to and fro: the first
    make its moves larger, the second smaller (Kesten, 1958; Jacobs, 1988). It settles where the mean of e e' is a tenth
    of m below zero, so that errors of the noise of batches alone do not slow it down.

    ``forward`` of a network reads the threshold and never moves it; :meth:`update` is called after the optimiser's step
    with the counts of all ranks. The state is in the checkpoint.

    In evaluation the threshold is one without the jitter of single batches that does not lag behind the model's drift
    either, which counts, since a ratio may move by several times what its threshold does: its logarithm is the
    :class:`~wavecomp.compressors.forecast.Forecast` of those that there were in training.

    Where a target is out of reach the threshold stops 40 from its start, in logarithms. The state stays in fp32 when a
    model is cast: half precision would round small corrections away.

    Args:
        target_ratio: tokens per code, 1 and above.
        start: the threshold before anything was counted, above 0 and finite.
        gain: K, 0 and above, finite.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> controller = RatioController(target_ratio=8)
        >>> before = float(controller.threshold)
        >>> controller.update(tokens=torch.tensor(800), codes=torch.tensor(200))  # ratio 4: too many codes
        >>> float(controller.threshold) > before
        True
    """

    last: Tensor
    speed: Tensor
    error: Tensor
    power: Tensor
    log_gain: Tensor

    def __init__(self, *, target_ratio: float, start: float = 1.0, gain: float = 0.1) -> None:
        super().__init__()
        check_ratio(target_ratio)
        if not 0 < start < math.inf:
            raise ValueError(f"start={start} is no threshold; allowed: above 0, finite")
        check_weight("gain", gain)
        self.target_ratio = target_ratio
        self.start, self.gain = start, gain
        for name in ("last", "speed", "error", "power", "log_gain"):
            self.register_buffer(name, torch.tensor(0.0, dtype=torch.float32))
        self.forecast = Forecast()
        self.set_threshold(start)

    def extra_repr(self) -> str:
        return f"target_ratio={self.target_ratio}"

    @property
    def log_threshold(self) -> Tensor:
        """The last one in training, the one that they tend to in evaluation."""
        return self.last if self.training else self.forecast()

    @property
    def updates(self) -> Tensor:
        """How many there were in this run, a scalar."""
        return self.forecast.count

    @property
    def threshold(self) -> Tensor:
        """A scalar, above 0."""
        return self.log_threshold.exp()

    @torch.no_grad()
    def update(self, tokens: Tensor, codes: Tensor) -> None:
        """Move the threshold by what a step made of so many tokens. A step without tokens or codes moves nothing."""
        counted = (tokens > 0) & (codes > 0)
        allowed = tokens.float().clamp(min=1) / self.target_ratio
        error = torch.where(counted, (codes.float() / allowed - 1).clamp(max=1), 0)
        self.power.lerp_(error.square(), torch.where(self.updates > 0, 0.1, 1.0) * counted)
        alike = (error * self.error / self.power.clamp(min=1e-12)).clamp(-1, 1)
        self.log_gain.add_(0.1 * (alike + 0.1) * counted).clamp_(math.log(1 / 1024), math.log(2))
        self.error.lerp_(error, 1.0 * counted)
        step = self.gain * self.log_gain.exp()
        self.speed.add_(step * error / 32).clamp_(-FASTEST, FASTEST)
        first = math.log(self.start)
        self.last.add_(step * error + self.speed * counted).clamp_(first - REACH, first + REACH)
        self.forecast.update(self.last, counted)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RatioController:
        def moved(x: Tensor) -> Tensor:
            there = fn(x.view(torch.int32))  # as integers they are moved and, but for type(), not cast
            return there.view(torch.float32) if there.dtype == torch.int32 else x.to(there.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def set_threshold(self, threshold: float) -> None:
        """Put the threshold somewhere; updates go on from there, in training and in evaluation.

        Raises:
            ValueError: a threshold that is not above 0.
        """
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold={threshold} is no threshold; allowed: above 0, finite")
        for value in (self.speed, self.error, self.power, self.log_gain):
            value.zero_()
        self.last.fill_(math.log(threshold))
        self.forecast.set(math.log(threshold))

    @torch.no_grad()
    def restart(self) -> None:
        """Begin a new run: the threshold of evaluation follows its updates, however many there were before."""
        self.forecast.restart()


class GroupThreshold(nn.Module):
    r"""Soft-thresholds the length of vectors, level by level: ``relu(1 - tau_l / length)``.

    :math:`\log \tau_l = \log \tau + \theta_l - \bar\theta`, with the mean over the coefficients of a chunk: the
    controller moves :math:`\tau`, which sets how many stay, and gradients the :math:`\theta_l`, which can only share
    them out among the levels. Zeros are real zeros, so nothing has to be passed straight through. (Block thresholding:
    Cai, 1999; Yuan and Lin, 2006.)

    Args:
        levels: the deepest level that may come.
    """

    def __init__(self, *, levels: int = 24) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(levels + 1))

    def forward(self, length: Tensor, threshold: Tensor, level: Tensor) -> Tensor:
        """Weights from 0 to 1 of vectors of this length, above 0, at these levels; shapes that broadcast."""
        theta = self.level[level].to(torch.promote_types(self.level.dtype, torch.float32))
        share = (theta - theta.mean(-1, keepdim=True)).exp()
        return F.relu(1 - (threshold * share).to(length.dtype) / length)
