"""Data modules: text, tasks that need the codes, and labelled documents."""

from wavecomp.training.data.classification import ClassificationDataModule, FolderClassificationDataModule
from wavecomp.training.data.copy import CopyDataModule
from wavecomp.training.data.hub import HubTextDataModule
from wavecomp.training.data.listops import ListOpsDataModule
from wavecomp.training.data.passkey import PasskeyDataModule, passkey_match
from wavecomp.training.data.recall import RecallDataModule
from wavecomp.training.data.ruler import RulerDataModule, effective_length, string_match
from wavecomp.training.data.samples import Batch, LabelledBatch, Sample, SampleDataModule
from wavecomp.training.data.sort import SortDataModule, by_count
from wavecomp.training.data.tasks import TaskDataModule, prompt_and_references
from wavecomp.training.data.text import TextDataModule

__all__ = [
    "Batch",
    "ClassificationDataModule",
    "CopyDataModule",
    "FolderClassificationDataModule",
    "HubTextDataModule",
    "LabelledBatch",
    "ListOpsDataModule",
    "PasskeyDataModule",
    "RecallDataModule",
    "RulerDataModule",
    "Sample",
    "SampleDataModule",
    "SortDataModule",
    "TaskDataModule",
    "TextDataModule",
    "by_count",
    "effective_length",
    "passkey_match",
    "prompt_and_references",
    "string_match",
]
