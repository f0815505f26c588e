"""Reading without end: codes as they come to exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavecomp.codes import Codes
from wavecomp.records import check_count


class StreamingEncoder:
    """Reads a sequence piece by piece and gives its codes as they come to exist.

    All codes together are those that ``encode`` makes of the whole, but for those of a short last chunk. It remembers
    the tokens of chunks that are not complete and what the Reduce-Network may still read: with a window that does not
    grow; with ``window=None`` it grows by the keys and values of every code.

    Args:
        model: has an ``embedding``, one token at a time, and a causal ``body`` with ``step``. Put it into eval mode.
        block: tokens that are read at once; more is faster up to a point and takes more memory.
        start: the place of the first token; nothing before it is read. A multiple of a chunk of the last stage.

    Raises:
        ValueError: a block below 1, or a start inside a chunk.

    Example:
        >>> compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> body = wc.ChunkReduce(
        ...     chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=compressor)],
        ...     reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1),
        ... )
        >>> decoder = wc.LocalDecoder(dim=8, heads=2, layers=1, window=8)
        >>> parts = dict(embedding=torch.nn.Embedding(256, 8), decoder=decoder, head=torch.nn.Linear(8, 256))
        >>> encoder = StreamingEncoder(wc.ChunkReduceLM(body=body, **parts))
        >>> [encoder.feed(b"the same again, ").values.shape[1], encoder.feed(b"and on").values.shape[1]]
        [4, 0]
    """

    def __init__(self, model: Any, *, block: int = 2048, start: int = 0) -> None:
        check_count("block", block)
        if start < 0 or (start and start % model.body.spans[-1]):
            raise ValueError(f"start={start} lies inside a chunk; allowed: multiples of {model.body.spans[-1]}")
        self.embedding = model.embedding
        self.body = model.body
        chunk_length: int = model.body.chunk_length
        self.block = max(block // chunk_length, 1) * chunk_length
        self.device = next(model.parameters()).device
        self.tokens = start
        self._waiting: Tensor | None = None
        self._state: Any = None

    @torch.no_grad()
    def feed(self, tokens: Tensor | bytes) -> Codes:
        """Read on.

        Args:
            tokens: ``(batch, length)`` int64, all rows equally many, or bytes for one row.

        Returns:
            The codes that came to exist, maybe none, with ``tokens`` and statistics of what they were made from.

        Raises:
            ValueError: tokens of another shape, or another number of rows than before.
        """
        tokens = self._checked(tokens)
        read = self.tokens + tokens.shape[1]
        if self._waiting is not None:
            tokens = torch.cat([self._waiting, tokens], dim=1)
        whole = tokens.shape[1] // self.body.chunk_length * self.body.chunk_length
        first, state, parts = read - tokens.shape[1], self._state, []
        for at in range(0, max(whole, 1), self.block):
            embedded = self.embedding(tokens[:, at : min(at + self.block, whole)])
            codes, state = self.body.step(Codes.from_tokens(embedded, start=first + at), state)
            parts.append(codes)
        # what could not be read is as if it had not been given
        self.tokens, self._waiting, self._state = read, tokens[:, whole:].clone(), state
        return Codes.join(parts)

    def _checked(self, tokens: Tensor | bytes) -> Tensor:
        if not isinstance(tokens, Tensor):
            tokens = torch.from_numpy(np.frombuffer(tokens, np.uint8).astype(np.int64))[None].to(self.device)
        if tokens.ndim != 2:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}, expected (batch, length)")
        if self._waiting is not None and len(tokens) != len(self._waiting):
            raise ValueError(f"tokens has {len(tokens)} rows, those before had {len(self._waiting)}")
        return tokens
