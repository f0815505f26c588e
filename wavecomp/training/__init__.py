"""Training with Lightning."""

from wavecomp.training.callbacks import BytesPerSecond, LastCheckpoint, SafeStop, SaveCodes
from wavecomp.training.data import CopyDataModule, RecallDataModule, SampleDataModule, TextDataModule
from wavecomp.training.language_model import LanguageModelModule

__all__ = [
    "BytesPerSecond",
    "CopyDataModule",
    "LanguageModelModule",
    "LastCheckpoint",
    "RecallDataModule",
    "SafeStop",
    "SampleDataModule",
    "SaveCodes",
    "TextDataModule",
]
