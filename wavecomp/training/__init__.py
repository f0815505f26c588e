"""Training and data with Lightning: modules, data modules, callbacks, and strategies for several processes.

A :class:`CompressionModule` trains a model: :class:`LanguageModelModule`, :class:`AutoencoderModule` or
:class:`ClassifierModule`. Data modules give it bytes: text, tasks that cannot be solved without codes, and files by
class. The command ``wavecomp fit`` puts them together from a recipe, a YAML file; in code they go to a
``lightning.Trainer`` like any others.
"""

from wavecomp.training.autoencoder import AutoencoderModule
from wavecomp.training.callbacks import (
    BandEnergyLogger,
    BytesPerSecond,
    FilterLogger,
    LastCheckpoint,
    RatioMonitor,
    SafeStop,
    SaveCodes,
)
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
    "BandEnergyLogger",
    "BytesPerSecond",
    "ChunkParallel",
    "ChunkParallelModule",
    "ChunkParallelStrategy",
    "ClassifierModule",
    "CompressionModule",
    "CopyDataModule",
    "FilterLogger",
    "FolderClassificationDataModule",
    "FullyShardedModule",
    "HubTextDataModule",
    "LanguageModelModule",
    "LastCheckpoint",
    "ListOpsDataModule",
    "OriginDataModule",
    "PasskeyDataModule",
    "RatioMonitor",
    "RecallDataModule",
    "RulerDataModule",
    "SafeStop",
    "SampleDataModule",
    "SaveCodes",
    "SortDataModule",
    "TextDataModule",
]
