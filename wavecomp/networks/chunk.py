"""The Chunk-Network: encode each chunk, compress it; and the way back."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors import Compressor
from wavecomp.modules import Module
from wavecomp.records import check_count, check_type


class ChunkNetwork(Module):
    """Cuts codes into chunks, encodes each by itself and compresses it: Codes to fewer Codes.

    Args:
        chunk_length: codes per chunk; slots, where some are empty.
        encoder: any module from ``(rows, chunk_length, dim)`` to the same shape, or ``None``. Each row is one chunk,
            zero behind its length; no row may have a part in another's, and the gradient at zeros is finite
            (:mod:`wavecomp.networks.adapters`). An encoder whose ``forward`` takes ``lengths`` (``(rows,)``) is given
            them, or ``None`` where every chunk is complete; any other sees the zeros.
        compressor: chunks to codes.

    Raises:
        TypeError: no compressor.
        ValueError: a compressor that cannot work on chunks of this length, or an encoder in which rows read one
            another: one of PyTorch that is not ``batch_first``, or a batch normalisation.

    Example:
        >>> compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> network = ChunkNetwork(chunk_length=16, encoder=torch.nn.Linear(8, 8), compressor=compressor)
        >>> tokens = wc.Codes.from_tokens(torch.randn(2, 40, 8))
        >>> codes = network(tokens)
        >>> codes.mask.sum(-1)
        tensor([10, 10])
        >>> network.expand(codes, tokens).values.shape
        torch.Size([2, 40, 8])
    """

    def __init__(self, *, chunk_length: int, encoder: nn.Module | None = None, compressor: Compressor) -> None:
        super().__init__()
        check_chunk_length(chunk_length)
        hint = ", such as WaveletCompressor(transform=..., pruner=...)"
        check_type("compressor", compressor, Compressor, hint=hint)
        compressor.capacity(chunk_length)
        self.chunk_length = chunk_length
        self.encoder = encoder
        self.compressor = compressor

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "encoder" and value is not None:
            check_rows_apart(name, value)
        super().__setattr__(name, value)
        if name == "encoder":  # asked when it comes, for a compiler cannot ask
            self.encoder_takes_lengths = value is not None and takes_lengths(value)

    @property
    def causal(self) -> bool:
        """Whether the codes of a chunk depend on that chunk alone."""
        return self.compressor.causal

    @property
    def capacity(self) -> int:
        """Slots that each chunk becomes."""
        return self.compressor.capacity(self.chunk_length)

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to fewer ``Codes``."""
        check_type("codes", codes, Codes, hint="; Codes.from_tokens makes them of embeddings (batch, length, dim)")
        chunks = codes.cut(self.chunk_length)
        if self.encoder is not None:
            chunks = read_chunks(chunks, self.encoder, self.encoder_takes_lengths, name="encoder")
        return check_codes("compressor", self.compressor, self.compressor(chunks))

    if TYPE_CHECKING:
        __call__ = forward

    def expand(self, codes: Codes, before: Codes) -> Codes:
        """The way back, by :meth:`Compressor.expand`; the encoder is not undone.

        Args:
            codes: those of :meth:`forward`, or what a network made of their values, in the same slots.
            before: what :meth:`forward` was given; only which slots hold a code and where these lie is read.

        Returns:
            ``before`` with the values that its slots get from the codes.
        """
        back = self.compressor.expand(codes, before.cut(self.chunk_length))
        return before.replace(values=_in_slots(back, before))


def _in_slots(values: Tensor, codes: Codes) -> Tensor:
    """Values of chunks ``(batch, chunks, chunk_length, dim)`` in the slots that :meth:`Codes.cut` takes them from."""
    slots = codes.mask.shape[1]
    if not codes.dense:
        mask = F.pad(codes.mask, (0, values.shape[1] * values.shape[2] - slots)).view(values.shape[:-1])
        place = (mask.cumsum(-1) - 1).clamp(min=0)[..., None]
        values = torch.where(mask[..., None], values.gather(-2, place.expand_as(values)), 0)
    return values.flatten(1, 2)[:, :slots]


def read_chunks(chunks: Chunks, network: nn.Module, lengths: bool, *, name: str) -> Chunks:
    """Each chunk through a module by itself.

    Args:
        network: from ``(rows, chunk_length, dim)`` to the same shape.
        lengths: whether it takes them, see :func:`takes_lengths`.
        name: of the argument that the module came as, for the error.

    Raises:
        ValueError: an output of another shape, naming both.
    """
    rows = chunks.values.flatten(0, 1)
    if lengths:
        out = network(rows, lengths=None if chunks.dense else chunks.lengths.flatten())
    else:
        out = network(rows)
    out = check_returned(name, network, out, rows)
    # what a module makes of padding may be no number (its gradient has to be one)
    return chunks.replace(values=torch.where(chunks.mask[..., None], out.view_as(chunks.values), 0))


def check_returned(
    name: str, module: nn.Module, out: Any, given: Tensor, *, hint: str = "; SequenceAdapter takes such modules"
) -> Tensor:
    """What a module returned, or a ``ValueError`` unless it is a tensor of the shape that it was given.

    Args:
        name: of the argument that the module came as.
        hint: behind the error where it is no tensor.
    """
    kind = type(module).__name__
    if not isinstance(out, Tensor):
        raise ValueError(
            f"{name} {kind} returned a {type(out).__name__}, expected a tensor of shape {tuple(given.shape)}{hint}"
        )
    if out.shape != given.shape:
        raise ValueError(f"{name} {kind} returned shape {tuple(out.shape)}, expected {tuple(given.shape)}")
    return out


def check_codes(name: str, module: nn.Module, out: Any) -> Codes:
    """What a module returned, or a ``ValueError`` unless it is ``Codes``."""
    if not isinstance(out, Codes):
        raise ValueError(f"{name} {type(module).__name__} returned a {type(out).__name__}, expected Codes")
    return out


def check_rows_apart(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` for a module in which rows read one another, though all shapes fit.

    That is a batch normalisation anywhere in it, and a module of PyTorch that takes its first axis for time, as they do
    unless told. What stands beside a class of one's own may get its axes turned by it, and passes.

    Args:
        name: of the argument that the module came as.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{name} holds a {type(part).__name__}, which reads all rows and chunks in training, also those that "
                "come later; allowed: RMSNorm, LayerNorm, GroupNorm"
            )
    _check_batch_first(name, module)


def _check_batch_first(name: str, module: nn.Module) -> None:
    found = uncompiled(module)
    parts: list[nn.Module] = []
    if isinstance(found, (nn.Sequential, nn.TransformerEncoder)):
        parts = list(found if isinstance(found, nn.Sequential) else found.layers)
    if not all(map(_forward_of_torch, (found, *parts))):
        return
    told = found.self_attn if isinstance(found, nn.TransformerEncoderLayer) else found
    if getattr(told, "batch_first", True) is False:
        raise ValueError(
            f"{name} holds a {type(found).__name__} with batch_first=False, which takes rows for time; "
            "allowed: batch_first=True, or a class that turns the axes"
        )
    for part in parts:
        _check_batch_first(name, part)


def _forward_of_torch(module: nn.Module) -> bool:
    forward = inspect.getattr_static(type(module), "forward")  # of a scripted one it is no function
    return str(getattr(forward, "__module__", "")).startswith("torch.")


def takes_lengths(network: nn.Module) -> bool:
    """Whether the ``forward`` of a module has an argument ``lengths``; of a compiled one, that of what was compiled."""
    return "lengths" in inspect.signature(uncompiled(network).forward).parameters


def uncompiled(network: nn.Module) -> nn.Module:
    """What ``torch.compile`` was given, or the module itself."""
    found: nn.Module = getattr(network, "_orig_mod", network)
    return found


def check_chunk_length(chunk_length: int) -> None:
    """Raise ``ValueError`` for a chunk length below 1."""
    check_count("chunk_length", chunk_length)
