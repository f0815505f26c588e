"""Rotary positions (Su et al., RoFormer, 2021) at any real position, measured in tokens."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Cosines and sines, each ``(batch or 1, 1, length, turned / 2)``."""

    cos: Tensor
    sin: Tensor


def rotary_angles(position: Tensor, turned: int, *, base: float = 10000.0) -> Rotary:
    """Angles ``position * base ** (-2 j / turned)``.

    Args:
        position: ``(length,)`` or ``(batch, length)``, in tokens.
        turned: how many channels of a head are turned, even.

    Raises:
        ValueError: an odd number of channels.
    """
    if turned % 2:
        raise ValueError(f"turned={turned} is odd; allowed: even numbers")
    # fp32 would be off by 0.005 rad at a million tokens; MPS has no fp64
    dtype = torch.float32 if position.device.type == "mps" else torch.float64
    speed = base ** (-torch.arange(0, turned, 2, device=position.device, dtype=dtype) / turned)
    angle = (torch.atleast_2d(position).to(dtype)[..., None] * speed).unsqueeze(1)
    return Rotary(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair (x_j, x_{j + turned / 2}) of ``x (batch, heads, length, head_dim)`` by its angle.

    Channels beyond the turned ones stay as they are: they compare by content, wherever it stands.
    """
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)
