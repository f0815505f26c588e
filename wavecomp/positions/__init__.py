"""Where a code lies, and which frequency it is.

Modules from Codes to Codes that add both to their values, for compressors that are given one as ``encoding``; and
rotary positions, for attention. All measure in tokens, whatever a code stands for.
"""

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
