"""Callbacks of training: speed, a stop that loses nothing, codes to files, figures, and whether the ratio is kept."""

from wavecomp.training.callbacks.best import BestCheckpoint
from wavecomp.training.callbacks.figures import BandEnergyLogger, FilterLogger
from wavecomp.training.callbacks.progress import BytesPerSecond
from wavecomp.training.callbacks.ratio import RatioMonitor
from wavecomp.training.callbacks.save import SaveCodes
from wavecomp.training.callbacks.stop import LastCheckpoint, SafeStop

__all__ = [
    "BandEnergyLogger",
    "BestCheckpoint",
    "BytesPerSecond",
    "FilterLogger",
    "LastCheckpoint",
    "RatioMonitor",
    "SafeStop",
    "SaveCodes",
]
