"""Where a noisy value that drifts is by now."""

from __future__ import annotations

import torch
from torch import Tensor, nn

AGES = 39.0, 19.0, 9.0, 4.0
"""How old the values of a mean are: of n of them, n over one more."""
FIRM = 8.0
"""How many times the variance that noise of single values would give tells little: these follow one another."""


class Forecast(nn.Module):
    r"""The last of a row of values without its noise and without lagging behind its drift.

    A mean over what came lags by the age of its values, and twice a mean less one of twice the age does not, as long as
    the drift is even. There are two of these: L of the means over about the last fifth and two fifths of all values,
    and S of those over about a twentieth and a tenth, which is noisier and is soon right again where a drift turns.
    With the variance v that noise gives S, about eight times that of independent values once there are some hundreds,

    .. math:: L + \max(0,\; 1 - v / (S - L)^2)\, (S - L)

    is L until S differs by more than its noise explains, and S where it differs by much (the weight is that of James
    and Stein, 1961, in its positive part). Neither needs to know how many values are to come.

    The state is as many numbers for any number of values.

    Example:
        >>> forecast = Forecast()
        >>> for step in range(200):
        ...     forecast.update(torch.tensor(0.01 * step))
        >>> abs(float(forecast()) - 1.99) < 1e-3
        True
    """

    means: Tensor
    noise: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(len(AGES), dtype=torch.float32))
        self.register_buffer("noise", torch.tensor(0.0, dtype=torch.float32))
        self.register_buffer("count", torch.tensor(0.0, dtype=torch.float32))

    def forward(self) -> Tensor:
        """A scalar; what was set last where no value came since."""
        short, long = self._short, 2 * self.means[2] - self.means[3]
        apart = short - long
        explained = FIRM * self.noise * AGES[0] / (self.count + AGES[0])
        return long + (1 - explained / apart.square().clamp(min=1e-12)).clamp(min=0) * apart

    @torch.no_grad()
    def update(self, value: Tensor, counted: bool | Tensor = True) -> None:
        """Take in a scalar; nothing happens where it is not counted."""
        self.count.add_(counted)
        for mean, age in zip(self.means.unbind(), AGES):
            mean.lerp_(value, counted * age / (self.count + (age - 1)))
        self.noise.lerp_((value - self._short).square(), counted * AGES[2] / (self.count + (AGES[2] - 1)))

    @torch.no_grad()
    def set(self, value: float) -> None:
        """Put it somewhere; values go on from there."""
        self.means.fill_(value)
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """The next value is the first, however many there were before; until it comes the forecast stays."""
        self.means.fill_(self())
        self.count.zero_()

    @property
    def _short(self) -> Tensor:
        return 2 * self.means[0] - self.means[1]
