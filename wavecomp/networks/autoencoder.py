"""The autoencoder: tokens to codes, and codes back to the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Codes
from wavecomp.files import Pretrained
from wavecomp.modules import Module
from wavecomp.networks.chunk import check_chunk_length, check_rows_apart, read_chunks, takes_lengths
from wavecomp.networks.chunk_reduce import ChunkReduce
from wavecomp.networks.embedding import embed_tokens


class ChunkDecoder(Module):
    """Logits of tokens, read chunk by chunk from what an inverse transform gave each of them.

    Where one code stands for several tokens these come in alike: an encoding tells them apart, and the network picks
    from the code what is of each. Without one it has their neighbours to go by.

    Compressors differ in how loud the inverse is, and next to loud values the marks of an encoding are lost. So values
    are normalised, token by token, and a learned gain starts at 1/4, where they are about as loud as the marks of
    :class:`PositionFrequencyEncoding`.

    Args:
        chunk_length: tokens that are read together; those of a chunk of the codes, or more.
        network: any module from ``(rows, chunk_length, dim)`` to the same shape, as the encoder of a
            :class:`ChunkNetwork` is.
        head: a module from ``(batch, length, dim)`` to ``(batch, length, vocabulary)``.
        encoding: a module from Codes to Codes that marks the position of each token, or ``None``.

    Raises:
        ValueError: a chunk length below 1, or a network of PyTorch that is not ``batch_first``.

    Example:
        >>> decoder = ChunkDecoder(chunk_length=16, network=torch.nn.GELU(), head=torch.nn.Linear(8, 256))
        >>> decoder(wc.Codes.from_tokens(torch.randn(2, 40, 8))).shape
        torch.Size([2, 40, 256])
    """

    def __init__(
        self, *, chunk_length: int, network: nn.Module, head: nn.Module, encoding: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_chunk_length(chunk_length)
        self.chunk_length = chunk_length
        self.network = network
        self.head = head
        self.encoding = encoding
        self.gain = nn.Parameter(torch.full((1,), 0.25))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "network":
            check_rows_apart(name, value)
        super().__setattr__(name, value)
        if name == "network":
            self.network_takes_lengths = takes_lengths(value)

    def forward(self, codes: Codes) -> Tensor:
        """One code per token to ``(batch, length, vocabulary)``; behind a row's length this has no meaning."""
        length, dim = codes.values.shape[1:]
        codes = codes.replace(values=F.rms_norm(codes.values, (dim,)) * self.gain.to(codes.values.dtype))
        if self.encoding is not None:
            codes = self.encoding(codes)
        chunks = read_chunks(codes.cut(self.chunk_length), self.network, self.network_takes_lengths, name="network")
        return self.head(chunks.values.flatten(1, 2)[:, :length])

    if TYPE_CHECKING:
        __call__ = forward


class ChunkReduceAutoencoder(Pretrained):
    """Tokens to few codes and back: ``logits[:, t]`` is the reconstruction of token t.

    The cross-entropy per byte against codes per byte is a point of a rate-distortion curve. What is transmitted is the
    codes of the last stage. The decoder also knows the lengths of the rows and, with several stages, which slots of
    each finer stage held a code and where these lay: side information, a few bits beside each vector, that is not
    counted in the ratio.

    Nothing here has to be causal: the body may prune over the whole sequence and read both ways.

    Args:
        embedding: a module from tokens ``(batch, length)`` to ``(batch, length, dim)``, one token at a time.
        body: Codes to Codes, of one stage or with ``keep="last"``; its Reduce-Network keeps all slots.
        decoder: from one code per token to logits.

    Raises:
        ValueError: a body that sends the codes of several stages.

    Example:
        >>> wavelet = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> model = ChunkReduceAutoencoder(
        ...     embedding=torch.nn.Embedding(256, 8),
        ...     body=wc.ChunkReduce(
        ...         chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=wavelet)],
        ...         reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1, window=None, causal=False),
        ...     ),
        ...     decoder=wc.ChunkDecoder(
        ...         chunk_length=16,
        ...         network=wc.TransformerEncoder(dim=8, heads=2, layers=1),
        ...         head=torch.nn.Linear(8, 256),
        ...         encoding=wc.PositionFrequencyEncoding(8),
        ...     ),
        ... )
        >>> tokens = torch.randint(256, (2, 40))
        >>> model(tokens).shape, float(model.encode(tokens).ratio)
        (torch.Size([2, 40, 256]), 4.0)
    """

    def __init__(self, *, embedding: nn.Module, body: ChunkReduce, decoder: nn.Module) -> None:
        super().__init__()
        stages = len(body.chunk_networks)
        if stages > 1 and body.keep != "last":
            raise ValueError(
                f"body has keep={body.keep!r} and {stages} stages, but only the codes of the last one are transmitted; "
                "allowed: keep='last', or one stage"
            )
        self.embedding = embedding
        self.body = body
        self.decoder = decoder

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of the tokens themselves.

        Args:
            tokens: ``(batch, length)`` int64.
            lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.

        Returns:
            ``(batch, length, vocabulary)``; behind a row's length they have no meaning.

        Raises:
            ValueError: shapes that do not fit, or lengths beyond the tensor (values are checked on the CPU only).
        """
        *before, codes = self.stages(tokens, lengths)
        return self.decode(codes, before)

    if TYPE_CHECKING:
        __call__ = forward

    def encode(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes that are transmitted."""
        return self.stages(tokens, lengths)[-1]

    def stages(self, tokens: Tensor, lengths: Tensor | None = None) -> list[Codes]:
        """What each stage is given, the embedded tokens first, and at last the codes that are transmitted."""
        embedded = embed_tokens(self.embedding, tokens, lengths)
        made = self.body.stages(embedded)
        return [embedded, *made[:-1], self.body.reduce(made)]

    def decode(self, codes: Codes, before: Sequence[Codes]) -> Tensor:
        """Logits ``(batch, length, vocabulary)`` of the tokens that codes stand for.

        Args:
            codes: those that are transmitted.
            before: what each stage was given; its values are not read.
        """
        return self.decoder(self.body.expand(codes, before))
