"""What a model computes, as a hash: its architecture and its tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WAYS = {"training", "backend", "activation_checkpointing"}
"""Settings of modules that do not change what a model is."""


def fingerprint(model: nn.Module) -> str:
    """A hash of what a model computes: classes and plain settings of its modules, and its tensors.

    The same for every way to compute it (``backend``, ``activation_checkpointing``).
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(repr((name, kind_of(module), settings_of(module))).encode())
    add_tensors(digest, dict([*model.named_parameters(), *model.named_buffers()]))
    return digest.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Take tensors into a hash, with their names, types and shapes."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The plain values that a module keeps, by name: what it is set to, but for its tensors and submodules.

    Functions, such as activations, count by name.
    """
    return {
        name: _as_tuples(value)
        for name, value in sorted(vars(module).items())
        if _plain(value) and not name.startswith("_") and name not in WAYS
    }


def kind_of(model: nn.Module) -> str:
    """The class of a model, by its full name."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data


def without_numpy(value: Any) -> Any:
    """A number of numpy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> bool:
    value = without_numpy(value)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | Enum) or inspect.isroutine(value)


def _as_tuples(value: Any) -> Any:
    """A list and a tuple set the same; configs know lists only. What has no order gets one, and functions a name."""
    value = without_numpy(value)
    if isinstance(value, list | tuple):
        return tuple(map(_as_tuples, value))
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(_as_tuples, value), key=repr))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, _as_tuples(getattr(value, field.name))) for field in dataclasses.fields(value))
        return type(value).__qualname__, *fields
    if inspect.isroutine(value):
        return getattr(value, "__module__", None), getattr(value, "__qualname__", type(value).__qualname__)
    return value
