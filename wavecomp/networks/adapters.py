"""Foreign modules as parts of Chunk- and Reduce-Networks.

What a module must accept: it maps ``(rows, length, dim)`` to the same shape, row by row (of PyTorch's modules those
that are ``batch_first``), and has a finite gradient at zeros, which stand where there is nothing. As the encoder of a
Chunk-Network it may read both ways; inside a causal Reduce-Network place i may depend on places up to i only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.modules import Module
from wavecomp.networks.chunk import check_returned, check_rows_apart, uncompiled


class SequenceAdapter(Module):
    """Gives a foreign module the form that encoders have: ``(rows, length, dim)`` to the same shape.

    The module is called with the sequence alone: of the models of ``transformers`` give their stack of layers, such as
    ``BertModel(config).encoder``. One that returns several things, as a GRU does, or an object with
    ``last_hidden_state``, as those do, is understood.

    Args:
        module: any module on sequences, batch first.
        channels_first: whether it wants ``(rows, dim, length)``, as convolutions do.
        causal_mask: the name of the argument under which it takes a ``(length, length)`` boolean mask that is true
            where a place must not look, as ``mask`` of ``torch.nn.TransformerEncoder``; ``None`` for no mask.
        padding_mask: the name of the argument under which it takes a ``(rows, length)`` boolean mask that is true where
            there is nothing, as ``src_key_padding_mask`` of the same; ``None`` for a module that sees zeros there.

    A model that is to be saved has its parts built again from what they remember, and modules of PyTorch remember
    nothing: name them in a recipe, or wrap one that you build yourself in a :class:`wavecomp.Module`.

    Raises:
        ValueError: an output of another shape, naming both; a module of PyTorch that is not ``batch_first``, or a
            batch normalisation: rows would read one another.

    Example:
        >>> SequenceAdapter(torch.nn.GRU(8, 8, batch_first=True))(torch.randn(3, 16, 8)).shape
        torch.Size([3, 16, 8])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        channels_first: bool = False,
        causal_mask: str | None = None,
        padding_mask: str | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.channels_first = channels_first
        self.causal_mask = causal_mask
        self.padding_mask = padding_mask

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "module":
            check_rows_apart(name, value)
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        masks = f"causal_mask={self.causal_mask!r}, padding_mask={self.padding_mask!r}"
        return f"channels_first={self.channels_first}, {masks}"

    def forward(self, x: Tensor, *, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(rows, length, dim)`` to the same shape.

        Args:
            lengths: ``(rows,)``, how many first places hold something, as an encoder is told; all unless given.
            mask: ``(rows, length)``, which do, as a Reduce-Network is told.
        """
        if lengths is not None:
            mask = torch.arange(x.shape[-2], device=x.device) < lengths[:, None]
        arguments: dict[str, Any] = {}
        if self.causal_mask is not None:
            length = x.shape[-2]
            arguments[self.causal_mask] = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        if self.padding_mask is not None and mask is not None:
            # a row of nothing sees its zeros: attention to no place at all is NaN
            arguments[self.padding_mask] = ~mask & (mask.sum(-1, keepdim=True) > 0)
        out = self.module(x.mT if self.channels_first else x, **arguments)
        out = getattr(out, "last_hidden_state", out)
        out = out[0] if isinstance(out, tuple) else out
        out = out.mT if self.channels_first and isinstance(out, Tensor) else out
        return check_returned("module", self.module, out, x, hint="")


class ReduceAdapter(Module):
    """A foreign module as a Reduce-Network: it changes the values, and codes keep their slots and their ``end``.

    It sees the slots in order of ``end``, empty ones as zeros, and nothing of their positions: an encoding in the
    compressor tells it. How many empty slots there are behind a row depends on the longest of the batch: a network that
    is not causal, and is not told which they are (``padding_mask`` of :class:`SequenceAdapter`), may answer otherwise
    in other company.

    To read on, all codes are kept and read again: its stream takes longer and longer, unlike that of a
    :class:`ReduceNetwork` with a window.

    Args:
        network: from ``(batch, slots, dim)`` to the same shape; see :class:`SequenceAdapter`, which is told which slots
            hold a code.
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

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "network":
            check_rows_apart(name, value)
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"causal={self.causal}"

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to as many ``Codes``; empty slots stay zero."""
        if not codes.values.shape[1]:
            # many modules refuse a sequence of nothing; and distributed training waits for a gradient of all of them
            one = codes.values.new_zeros(len(codes.values), 1, codes.values.shape[-1])
            return codes.replace(
                values=codes.values + self._read(one, torch.ones_like(one[..., 0], dtype=torch.bool))[:, :0]
            )
        return codes.replace(values=self._read(codes.values, codes.mask) * codes.mask[..., None])

    def _read(self, values: Tensor, mask: Tensor) -> Tensor:
        told = {"mask": mask} if isinstance(uncompiled(self.network), SequenceAdapter) else {}
        return check_returned("network", self.network, self.network(values, **told), values)

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
        whole = codes if state is None else Codes.cat([state, codes])
        slots = whole.values.shape[1]
        made = self(whole)
        return made.part(slots - codes.values.shape[1], slots), whole
