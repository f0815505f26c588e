"""Models that several benchmarks measure: the recipe's, the same with a second stage, small ones around a compressor,
and the peers without codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.benchmarks import makers
from wavecomp.files import build
from wavecomp.files.recipes import recipe_folder
from wavecomp.networks.attention import head_angles, join_heads, split_heads
from wavecomp.networks.flex import Backend
from wavecomp.networks.transformer import FeedForward
from wavecomp.positions import Rotary, rotate


def quickstart() -> wc.ChunkReduceLM:
    """A fresh model of the recipe ``quickstart``."""
    return build(recipe_folder() / "quickstart.yaml")  # type: ignore[return-value]


def two_stages() -> wc.ChunkReduceLM:
    """The same with a second stage."""
    return with_second_stage(quickstart(), blocks=1)


def with_second_stage(model: Any, *, blocks: int) -> wc.ChunkReduceLM:
    """A model of one stage with a second one: a quarter of the codes for what lies further back.

    Args:
        blocks: of its encoder, through which 32 codes of the first stage go.
    """
    dim, heads = model.decoder.dim, model.decoder.heads
    second = wc.ChunkNetwork(
        chunk_length=32,
        encoder=wc.TransformerEncoder(dim=dim, heads=heads, layers=blocks),
        compressor=makers.wavelet(wc.DWT1d("haar", level=2), wc.KeepLowpass(8), dim=dim),
    )
    model.body = wc.ChunkReduce(
        chunk_networks=[*model.body.chunk_networks, second], reduce_network=model.body.reduce_network
    )
    return model


def chunk_reduce(
    compressor: wc.Compressor, *, dim: int, heads: int, chunk: int, before: int, after: int, backend: Backend = "sdpa"
) -> wc.ChunkReduce:
    """One stage of Transformers around a compressor.

    Args:
        before: blocks that each chunk goes through alone, before it is compressed.
        after: blocks in which its codes read those before them.
    """
    encoder = wc.TransformerEncoder(dim=dim, heads=heads, layers=before)
    return wc.ChunkReduce(
        chunk_networks=[wc.ChunkNetwork(chunk_length=chunk, encoder=encoder, compressor=compressor)],
        reduce_network=wc.ReduceNetwork(dim=dim, heads=heads, layers=after, backend=backend),
    )


def byte_model(
    compressor: wc.Compressor,
    *,
    dim: int,
    heads: int,
    chunk: int,
    before: int,
    after: int,
    layers: int,
    backend: Backend = "sdpa",
    **decoder: Any,
) -> wc.ChunkReduceLM:
    """A language model of bytes around :func:`chunk_reduce`, whose decoder looks a chunk back per block.

    Args:
        layers, decoder: of the decoder, and what else it is told.
    """
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(256, dim),
        body=chunk_reduce(compressor, dim=dim, heads=heads, chunk=chunk, before=before, after=after, backend=backend),
        decoder=wc.LocalDecoder(
            dim=dim, heads=heads, layers=layers, window=chunk, period=chunk, backend=backend, **decoder
        ),
        head=nn.Linear(dim, 256),
    )


class WindowModel(wc.ChunkReduceLM):
    """The decoder without any codes: a Transformer with a sliding window.

    Args:
        dim, heads, layers, backend: of the decoder.
        window: tokens that each block looks back.
        hidden: width of the feed-forward networks, as the blocks have it unless given.
    """

    def __init__(
        self, *, dim: int, heads: int, layers: int, window: int, hidden: int | None = None, backend: Backend = "sdpa"
    ) -> None:
        decoder = wc.LocalDecoder(dim=dim, heads=heads, layers=layers, window=window, memory_layers=[], backend=backend)
        if hidden is not None:
            for block in decoder.blocks:
                block.feed_forward = FeedForward(dim=dim, hidden=hidden)
        nothing = wc.ChunkNetwork(chunk_length=window, compressor=wc.NoCodes())
        super().__init__(
            embedding=nn.Embedding(256, dim),
            body=wc.ChunkReduce(
                chunk_networks=[nothing], reduce_network=wc.ReduceNetwork(dim=dim, heads=heads, layers=0)
            ),
            decoder=decoder,
            head=nn.Linear(dim, 256),
        )

    def context(self, tokens: Tensor, lengths: Tensor | None = None) -> wc.Codes:
        """None, whatever the tokens."""
        return wc.Codes.from_tokens(self.embedding(tokens[:, :0]))


class FlatModel(nn.Module):
    """A causal Transformer of the library's parts; without a mask, so that it has the fastest kernel there is.

    Args:
        dim, heads, layers: of the blocks.
        hidden: width of the feed-forward networks.
    """

    def __init__(self, *, dim: int, heads: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, dim)
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(FlatBlock(dim=dim, heads=heads, hidden=hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, 256)
        self.dim, self.heads = dim, heads

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, length)`` to logits ``(batch, length, 256)``; those of place t have read the tokens before t."""
        batch, length = tokens.shape
        x = torch.cat([self.start.expand(batch, 1, -1), self.embedding(tokens)[:, :-1]], dim=1)
        rotary = head_angles(torch.arange(length, device=tokens.device), self.dim, self.heads)
        for block in self.blocks:
            x = block(x, rotary)
        return self.head(self.norm(x))


class FlatBlock(nn.Module):
    """A Transformer block with attention to all places before."""

    def __init__(self, *, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.feed_forward_norm = nn.RMSNorm(dim)
        self.feed_forward = FeedForward(dim=dim, hidden=hidden)
        self.heads = heads

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        """``x (batch, length, dim)`` to the same shape."""
        q, k, v = split_heads(self.qkv(self.attention_norm(x)), 3 * self.heads).chunk(3, dim=1)
        read = F.scaled_dot_product_attention(rotate(q, rotary), rotate(k, rotary), v, is_causal=True)
        x = x + self.out(join_heads(read))
        return x + self.feed_forward(self.feed_forward_norm(x))


def step_of(model: nn.Module) -> Callable[[Tensor], None]:
    """A training step on tokens, with what compressors owe; on a GPU in bf16 where that is safe."""
    optimizer = torch.optim.AdamW(model.parameters())

    def step(tokens: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            codes = model.context(tokens) if isinstance(model, wc.ChunkReduceLM) else None
            logits = model(tokens) if codes is None else model(tokens, codes=codes)
        owed = [] if codes is None else codes.losses.values()
        (F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()) + sum(owed)).backward()
        optimizer.step()

    return step


def random_bytes(batch: int, length: int, device: torch.device | str = "cpu") -> Tensor:
    """``(batch, length)`` int64, the same on every run."""
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)
