"""No compression: the ceiling that every compressor is measured against."""

from __future__ import annotations

from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor
from wavecomp.records import check_type


class NoCompression(Compressor):
    """Every token is a code, normalised like those of the other baselines: ratio 1.

    Args:
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Example:
        >>> float(NoCompression()(wc.Codes.from_tokens(torch.randn(2, 20, 8)).cut(16)).ratio)
        1.0
    """

    def __init__(self, *, encoding: nn.Module | None = None) -> None:
        super().__init__()
        check_type("encoding", encoding, nn.Module, NoneType)
        self.encoding = encoding

    def capacity(self, chunk_length: int) -> int:
        return chunk_length

    def forward(self, chunks: Chunks) -> Codes:
        place = torch.arange(chunks.values.shape[-2], device=chunks.values.device)
        codes = chunks.codes(
            F.rms_norm(chunks.values, chunks.values.shape[-1:]),
            mask=chunks.mask,
            position=place.float(),
            support=torch.ones_like(place, dtype=torch.float32),
            frequency=torch.full_like(place, 0.25, dtype=torch.float32),
            level=torch.zeros_like(place),
            index=place,
        )
        return codes if self.encoding is None else self.encoding(codes)

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """The codes, which are the tokens."""
        return values
