"""Foreign modules as parts of Chunk- and Reduce-Networks.

What a module must accept: it maps ``(rows, length, dim)`` to the same shape, row by row. As the encoder of a
Chunk-Network it may read both ways; inside a causal Reduce-Network place i may depend on places up to i only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.modules import Module


class SequenceAdapter(Module):
    """Gives a foreign module the form that encoders have: ``(rows, length, dim)`` to the same shape.

    A module that returns several things, as a GRU does, or an object with ``last_hidden_state``, as the models of
    ``transformers`` do, is understood.

    Args:
        module: any module on sequences, batch first.
        channels_first: whether it wants ``(rows, dim, length)``, as convolutions do.
        causal_mask: the name of the argument under which it takes a ``(length, length)`` boolean mask that is true
            where a place must not look, as ``mask`` of ``torch.nn.TransformerEncoder``; ``None`` for no mask.

    Raises:
        ValueError: an output of another shape, naming both.

    Example:
        >>> SequenceAdapter(torch.nn.GRU(8, 8, batch_first=True))(torch.randn(3, 16, 8)).shape
        torch.Size([3, 16, 8])
    """

    def __init__(self, module: nn.Module, *, channels_first: bool = False, causal_mask: str | None = None) -> None:
        super().__init__()
        self.module = module
        self.channels_first = channels_first
        self.causal_mask = causal_mask

    def extra_repr(self) -> str:
        return f"channels_first={self.channels_first}, causal_mask={self.causal_mask!r}"

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, length, dim)`` to the same shape."""
        arguments: dict[str, Any] = {}
        if self.causal_mask is not None:
            length = x.shape[-2]
            arguments[self.causal_mask] = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        out = self.module(x.mT if self.channels_first else x, **arguments)
        out = getattr(out, "last_hidden_state", out)
        out = out[0] if isinstance(out, tuple) else out
        out = out.mT if self.channels_first else out
        if out.shape != x.shape:
            name = type(self.module).__name__
            raise ValueError(f"module {name} returned shape {tuple(out.shape)}, expected {tuple(x.shape)}")
        return out


class ReduceAdapter(Module):
    """A foreign module as a Reduce-Network: it changes the values, and codes keep their slots and their ``end``.

    It sees the slots in order of ``end``, empty ones as zeros, and nothing of their positions: an encoding in the
    compressor tells it.

    Args:
        network: from ``(batch, slots, dim)`` to the same shape; see :class:`SequenceAdapter`.
        causal: whether place i of it depends on places up to i only.

    Example:
        >>> network = SequenceAdapter(torch.nn.GRU(8, 8, batch_first=True))
        >>> ReduceAdapter(network=network, causal=True)(wc.Codes.from_tokens(torch.randn(2, 10, 8))).values.shape
        torch.Size([2, 10, 8])
    """

    def __init__(self, *, network: nn.Module, causal: bool) -> None:
        super().__init__()
        self.network = network
        self.causal = causal

    def extra_repr(self) -> str:
        return f"causal={self.causal}"

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to as many ``Codes``; empty slots stay zero."""
        values = self.network(codes.values)
        if values.shape != codes.values.shape:
            name = type(self.network).__name__
            raise ValueError(
                f"network {name} returned shape {tuple(values.shape)}, expected {tuple(codes.values.shape)}"
            )
        return codes.replace(values=values * codes.mask[..., None])

    def step(self, codes: Codes, state: Codes | None = None) -> tuple[Codes, Codes]:
        """Further codes of a sequence, as ``forward`` on the whole gives them: it is read anew, as its state.

        Args:
            codes: in the slots and order that they have in the whole.
            state: as returned by the step before; ``None`` at the beginning.

        Raises:
            ValueError: a network that is not causal.
        """
        if not self.causal:
            raise ValueError("causal=False reads the whole sequence; step is for causal networks")
        whole = codes if state is None else Codes.join([state, codes])
        slots = whole.values.shape[1]
        made = self(whole)
        return made.part(slots - codes.values.shape[1], slots), whole
