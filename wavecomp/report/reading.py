"""What a model makes of a text: its codes, chunk by chunk, and what they are worth."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import BandLayout
from wavecomp.codes import Codes
from wavecomp.networks import ChunkReduce, ChunkReduceLM
from wavecomp.networks.embedding import embed_tokens
from wavecomp.wavelets import ChunkTransform


class Code(NamedTuple):
    """One code of a chunk; where it lies is told in bytes from the chunk's start."""

    level: int
    frequency: float
    start: float
    support: float


class ChunkReading(NamedTuple):
    """A chunk of the first stage.

    Args:
        start: its first byte.
        length: in bytes.
        bits: per byte.
        hidden: the same where the model may not see any codes.
        energy: of each band, coarse to fine; none where the compressor tells of none.
        codes: those that were kept.
    """

    start: int
    length: int
    bits: float
    hidden: float
    energy: tuple[float, ...]
    codes: tuple[Code, ...]


class Reading(NamedTuple):
    """A text as a model reads it.

    Args:
        text: the bytes.
        ratio: bytes over codes of all stages; infinite where there are none.
        codes: how many, of all stages.
        bits: per byte.
        hidden: the same where the model may not see any codes.
        chunk_length: bytes in a whole chunk of the first stage.
        bands: names of the bands of the first stage.
        chunks: of the first stage.
    """

    text: bytes
    ratio: float
    codes: int
    bits: float
    hidden: float
    chunk_length: int
    bands: tuple[str, ...]
    chunks: tuple[ChunkReading, ...]

    @property
    def gain(self) -> float:
        """The context gain: bits per byte with the codes hidden minus with them."""
        return self.hidden - self.bits


def read(model: ChunkReduceLM, text: bytes) -> Reading:
    """Read a text once with the codes and once without.

    Args:
        model: on bytes, in eval mode.
        text: at least one byte.

    Raises:
        ValueError: no text, another kind of model, or one whose predictions are not finite.

    Example:
        >>> compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> body = wc.ChunkReduce(
        ...     chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=compressor)],
        ...     reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1),
        ... )
        >>> decoder = wc.LocalDecoder(dim=8, heads=2, layers=1, window=8)
        >>> parts = dict(embedding=torch.nn.Embedding(256, 8), decoder=decoder, head=torch.nn.Linear(8, 256))
        >>> reading = read(wc.ChunkReduceLM(body=body, **parts).eval(), b"the same again, and on")
        >>> reading.bands, [(chunk.start, chunk.length, len(chunk.codes)) for chunk in reading.chunks]
        (('cA2', 'cD2', 'cD1'), [(0, 16, 4), (16, 6, 2)])
    """
    if not isinstance(model, ChunkReduceLM) or not isinstance(model.body, ChunkReduce):
        raise ValueError(f"model has type {type(model).__name__}; allowed: a ChunkReduceLM around a ChunkReduce")
    if not text:
        raise ValueError("text is empty; allowed: one byte and more")
    device = next(model.parameters()).device
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()[None].to(device)
    with torch.no_grad():
        stages = model.body.stages(embed_tokens(model.embedding, tokens))
        codes = model.body.reduce(stages)
    bits, hidden = surprisal(model, tokens, codes), surprisal(model, tokens, "hidden")
    if not (bits + hidden).isfinite().all():
        raise ValueError("the model's predictions are not finite; its weights may hold NaN")
    return Reading(
        text=text,
        ratio=float(codes.ratio),
        codes=int(codes.mask.sum()),
        bits=float(bits.mean()),
        hidden=float(hidden.mean()),
        chunk_length=model.body.chunk_length,
        bands=_names(model.body.chunk_networks[0], stages[0]),
        chunks=_chunks(stages[0], bits, hidden, model.body.chunk_length),
    )


def surprisal(model: ChunkReduceLM, tokens: Tensor, codes: Codes | Literal["hidden"]) -> Tensor:
    """Bits that each byte of one row holds for the model, ``(length,)``.

    Args:
        model: in eval mode.
        tokens: ``(1, length)``.
        codes: of these tokens, or ``"hidden"`` to predict without.
    """
    with torch.no_grad():
        logits = model(tokens, codes=codes)[0].float()
    return F.cross_entropy(logits, tokens[0], reduction="none") / math.log(2)


def band_layout(network: nn.Module) -> BandLayout | None:
    """What the bands are whose energies a Chunk-Network reports; ``None`` where it has no transform to tell."""
    transform = getattr(getattr(network, "compressor", None), "transform", None)
    if not isinstance(transform, ChunkTransform):
        return None
    length: int = network.chunk_length  # type: ignore[assignment]
    # where each chunk has a tree of its own, this names the nodes of all trees
    unknown = torch.zeros(1, 1, len(transform.layout(length)), dtype=torch.int64)
    return transform.layout_of(unknown, length)


def _chunks(codes: Codes, bits: Tensor, hidden: Tensor, length: int) -> tuple[ChunkReading, ...]:
    starts = range(0, len(bits), length)
    kept: list[list[Code]] = [[] for _ in starts]
    held = codes.mask[0]
    fields = (codes.chunk, codes.level, codes.frequency, codes.position, codes.support)
    for chunk, level, frequency, position, support in zip(*(field[0][held].tolist() for field in fields)):
        # the position of a byte is its own middle
        kept[chunk].append(Code(level, frequency, position + 0.5 - support / 2 - starts[chunk], support))
    energy = codes.statistics.get("band_energy", torch.zeros(1, len(starts), 0))[0].tolist()
    return tuple(
        ChunkReading(start, len(with_codes), float(with_codes.mean()), float(without.mean()), tuple(bands), tuple(mine))
        for start, with_codes, without, bands, mine in zip(
            starts, bits.split(length), hidden.split(length), energy, kept
        )
    )


def _names(network: nn.Module, codes: Codes) -> tuple[str, ...]:
    energy = codes.statistics.get("band_energy")
    count = 0 if energy is None else energy.shape[-1]
    layout = band_layout(network)
    if layout is not None and len(layout.names) == count:
        return layout.names
    return tuple(f"band {number}" for number in range(count))
