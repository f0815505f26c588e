"""The contract of every compressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wavecomp.codes import Chunks, Codes
from wavecomp.modules import Module
from wavecomp.records import check_shape


class Compressor(Module):
    """Chunks to fewer Codes, in a static number of slots per chunk, and back.

    ``causal`` says that no code of a chunk depends on what comes behind it. A compressor that compares chunks or looks
    at a whole sequence says ``False``, and a causal model refuses it.
    """

    _causal = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if isinstance(vars(cls).get("causal"), bool):  # said of the class: it still asks its parts
            cls._causal = vars(cls)["causal"]
            del cls.causal

    @property
    def causal(self) -> bool:
        """Whether each of its parts is: any module in it may say ``causal = False`` of itself."""
        return self._causal and all(getattr(part, "causal", True) for part in self.modules() if part is not self)

    @causal.setter
    def causal(self, causal: bool) -> None:
        self._causal = causal

    def capacity(self, chunk_length: int) -> int:
        """Slots that a chunk of this length gets.

        Raises:
            ValueError: when the compressor cannot work on such chunks.
        """
        raise NotImplementedError

    def forward(self, chunks: Chunks) -> Codes:
        """Chunks of values ``(batch, chunks, chunk_length, dim)`` to codes in ``(batch, chunks * capacity)`` slots."""
        raise NotImplementedError

    if TYPE_CHECKING:
        __call__ = forward

    def expand(self, codes: Codes, chunks: Chunks) -> Tensor:
        """Codes back to the values of their chunks: the inverse of :meth:`forward`, with zero for what was dropped.

        What was kept of the values that forward had normalised per token comes back. Weights, an encoding and a detail
        channel are not undone: they lie in the codes, for a network to read.

        Args:
            codes: those of :meth:`forward`, or what a network made of their values, in the same slots.
            chunks: the chunks that they stand for; only how long they are and where they lie is read.

        Returns:
            ``(batch, chunks, chunk_length, dim)``, zero behind each chunk's length.

        Raises:
            ValueError: codes in another number of slots.

        Example:
            >>> chunks = wc.Codes.from_tokens(torch.tensor([[[1.0], [-1], [1], [1]]])).cut(4)
            >>> compressor = wc.MeanPoolCompressor(count=2)
            >>> codes = compressor(chunks)
            >>> compressor.expand(codes.replace(values=5 * codes.values), chunks).flatten()
            tensor([0., 0., 5., 5.])
        """
        batch, count, length, _ = chunks.values.shape
        slots = self.capacity(length)
        check_shape("expand", "codes.mask", codes.mask, (batch, count * slots))
        values = torch.where(codes.mask[..., None], codes.values, 0).unflatten(1, (count, slots))
        return torch.where(chunks.mask[..., None], self.restore(values, codes, chunks), 0)

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """What :meth:`expand` gives, but for what lies behind each chunk's length.

        Here each place has the code that covers it, the finest of several, or else the one that ends nearest.

        Args:
            values: ``(batch, chunks, slots, dim)``, those of the codes, zero in empty slots.
        """
        position, support, level, mask = (
            x.reshape(values.shape[:-1])[..., None, :] for x in (codes.position, codes.support, codes.level, codes.mask)
        )
        distance = (chunks.position[..., None] - position).abs()
        beyond = (distance - support / 2).clamp(min=0).masked_fill(~mask, torch.inf)
        # a level is worth more than any distance within it
        order = (level + distance / (1 + distance)).masked_fill(beyond > beyond.amin(-1, keepdim=True), torch.inf)
        return gather_rows(values, order.argmin(-1))


def node_counts(length: int, level: int) -> list[int]:
    """How many nodes a dyadic tree over a chunk has at each level, coarse to fine, down to level 0: its tokens."""
    return [-(-length // 2**here) for here in range(level, -1, -1)]


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` ``(..., places)`` of ``values`` ``(..., rows, dim)``: ``(..., places, dim)``."""
    return values.gather(-2, index[..., None].expand(*index.shape, values.shape[-1]))


def scatter_rows(values: Tensor, index: Tensor, rows: int) -> Tensor:
    """The inverse of :func:`gather_rows`: ``(..., places, dim)`` to ``(..., rows, dim)``, zero in all other rows.

    What goes to the same row adds up, so that empty places, which are zero, may name any.
    """
    found = values.new_zeros(*values.shape[:-2], rows, values.shape[-1])
    return found.scatter_add(-2, index[..., None].expand_as(values), values)
