"""The contract of every compressor."""

from __future__ import annotations

from torch import nn

from wavecomp.codes import Chunks, Codes


class Compressor(nn.Module):
    """Chunks to fewer Codes, in a static number of slots per chunk.

    ``causal`` says that the codes of a chunk depend on that chunk alone. A compressor that compares chunks or looks at
    a whole sequence says ``False``, and a causal model refuses it.
    """

    causal: bool = True

    def capacity(self, chunk_length: int) -> int:
        """Slots that a chunk of this length gets.

        Raises:
            ValueError: when the compressor cannot work on such chunks.
        """
        raise NotImplementedError

    def forward(self, chunks: Chunks) -> Codes:
        """Chunks of values ``(batch, chunks, chunk_length, dim)`` to codes in ``(batch, chunks * capacity)`` slots."""
        raise NotImplementedError
