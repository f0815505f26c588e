"""Metrics of compressing models; states are sums, so that they add up over batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from wavecomp.codes import Codes, compression_ratio
from wavecomp.records import check_shape


class ExactMetric(Metric):
    """A metric whose sums keep their type where a model is cast: in half precision they would soon stand still.

    torchmetrics does so for ``half()`` and ``bfloat16()``, this for ``to(torch.bfloat16)`` too, which is what
    Lightning's ``precision="bf16-true"`` calls. ``set_dtype`` casts them.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> ExactMetric:
        keep = fn if self._dtype_convert else lambda x: fn(x).to(x.dtype)
        return super()._apply(keep, exclude_state)  # type: ignore[return-value]


class ExactMean(ExactMetric, MeanMetric):
    """A mean whose sums keep their type.

    Example:
        >>> metric = ExactMean().to(torch.bfloat16)
        >>> for _ in range(600):
        ...     metric.update(1.0)
        >>> float(metric.compute()), metric.weight.dtype
        (1.0, torch.float32)
    """


class _Bits(ExactMetric):
    """Bits per byte of nats that are added up, of however many batches.

    In single precision a sum stands still beside what is 2 ** 24 times smaller, and not every device has double: so
    what each addition rounds off is added up too (Neumaier, 1974).
    """

    full_state_update = False
    nats: Tensor
    rounded: Tensor
    bytes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("rounded", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, nats: Tensor, mask: Tensor | None, size: Tensor | None) -> None:
        mask = _mask_of(nats, mask)
        before, more = self.nats, torch.where(mask, nats, 0).float().sum()
        self.nats = before + more
        kept_first = before.abs() >= more.abs()
        larger, smaller = torch.where(kept_first, before, more), torch.where(kept_first, more, before)
        self.rounded += torch.where(self.nats.isfinite(), larger - self.nats + smaller, 0)
        self.bytes += bytes_of(mask, size)

    def compute(self) -> Tensor:
        return (self.nats + self.rounded) / self.bytes / math.log(2)


class BitsPerByte(_Bits):
    """Mean bits per byte: summed negative log-likelihood over bytes, in base 2.

    Example:
        >>> metric = BitsPerByte()
        >>> metric.update(torch.full((2, 4), math.log(256)))
        >>> round(float(metric.compute()), 4)
        8.0
    """

    higher_is_better = False

    def update(self, nats: Tensor, mask: Tensor | None = None, size: Tensor | None = None) -> None:
        """Add bytes.

        Args:
            nats: ``(batch, length)``, negative log-likelihood of each byte.
            mask: ``(batch, length)``, which bytes count; all unless given.
            size: ``(batch, length)``, bytes of each token, where tokens are not bytes.
        """
        self._add(nats, mask, size)


class ContextGain(_Bits):
    """How much the codes help: bits per byte with the codes hidden minus with them.

    Example:
        >>> metric = ContextGain()
        >>> metric.update(torch.ones(1, 4), hidden=torch.ones(1, 4) + math.log(2))
        >>> round(float(metric.compute()), 4)
        1.0
    """

    higher_is_better = True

    def update(self, nats: Tensor, hidden: Tensor, mask: Tensor | None = None, size: Tensor | None = None) -> None:
        """Add bytes.

        Args:
            nats, hidden: ``(batch, length)``, negative log-likelihood of each byte with the codes and without.
            mask: ``(batch, length)``, which bytes count; all unless given.
            size: ``(batch, length)``, bytes of each token, where tokens are not bytes.
        """
        check_shape("ContextGain", "hidden", hidden, tuple(nats.shape))
        self._add(hidden - nats, mask, size)


class CompressionRatio(ExactMetric):
    """Tokens over codes, sum over sum.

    Example:
        >>> metric = CompressionRatio()
        >>> metric.update(Codes.from_tokens(torch.zeros(2, 8, 4)))
        >>> float(metric.compute())
        1.0
    """

    higher_is_better = True
    full_state_update = False
    tokens: Tensor
    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("codes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Codes) -> None:
        """Add the codes of a batch."""
        self.tokens += codes.tokens.sum()
        self.codes += codes.mask.sum()

    def compute(self) -> Tensor:
        return compression_ratio(self.tokens, self.codes)


class CodesPerByte(CompressionRatio):
    """Codes over tokens that are bytes, sum over sum: the rate of an autoencoder, beside its bits per byte.

    Example:
        >>> metric = CodesPerByte()
        >>> network = wc.ChunkNetwork(chunk_length=8, compressor=wc.MeanPoolCompressor(count=2))
        >>> metric.update(network(Codes.from_tokens(torch.zeros(2, 8, 4))))
        >>> float(metric.compute())
        0.25
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        return self.codes / self.tokens


def bytes_of(mask: Tensor, size: Tensor | None) -> Tensor:
    """How many bytes are marked: one a token, or as many as each is said to have, of the same shape."""
    if size is not None:
        check_shape("bytes", "size", size, tuple(mask.shape))
    return mask.sum() if size is None else torch.where(mask, size, 0).sum()


def _mask_of(nats: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(nats, dtype=torch.bool)
    if mask.shape != nats.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, nats {tuple(nats.shape)}; they must agree")
    return mask
