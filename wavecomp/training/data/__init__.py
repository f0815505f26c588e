"""Data modules: text, and tasks that need the codes."""

from wavecomp.training.data.samples import Batch, Sample, SampleDataModule
from wavecomp.training.data.tasks import CopyDataModule, RecallDataModule
from wavecomp.training.data.text import TextDataModule

__all__ = ["Batch", "CopyDataModule", "RecallDataModule", "Sample", "SampleDataModule", "TextDataModule"]
