"""The contract of transforms of chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavecomp.bands import BandLayout, Bands
from wavecomp.compiling import numbers_are_real
from wavecomp.modules import Module


class ChunkTransform(Module):
    """The contract: chunks to bands and back, critically sampled or nearly so.

    ``level`` is the deepest level of its bands; ``binary`` says that each level splits the places of a chunk in two,
    ``dyadic`` that the bands are cA_n, cD_n, ..., cD_1 as well.
    """

    level: int
    binary: bool = False
    dyadic: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._layouts: dict[tuple[str, int, torch.device], BandLayout] = {}

    def _remembered(
        self, what: str, chunk_length: int, device: torch.device | str | None, build: Callable[[], BandLayout]
    ) -> BandLayout:
        """A layout made once for each chunk length and device; a compiler traces it instead."""
        device = torch.device("cpu" if device is None else device)
        if not numbers_are_real():
            return build().to(device)
        key = (what, chunk_length, device)
        if key not in self._layouts:
            # a later gradient may index with it; and a model is built on "meta" with layouts that are real
            with torch.inference_mode(False), torch.device("cpu"):
                self._layouts[key] = build().to(device)
        return self._layouts[key]

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, ragged: bool = False) -> Bands:
        """Analysis.

        Args:
            x: ``(batch, chunks, chunk_length, dim)``, or ``(rows, chunk_length, dim)``.
            lengths: ``(batch, chunks)`` or ``(rows,)``, valid samples of each chunk; all unless given.
            ragged: whether chunks other than the last of a row may be short.

        Returns:
            :class:`Bands` with ``values`` of x's shape, coarse to fine.
        """
        raise NotImplementedError

    if TYPE_CHECKING:
        __call__ = forward

    def inverse(self, bands: Bands) -> Tensor:
        """Synthesis: ``(..., chunk_length, dim)``, zero behind each chunk's length."""
        raise NotImplementedError

    @property
    def bands(self) -> int:
        """How many bands it has, whatever the chunk length: each coefficient's ``band`` is below it."""
        raise NotImplementedError

    def layout(self, chunk_length: int, device: torch.device | str | None = None) -> BandLayout:
        """What each coefficient of a chunk of this length is, on the CPU unless said.

        Raises:
            ValueError: a chunk too short for the transform's levels.
        """
        raise NotImplementedError

    def layout_of(self, level: Tensor, chunk_length: int) -> BandLayout:
        """The layout of chunks of which some coefficients are known, for their inverse; the others are to be zero.

        Args:
            level: ``(batch, chunks, coefficients)``, the level of each known one, 0 for the others. A transform with
                one tree for all chunks does not read it.
        """
        return self.layout(chunk_length, level.device)
