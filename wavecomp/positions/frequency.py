"""Position and frequency of a code in one vector: added to its value, or turned into it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Codes
from wavecomp.modules import Module, weight_dtype
from wavecomp.positions.rotary import Rotary, rotary_angles, rotate
from wavecomp.records import check_count, check_width


class _FrequencyGain(Module):
    """What both encodings share: a gain that can only fall as the frequency rises, and slots that stay empty."""

    frequency_periods = 4  # of 2, 4, 8, 16 octaves

    def __init__(self, dim: int, octaves: int) -> None:
        super().__init__()
        check_count("dim", dim)
        check_count("octaves", octaves)
        if octaves > 64:
            raise ValueError(f"octaves={octaves} is out of range; allowed: 1 to 64")
        self.dim, self.octaves = dim, octaves
        self.slope = nn.Parameter(torch.tensor(-4.0))

    def gain(self, frequency: Tensor) -> Tensor:
        """Cycles per token, any shape, to a factor in (0, 1]."""
        octave = self._octave(frequency).clamp(min=0)
        # the slope has no shape, and would take the type of the frequencies
        return torch.exp(-F.softplus(self.slope) * octave.to(torch.promote_types(octave.dtype, self.slope.dtype)))

    def mark(self, values: Tensor, codes: Codes) -> Tensor:
        """Weighed ``values (batch, slots, dim)`` to the same shape, marked with where and what the codes are."""
        raise NotImplementedError

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to the same codes, weighed and marked; empty slots stay zero."""
        check_width(self, self.dim, codes.values)
        gain = self.gain(codes.frequency)[..., None].to(codes.values.dtype)
        values = self.mark(codes.values * gain, codes)
        return codes.replace(values=torch.where(codes.mask[..., None], values, 0))

    def _octave(self, frequency: Tensor) -> Tensor:
        lowest = 2.0 ** -(self.octaves + 2)
        return torch.log2(frequency.clamp(min=torch.finfo(frequency.dtype).tiny) / lowest)


class PositionFrequencyEncoding(_FrequencyGain):
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
        ValueError: a size below 1, or more than 64 octaves.

    Example:
        >>> codes = Codes.from_tokens(torch.zeros(1, 6, 8))
        >>> PositionFrequencyEncoding(8)(codes).values.shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, dim: int, *, octaves: int = 12) -> None:
        super().__init__(dim, octaves)
        features = 4 * octaves + 2 * self.frequency_periods
        self.project = nn.Linear(features, dim, bias=False)
        nn.init.normal_(self.project.weight, std=0.3 / math.sqrt(features))

    def features(self, codes: Codes) -> Tensor:
        """Sinusoids of chunk, place and octave, ``(batch, slots, features)``."""
        periods = self._periods(self.octaves, codes.position)
        faded = torch.sinc(codes.support[..., None] / periods)  # torch.sinc(x) = sin(pi x) / (pi x)
        place = _sinusoids(codes.position, periods) * torch.cat([faded, faded], dim=-1)
        chunk = _sinusoids(codes.chunk, periods)
        octave = _sinusoids(self._octave(codes.frequency), self._periods(self.frequency_periods, codes.position))
        return torch.cat([chunk, place, octave], dim=-1)

    def mark(self, values: Tensor, codes: Codes) -> Tensor:
        marks = self.project(self.features(codes).to(weight_dtype(self.project, values)))
        return values + marks.to(values.dtype)

    @staticmethod
    def _periods(count: int, like: Tensor) -> Tensor:
        return 2.0 ** torch.arange(1, count + 1, device=like.device)


class RotaryPositionFrequency(_FrequencyGain):
    r"""Turns each code by where it lies and which frequency it is, and weighs it by that frequency.

    The channels, as ``m = dim / 8`` complex numbers each for place p, chunk c and octave o, become

    .. math::
        x_j e^{i p \omega_j},\quad y_j e^{i c \omega_j},\quad z_j e^{i o \varphi_j},\qquad
        \omega_j = 2^{-j \cdot octaves / m},\quad \varphi_j = 2^{-4 j / m},\quad j = 0, \dots, m - 1

    and the last quarter of the channels stays as it is. The dot product of two codes thus depends on what they hold
    and on the differences of their places, chunks and octaves; a turn keeps the norm, which the gain of
    :class:`PositionFrequencyEncoding` then multiplies.

    Args:
        dim: width of the codes, a multiple of 8.
        octaves: the slowest pair turns about ``2 ** octaves`` times slower than one radian per token or chunk; the
            gain counts octaves as in :class:`PositionFrequencyEncoding`.

    Raises:
        ValueError: a size below 1, more than 64 octaves, or a dim that is no multiple of 8.

    Example:
        >>> codes = Codes.from_tokens(torch.ones(1, 6, 8))
        >>> turned = RotaryPositionFrequency(8)(codes).values
        >>> turned.norm(dim=-1).std() < 1e-6, (turned[0, 0] - turned[0, 5]).abs().max() > 0.1
        (tensor(True), tensor(True))
    """

    def __init__(self, dim: int, *, octaves: int = 12) -> None:
        super().__init__(dim, octaves)
        if dim % 8:
            raise ValueError(f"dim={dim} cannot be turned in three groups of pairs; allowed: multiples of 8")

    def angles(self, codes: Codes) -> Rotary:
        """Cosines and sines, ``(batch, 1, slots, 3 * dim / 8)``, of angles that are made in fp64."""
        quarter = self.dim // 4
        base = 2.0**self.octaves
        turns = [
            rotary_angles(codes.position, quarter, base=base),
            rotary_angles(codes.chunk, quarter, base=base),
            rotary_angles(self._octave(codes.frequency), quarter, base=2.0**self.frequency_periods),
        ]
        return Rotary(torch.cat([turn.cos for turn in turns], dim=-1), torch.cat([turn.sin for turn in turns], dim=-1))

    def mark(self, values: Tensor, codes: Codes) -> Tensor:
        return rotate(values.unsqueeze(1), self.angles(codes)).squeeze(1)


def _sinusoids(place: Tensor, periods: Tensor) -> Tensor:
    # whole turns are dropped before the product with pi, so that far places keep their phase
    turns = (place[..., None] / periods).remainder(1.0).float()
    return torch.cat([torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)], dim=-1)
