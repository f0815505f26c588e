"""The base of our modules: they remember what they were built with, so that a model can be built again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def weight_dtype(layer: nn.Module, like: Tensor) -> torch.dtype:
    """That of a layer's weight, or of ``like`` where the layer is quantised and has none to show."""
    return getattr(layer.weight, "dtype", like.dtype)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in eval mode; afterwards each of its modules is in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


class Arguments(NamedTuple):
    """What a module was built with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Module(nn.Module):
    """An ``nn.Module`` that remembers what it was built with.

    Tensors alone do not make a model: to save one whole (``model.save_pretrained``) its parts have to be built again.
    A part of one's own that is to be saved inherits from this; nothing else changes.

    Example:
        >>> class Doubled(wc.Module):
        ...     def __init__(self, *, dim: int) -> None:
        ...         super().__init__()
        ...         self.linear = torch.nn.Linear(dim, 2 * dim)
        >>> built_with(Doubled(dim=4)).kwargs
        {'dim': 4}
    """

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        return remember(super().__new__(cls), *args, **kwargs)


def remember(module: M, /, *args: Any, **kwargs: Any) -> M:
    """Let a module know what it was built with."""
    object.__setattr__(module, "_built_with", Arguments(args, kwargs))
    return module


def built_with(module: nn.Module) -> Arguments | None:
    """What a module was built with; ``None`` where it does not remember."""
    return vars(module).get("_built_with")
