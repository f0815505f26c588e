"""Text that says something in every other chunk only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wavecomp.training import TextDataModule
from wavecomp.training.data.samples import Batch

SENTENCE = b"The same sentence stands here again, and it says nothing new.  \n"


def mixed(tokens: Tensor, chunk: int) -> Tensor:
    """``(batch, length)`` with the sentence in every other chunk, the first included."""
    sentence = torch.tensor(list(SENTENCE), device=tokens.device)
    place = torch.arange(tokens.shape[1], device=tokens.device)
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

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(tokens=mixed(batch["tokens"], self.chunk), lengths=batch["lengths"], answers=batch["answers"])
