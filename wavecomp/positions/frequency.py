"""Position and frequency of a code in one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Codes


class PositionFrequencyEncoding(nn.Module):
    r"""Adds where a code lies (chunk, and place in it) and which frequency it is, and weighs it by that frequency.

    The sinusoid of the place is averaged over the code's support, which is what is known of it:

    .. math:: \frac1s\int_{p-s/2}^{p+s/2} e^{i\omega u}\,du = e^{i\omega p}\,\frac{\sin(\omega s/2)}{\omega s/2}

    so the fast sinusoids of a coarse code fade. Periods are powers of two: those that divide the chunk length tell
    the place in the chunk, whichever chunk it is. The gain ``exp(-softplus(slope) * octaves)``, with the octaves from
    the lowest frequency that the encoding knows to that of the code, can only fall as the frequency rises.

    Args:
        dim: width of the codes.
        octaves: periods from 2 to ``2 ** octaves`` tokens, and as many chunks.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> codes = Codes.from_tokens(torch.zeros(1, 6, 8))
        >>> PositionFrequencyEncoding(8)(codes).values.shape
        torch.Size([1, 6, 8])
    """

    frequency_periods = 4  # of 2, 4, 8, 16 octaves

    def __init__(self, dim: int, *, octaves: int = 12) -> None:
        super().__init__()
        if dim < 1 or octaves < 1:
            raise ValueError(f"dim={dim}, octaves={octaves}; allowed: 1 and above")
        self.octaves = octaves
        features = 4 * octaves + 2 * self.frequency_periods
        self.project = nn.Linear(features, dim, bias=False)
        nn.init.normal_(self.project.weight, std=0.3 / math.sqrt(features))
        self.slope = nn.Parameter(torch.tensor(-4.0))

    def gain(self, frequency: Tensor) -> Tensor:
        """Cycles per token, any shape, to a factor in (0, 1]."""
        return torch.exp(-F.softplus(self.slope) * self._octave(frequency).clamp(min=0))

    def features(self, codes: Codes) -> Tensor:
        """Sinusoids of chunk, place and octave, ``(batch, slots, features)``."""
        periods = self._periods(self.octaves, codes.position)
        faded = torch.sinc(codes.support[..., None] / periods)  # torch.sinc(x) = sin(pi x) / (pi x)
        place = _sinusoids(codes.position, periods) * torch.cat([faded, faded], dim=-1)
        chunk = _sinusoids(codes.chunk, periods)
        octave = _sinusoids(self._octave(codes.frequency), self._periods(self.frequency_periods, codes.position))
        return torch.cat([chunk, place, octave], dim=-1)

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to the same codes, weighed and marked; empty slots stay zero."""
        features = self.features(codes).to(self.project.weight.dtype)
        gain = self.gain(codes.frequency)[..., None].to(codes.values.dtype)
        values = codes.values * gain + self.project(features)
        return codes.replace(values=torch.where(codes.mask[..., None], values, 0))

    def _octave(self, frequency: Tensor) -> Tensor:
        lowest = 2.0 ** -(self.octaves + 2)
        return torch.log2(frequency.clamp(min=torch.finfo(frequency.dtype).tiny) / lowest)

    @staticmethod
    def _periods(count: int, like: Tensor) -> Tensor:
        return 2.0 ** torch.arange(1, count + 1, device=like.device)


def _sinusoids(place: Tensor, periods: Tensor) -> Tensor:
    # whole turns are dropped before the product with pi, so that far places keep their phase
    turns = (place[..., None] / periods).remainder(1.0)
    return torch.cat([torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)], dim=-1)
