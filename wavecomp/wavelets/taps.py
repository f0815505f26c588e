"""Filter taps: the four filters of a two-channel bank."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, fields
from typing import TypeAlias

import pywt

from wavecomp.compiling import constant_result

# the error of pywt's dmey, which is cut off, is below this, that of all its others below 1e-6
NEARLY = 3e-3


@dataclass(frozen=True)
class FilterTaps:
    """The four filters of a two-channel filter bank, in pywt's order and orientation.

    Args:
        dec_lo, dec_hi: analysis (decomposition) filters.
        rec_lo, rec_hi: synthesis (reconstruction) filters.

    Raises:
        ValueError: when the four differ in length, have an odd length, or hold a value that is not finite.

    Example:
        >>> FilterTaps.of("haar").orthogonal
        True
    """

    dec_lo: tuple[float, ...]
    dec_hi: tuple[float, ...]
    rec_lo: tuple[float, ...]
    rec_hi: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) != 1 or len(self) % 2 or not len(self):
            raise ValueError(f"FilterTaps: the four filters need one even length, got {lengths}")
        for f in fields(self):
            object.__setattr__(self, f.name, tuple(getattr(self, f.name)))  # configs hold lists
            if not all(math.isfinite(tap) for tap in getattr(self, f.name)):
                raise ValueError(f"FilterTaps: {f.name}={getattr(self, f.name)} holds a tap that is not finite")

    def __len__(self) -> int:
        return len(self.dec_lo)

    @classmethod
    def of(cls, wavelet: Wavelet) -> FilterTaps:
        """Taps from a pywt name, in any case as there, a ``pywt.Wavelet``, or taps themselves.

        Raises:
            ValueError: when the name is not one of pywt's discrete wavelets.
            TypeError: when it is none of the three.
        """
        if isinstance(wavelet, FilterTaps):
            return wavelet
        if isinstance(wavelet, str):
            return cls(*_named(wavelet))
        if not isinstance(wavelet, pywt.Wavelet):
            kind = type(wavelet).__name__
            raise TypeError(f"wavelet={wavelet!r} has type {kind}; allowed: a pywt name, pywt.Wavelet or FilterTaps")
        return cls(*(tuple(map(float, bank)) for bank in wavelet.filter_bank))

    @property
    def orthogonal(self) -> bool:
        """Whether synthesis is the transpose of analysis, and its inverse as far as that of pywt's dmey is."""
        transposed = zip(self.dec_lo + self.dec_hi, self.rec_lo[::-1] + self.rec_hi[::-1])
        return all(math.isclose(dec, rec, abs_tol=1e-8) for dec, rec in transposed) and self.error <= NEARLY

    @functools.cached_property
    def error(self) -> float:
        """How far synthesis is from the inverse of analysis: of what they make of an impulse, the largest number that
        should not be there."""
        both = ((self.dec_lo, self.rec_lo), (self.dec_hi, self.rec_hi))
        wrong = [0.0] * (2 * len(self) - 1)
        wrong[len(self) - 1] = -1.0  # where the impulse should be
        alias = [0.0] * len(wrong)
        for dec, rec in both:
            for (i, a), (j, b) in itertools.product(enumerate(dec), enumerate(rec)):
                wrong[i + j] += a * b / 2
                alias[i + j] += (-1) ** i * a * b / 2
        return max(map(abs, wrong + alias))

    def mirrored(self, tolerance: float) -> float:
        """1 where the analysis high-pass filter is the mirror image of the low-pass filter that pywt has, -1 where it
        is the negative of it, 0 where it is neither, up to a tolerance."""
        image = [(-1) ** (j + 1) * tap for j, tap in enumerate(reversed(self.dec_lo))]
        for sign in (1.0, -1.0):
            if all(math.isclose(sign * a, b, abs_tol=tolerance) for a, b in zip(image, self.dec_hi)):
                return sign
        return 0.0

    def orthonormal_to(self, tolerance: float) -> bool:
        """Whether the analysis low-pass filter and its even shifts are orthonormal, up to a tolerance."""
        low = self.dec_lo
        products = (sum(a * b for a, b in zip(low, low[shift:])) for shift in range(0, len(low), 2))
        return all(math.isclose(product, not place, abs_tol=tolerance) for place, product in enumerate(products))


@constant_result
def _named(name: str) -> tuple[tuple[float, ...], ...]:
    names = pywt.wavelist(kind="discrete")
    if name.lower() not in names:
        families = sorted({pywt.Wavelet(known).short_family_name for known in names})
        raise ValueError(
            f"wavelet={name!r} is not a discrete wavelet; allowed: the names in pywt.wavelist(kind='discrete'), "
            f"from the families {', '.join(families)}"
        )
    return tuple(tuple(map(float, bank)) for bank in pywt.Wavelet(name).filter_bank)


Wavelet: TypeAlias = str | pywt.Wavelet | FilterTaps
