"""Rotary positions (Su et al., RoFormer, 2021) at any real position, measured in tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Cosines and sines, each ``(batch or 1, 1, length, head_dim / 2)``."""

    cos: Tensor
    sin: Tensor


def rotary_angles(position: Tensor, head_dim: int, *, base: float = 10000.0) -> Rotary:
    """Angles ``position * base ** (-2 j / head_dim)``.

    Args:
        position: ``(length,)`` or ``(batch, length)``, in tokens.
        head_dim: width of one attention head, even.

    Raises:
        ValueError: an odd head_dim.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim={head_dim} is odd; allowed: even numbers")
    # fp32 would be off by 0.005 rad at a million tokens; MPS has no fp64
    dtype = torch.float32 if position.device.type == "mps" else torch.float64
    speed = base ** (-torch.arange(0, head_dim, 2, device=position.device, dtype=dtype) / head_dim)
    angle = (torch.atleast_2d(position).to(dtype)[..., None] * speed).unsqueeze(1)
    return Rotary(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair (x_j, x_{j + head_dim / 2}) of ``x (batch, heads, length, head_dim)`` by its angle."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
