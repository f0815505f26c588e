"""Frozen dataclasses of tensors: pytrees that move between devices and check their shapes once, when they are built."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from types import NoneType
from typing import Any, ClassVar, TypeVar, dataclass_transform

import torch
from torch.utils import _pytree as pytree

from wavecomp.compiling import numbers_are_real

T = TypeVar("T", bound="Record")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass and register it as a pytree.

    Fields named in ``cls.static`` are part of the tree's structure, not leaves.
    """
    cls = dataclass(frozen=True, eq=False, repr=False)(cls)
    leaves = [f.name for f in fields(cls) if f.name not in cls.static]  # type: ignore[arg-type]

    def flatten(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in leaves], tuple(getattr(value, name) for name in cls.static)

    def unflatten(children: Any, context: tuple[Any, ...]) -> T:
        value = object.__new__(cls)  # a tree may hold placeholders: no shape checks
        for name, child in [*zip(leaves, children), *zip(cls.static, context)]:
            object.__setattr__(value, name, child)
        return value

    def flatten_with_keys(value: T) -> tuple[list[tuple[pytree.KeyEntry, Any]], tuple[Any, ...]]:
        children, context = flatten(value)
        return [(pytree.GetAttrKey(name), child) for name, child in zip(leaves, children)], context

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        flatten_with_keys_fn=flatten_with_keys,  # torch.export asks for it
        serialized_type_name=f"wavecomp.{cls.__name__}",
        to_dumpable_context=lambda context: context,
        from_dumpable_context=cls.restored,
    )
    torch.serialization.add_safe_globals([cls])  # exported programs are saved with the inputs that they were shown
    return cls


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


class Record:
    """Base of the data types: ``to`` and ``replace``.

    ``measures`` are fields that say where something lies, or how much: half precision would put it elsewhere, or has
    no number as large.
    """

    static: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def restored(cls, context: Any) -> tuple[Any, ...]:
        """Static fields of a program that was exported and saved: they have been JSON, which knows lists only."""
        return _tuples(context)

    def __repr__(self) -> str:
        """Each field, and of tensors the shapes: thousands of numbers tell nobody anything."""
        told = (f"{field.name}={_told(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(told)})"

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Move or cast like ``Module.to``; a dtype reaches fields in floating point, but for measures.

        Raises:
            TypeError: a dtype that is not in floating point.
        """
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"{type(self).__name__}.to: dtype={dtype}; allowed: floating point")

        def move(leaf: Any, cast: bool) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            to = dtype if cast and leaf.is_floating_point() else None
            if to is None and leaf.dtype == torch.float64 and device is not None and device.type == "mps":
                to = torch.float32  # which has no more
            return leaf.to(device, to, non_blocking)

        moved = {
            field.name: pytree.tree_map(partial(move, cast=field.name not in self.measures), getattr(self, field.name))
            for field in fields(self)  # type: ignore[arg-type]
            if field.name not in self.static
        }
        return replace(self, **moved)  # type: ignore[type-var]

    def replace(self: T, **changes: Any) -> T:
        """A copy with some fields changed, checked like any other."""
        return replace(self, **changes)  # type: ignore[type-var]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_told(item)}' for key, item in value.items())}}}"
    if not isinstance(value, torch.Tensor):
        return repr(value)
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}{where}"


def check_count(name: str, value: int, *, least: int = 1) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``value`` is a whole number, ``least`` and above."""
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; allowed: int")
    if value < least:
        raise ValueError(f"{name}={value} is {'too small' if least else 'negative'}; allowed: {least} and above")


def check_weight(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is 0 or above, and finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value} is out of range; allowed: 0 and above, finite")


def check_type(name: str, value: object, *allowed: type, hint: str = "") -> None:
    """Raise ``TypeError`` unless ``value`` is of one of the types, or was before it was compiled.

    Args:
        hint: behind the error, how to get what is allowed.
    """
    if not isinstance(value, allowed) and not isinstance(getattr(value, "_orig_mod", value), allowed):
        told = f"is the class {value.__name__}" if isinstance(value, type) else f"has type {type(value).__name__}"
        kinds = " or ".join("None" if kind is NoneType else kind.__name__ for kind in allowed)
        raise TypeError(f"{name} {told}; allowed: {kinds}{hint}")


def at_least(bound: float) -> str:
    """A bound above 0 in four digits, rounded up, so that what is told is allowed.

    Example:
        >>> at_least(4 / 3), at_most(5 / 3), at_most(16.0)
        ('1.334', '1.666', '16')
    """
    return _rounded(bound, math.ceil)


def at_most(bound: float) -> str:
    """As :func:`at_least`, rounded down."""
    return _rounded(bound, math.floor)


def _rounded(bound: float, way: Callable[[float], int]) -> str:
    whole = f"{bound:.4g}"
    if float(whole) == bound:
        return whole
    step = 10.0 ** (math.floor(math.log10(bound)) - 3)
    return f"{way(bound / step) * step:.4g}"


def check_lengths(owner: str, lengths: torch.Tensor, shape: tuple[int, ...], longest: int) -> None:
    """Raise an error unless ``lengths`` is int64 or int32, has this shape and lies within 0 to ``longest``."""
    kind = lengths.dtype if isinstance(lengths, torch.Tensor) else type(lengths).__name__
    if kind not in (torch.int64, torch.int32):  # sums of smaller ones run over
        raise TypeError(f"{owner}: lengths is of {kind}; allowed: a tensor of torch.int64 or torch.int32")
    check_shape(owner, "lengths", lengths, shape)
    if values_are_at_hand(lengths):
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > longest:
            raise ValueError(f"{owner}: lengths holds {low if low < 0 else high}; allowed: 0 to {longest}")


def values_are_at_hand(tensor: torch.Tensor) -> bool:
    """Whether a look at values is free: on the CPU it is, elsewhere it would wait for the device.

    Under ``torch.func`` a tensor may be that of one of many, and cannot be looked at.
    """
    return tensor.device.type == "cpu" and tensor.numel() > 0 and numbers_are_real()


def without_waiting(numbers: Any, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A few numbers on a device; ``torch.tensor(numbers, device=device)`` would wait until that has done all else."""
    return torch.tensor(numbers, dtype=dtype, device="cpu").to(device, non_blocking=True)


def check_width(module: torch.nn.Module, dim: int, values: torch.Tensor) -> None:
    """Raise ``ValueError`` unless ``values (..., dim)`` are as wide as a module was built for."""
    if values.shape[-1] != dim:
        raise ValueError(f"{type(module).__name__} was given values {values.shape[-1]} wide; allowed: dim={dim}")


def check_level(name: str, level: int, of_transform: int) -> None:
    """Raise ``ValueError`` unless a part of a compressor has the level of its transform."""
    if level != of_transform:
        raise ValueError(f"{name} has level={level}, the transform level={of_transform}; give both one")


def check_shape(owner: str, name: str, tensor: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Raise ``ValueError`` naming both shapes unless ``tensor`` has the expected one."""
    if tuple(tensor.shape) != tuple(expected):
        raise ValueError(f"{owner}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}")
