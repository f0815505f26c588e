"""Where a code lies, and which frequency it is."""

from wavecomp.positions.dyadic import DyadicPositionCode
from wavecomp.positions.frequency import PositionFrequencyEncoding, RotaryPositionFrequency
from wavecomp.positions.rotary import Rotary, rotary_angles, rotate

__all__ = [
    "DyadicPositionCode",
    "PositionFrequencyEncoding",
    "Rotary",
    "RotaryPositionFrequency",
    "rotary_angles",
    "rotate",
]
