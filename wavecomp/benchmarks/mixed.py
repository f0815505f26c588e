"""Text that says something in every other chunk only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wavecomp.training import TextDataModule
from wavecomp.training.data.samples import Batch, LabelledBatch, Sample

SENTENCE = b"The same sentence stands here again, and it says nothing new.  \n"


def mixed(tokens: Tensor, chunk: int) -> Tensor:
    """``(batch, length)`` with the sentence in every other chunk, the first included."""
    sentence = torch.tensor(list(SENTENCE))
    place = torch.arange(tokens.shape[1])
    return torch.where(place // chunk % 2 == 0, sentence[place % len(SENTENCE)], tokens)


class MixedTextDataModule(TextDataModule):
    """Text of which every other chunk is overwritten with the sentence.

    Args:
        chunk: its length.
        settings: of the text.
    """

    def __init__(self, *, chunk: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.chunk = chunk

    def collate(self, samples: Sequence[Sample]) -> Batch | LabelledBatch:
        batch = super().collate(samples)
        batch["tokens"] = mixed(batch["tokens"], self.chunk)
        return batch
