"""Where a code lies, and which frequency it is."""

from wavecomp.positions.frequency import PositionFrequencyEncoding
from wavecomp.positions.rotary import Rotary, rotary_angles, rotate

__all__ = ["PositionFrequencyEncoding", "Rotary", "rotary_angles", "rotate"]
