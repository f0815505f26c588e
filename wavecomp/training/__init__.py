"""Training with Lightning."""

from wavecomp.training.autoencoder import AutoencoderModule
from wavecomp.training.callbacks import BytesPerSecond, LastCheckpoint, SafeStop, SaveCodes
from wavecomp.training.classifier import ClassifierModule
from wavecomp.training.data import (
    CopyDataModule,
    FolderClassificationDataModule,
    HubTextDataModule,
    ListOpsDataModule,
    PasskeyDataModule,
    RecallDataModule,
    RulerDataModule,
    SampleDataModule,
    SortDataModule,
    TextDataModule,
)
from wavecomp.training.data.origin import OriginDataModule
from wavecomp.training.language_model import LanguageModelModule
from wavecomp.training.optimisation import CompressionModule
from wavecomp.training.parallel import (
    ChunkParallel,
    ChunkParallelModule,
    ChunkParallelStrategy,
    FullyShardedModule,
)

__all__ = [
    "AutoencoderModule",
    "BytesPerSecond",
    "ChunkParallel",
    "ChunkParallelModule",
    "ChunkParallelStrategy",
    "ClassifierModule",
    "CompressionModule",
    "CopyDataModule",
    "FolderClassificationDataModule",
    "FullyShardedModule",
    "HubTextDataModule",
    "LanguageModelModule",
    "LastCheckpoint",
    "ListOpsDataModule",
    "OriginDataModule",
    "PasskeyDataModule",
    "RecallDataModule",
    "RulerDataModule",
    "SafeStop",
    "SampleDataModule",
    "SaveCodes",
    "SortDataModule",
    "TextDataModule",
]
