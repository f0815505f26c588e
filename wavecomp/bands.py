"""Bands: a transformed chunk, and BandLayout: what each of its coefficients is."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from wavecomp.records import Record, check_shape, record


@record
class BandLayout(Record):
    """Names every coefficient of a transformed chunk, coarse to fine.

    Every field has shape ``(coefficients,)``, or ``(batch, chunks, coefficients)`` where each chunk has its own tree.

    Args:
        level: level of the band, 1 is the finest.
        band: which of ``names`` the coefficient belongs to; 0 is the approximation.
        index: place of the coefficient within its band.
        needs: the shortest chunk, in tokens, that has this coefficient.
        position: centre of the support, in tokens from the chunk's start.
        support: tokens covered, ``2 ** level`` in a dyadic transform.
        frequency: centre frequency of the band, in cycles per token.
        names: one name per band, for example ``("cA2", "cD2", "cD1")``.
        counts: coefficients per band of a whole chunk.
        length: tokens of a whole chunk.
    """

    level: Tensor
    band: Tensor
    index: Tensor
    needs: Tensor
    position: Tensor
    support: Tensor
    frequency: Tensor
    names: tuple[str, ...]
    counts: tuple[int, ...]
    length: int

    static: ClassVar[tuple[str, ...]] = ("names", "counts", "length")
    measures: ClassVar[tuple[str, ...]] = ("position", "support", "frequency")

    def __post_init__(self) -> None:
        for name in ("band", "index", "needs", "position", "support", "frequency"):
            check_shape("BandLayout", name, getattr(self, name), tuple(self.level.shape))

    def __len__(self) -> int:
        return self.level.shape[-1]

    def take(self, index: Tensor) -> dict[str, Any]:
        """What coefficients ``index`` ``(batch, chunks, places)`` are: position, support, frequency and level."""
        fields = {name: getattr(self, name) for name in ("position", "support", "frequency", "level")}
        if self.level.ndim == 1:
            return {name: value[index] for name, value in fields.items()}
        return {name: value.gather(-1, index) for name, value in fields.items()}

    @property
    def always(self) -> Tensor:
        """Marks the approximation: the coefficients that every pruner keeps."""
        return self.band == 0

    @property
    def row(self) -> Tensor:
        """Which row of a table per level a coefficient is of: that of its level, and row 0 for the approximation."""
        return torch.where(self.always, 0, self.level)


@record
class Bands(Record):
    """Wavelet coefficients of chunks, coarse to fine.

    Args:
        values: ``(..., coefficients, dim)``; zero where a short chunk has no such coefficient.
        lengths: ``(...)``, tokens in each chunk.
        layout: what each coefficient is.
        dense: known to be whole chunks all; a promise that spares the inverse its care for short ones.
        first: chunks of the same sequence that lie before these.
        ragged: known without looking: chunks other than the last of a row may be short.
    """

    values: Tensor
    lengths: Tensor
    layout: BandLayout
    dense: bool = False
    first: int = 0
    ragged: bool = False

    static: ClassVar[tuple[str, ...]] = ("dense", "first", "ragged")
    measures: ClassVar[tuple[str, ...]] = ("layout",)

    def __post_init__(self) -> None:
        check_shape("Bands", "lengths", self.lengths, tuple(self.values.shape[:-2]))
        if len(self.layout) != self.values.shape[-2]:
            raise ValueError(
                f"Bands: the layout names {len(self.layout)} coefficients, values have {self.values.shape[-2]}"
            )

    def replace(self, **changes: Any) -> Bands:
        """A copy with some fields changed; with other ``lengths`` nothing is known of them, unless it is given."""
        return super().replace(**({"dense": False, "ragged": True} if "lengths" in changes else {}) | changes)

    @property
    def mask(self) -> Tensor:
        """``(..., coefficients)``: which coefficients a chunk of this length has."""
        return self.lengths[..., None] >= self.layout.needs

    def energy(self) -> Tensor:
        """Sum of squares in each band, ``(..., len(layout.names))``, coarse to fine.

        With an orthogonal transform the bands of a chunk add up to the energy of its samples.
        """
        power = self.values.to(torch.promote_types(self.values.dtype, torch.float32)).square().sum(-1)
        member = self.layout.band[..., None] == torch.arange(len(self.layout.names), device=power.device)
        return torch.where(member, power[..., None], 0).sum(-2)  # what is infinite is so in its own band only
