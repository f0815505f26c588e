"""The minor channel: pruned details travel as small learned projections under a kept code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavecomp.bands import Bands


class DetailChannel(nn.Module):
    """Adds to each approximation the details under it, through one learned projection per band.

    The approximation is on the identity path, so a model starts from local averages and learns what to add: nothing
    that is pruned is lost without a gradient telling the encoder so.

    Args:
        dim: width of the codes.
        level: level of the approximation; ``2 ** level - 1`` details lie under each.
        scale: size of the projections at the start, relative to the approximation's identity path.

    Raises:
        ValueError: a level below 1, or a negative scale.
    """

    def __init__(self, *, dim: int, level: int, scale: float = 0.5) -> None:
        super().__init__()
        if level < 1:
            raise ValueError(f"level={level} is too small; allowed: 1 and above")
        if scale < 0:
            raise ValueError(f"scale={scale} is negative; allowed: 0 and above")
        self.level = level
        # coarse to fine: 1, 2, 4, ... details under an approximation
        projections = [nn.Linear(2**step * dim, dim, bias=False) for step in range(level)]
        for projection in projections:
            nn.init.normal_(projection.weight, std=scale / dim**0.5)
        self.projections = nn.ModuleList(projections)

    def forward(self, bands: Bands, first: int = 0) -> Tensor:
        """What is added to the approximations.

        Args:
            bands: values ``(batch, chunks, coefficients, dim)``, of this level.
            first: the details before this coefficient have codes of their own and are left out.

        Returns:
            ``(batch, chunks, approximations, dim)``.
        """
        values = bands.values
        approximations = -(-values.shape[-2] // 2**self.level)
        total = values.new_zeros(())
        start = approximations
        for step, projection in enumerate(self.projections):
            coarser = -(-values.shape[-2] // 2 ** (self.level - step))
            count = -(-values.shape[-2] // 2 ** (self.level - step - 1)) - coarser
            details = values[..., start : start + count, :]
            if start < first:
                own = torch.arange(start, start + count, device=values.device) < first
                details = torch.where(own[:, None], 0, details)
            missing = approximations * 2**step - count
            details = nn.functional.pad(details, (0, 0, 0, missing))
            total = total + projection(details.unflatten(-2, (approximations, 2**step)).flatten(-2))
            start += count
        return total
