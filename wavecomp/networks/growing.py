"""Tensors that grow in place, for what steps remember."""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class Growing:
    """A tensor that grows along one axis; its room doubles, so that a long one is seldom copied.

    A :meth:`copy` costs nothing, so that a state can be gone on from twice: the first to grow takes the room behind
    what both have, the other one moves. With gradients enabled nothing is written in place.

    Args:
        tensor: what is there at the beginning.
        axis: that it grows along.

    Example:
        >>> one = Growing(torch.tensor([1, 2]))
        >>> other = one.copy()
        >>> one.append(torch.tensor([3]))
        >>> other.append(torch.tensor([4]))
        >>> one.tensor.tolist(), other.tensor.tolist()
        ([1, 2, 3], [1, 2, 4])
    """

    def __init__(self, tensor: Tensor, axis: int = -1) -> None:
        self.axis = axis % tensor.ndim
        self._written: list[int] = []
        self._move(tensor, tensor.shape[axis])

    @property
    def length(self) -> int:
        return self._last - self._first

    @property
    def tensor(self) -> Tensor:
        """What is there: a view."""
        return self.room.narrow(self.axis, self._first, self.length)

    def copy(self) -> Growing:
        """The same, which grows by itself."""
        return copy.copy(self)

    def append(self, further: Tensor) -> None:
        """Write ``further`` behind what is there."""
        count = further.shape[self.axis]
        if torch.is_grad_enabled() and (self.room.requires_grad or further.requires_grad):
            self._move(torch.cat([self.tensor, further], dim=self.axis), self.length + count)
            return
        if self._last + count > self.room.shape[self.axis] or not self._may_write():
            shape = list(self.room.shape)
            shape[self.axis] = max(self.length + count, 2 * self.length)
            room = self.room.new_empty(shape)
            room.narrow(self.axis, 0, self.length).copy_(self.tensor)
            self._move(room, self.length)
        self.room.narrow(self.axis, self._last, count).copy_(further)
        self._last += count
        self._written[0] = self._last

    def drop(self, count: int) -> None:
        """Forget so many at the beginning."""
        self._first += count

    def keep(self, first: int, stay: Tensor) -> None:
        """Drop what lies behind ``first``, but for the places in ``stay``, a mask of what does.

        Written over in place: for one that has no copies.
        """
        rest = self.tensor.narrow(self.axis, first, self.length - first)
        rest = rest.movedim(self.axis, -1)[..., stay].movedim(-1, self.axis)
        self._last = self._written[0] = self._first + first
        self.append(rest)

    def _move(self, room: Tensor, length: int) -> None:
        self.room = room
        self._first, self._last = 0, length
        self._written = [length]  # how far any of those that share the room has come

    def _may_write(self) -> bool:
        if torch.is_grad_enabled() or self.room.requires_grad:
            return False  # a gradient may need what is there, be it that of something else
        if self.room.is_inference() and not torch.is_inference_mode_enabled():
            return False
        return self._written[0] == self._last
