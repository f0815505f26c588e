"""Models on disk: checkpoints of tensors, and the config beside them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

CONFIG = "config.yaml"
WAYS = {"training", "backend", "checkpoint"}
"""Settings of modules that do not change what a model is."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a training checkpoint, on the CPU; tensors and plain values only.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can break the reader anywhere
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} is damaged or no checkpoint of tensors: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} is damaged: it holds no state_dict")
    return checkpoint


def load(path: str | Path) -> nn.Module:
    """The model of a checkpoint, in eval mode, on the CPU.

    The model is built from ``config.yaml`` in the checkpoint's folder; the checkpoint gives its tensors and nothing
    else.

    Args:
        path: a checkpoint, or a folder with a ``last.ckpt``.

    Raises:
        FileNotFoundError: no checkpoint, or no config beside it.
        ValueError: a damaged checkpoint, or one that does not fit the config.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.ckpt"
    state = read_checkpoint(path)["state_dict"]
    model = build(path.parent / CONFIG)
    prefix = "model."
    tensors = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path} does not fit the model in {path.parent / CONFIG}: {error}") from error
    return model.eval()


def build(config: str | Path) -> nn.Module:
    """A fresh model from the config that a run saved.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a config without a model.
    """
    config = Path(config)
    if not config.is_file():
        raise FileNotFoundError(
            f"config {config} does not exist; a model is rebuilt from the config beside its checkpoint"
        )
    try:
        settings = yaml.safe_load(config.read_text())["model"]["init_args"]["model"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"config {config} has no entry model.init_args.model") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model", fail_untyped=False)
    try:
        return parser.instantiate_classes(parser.parse_object({"model": settings})).model
    except Exception as error:
        raise ValueError(f"config {config} does not describe a model: {error}") from error


def fingerprint(model: nn.Module) -> str:
    """A hash of what a model computes: classes and plain settings of its modules, and its tensors.

    The same for every way to compute it (``backend``, ``checkpoint``).
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        settings = {
            key: value
            for key, value in sorted(vars(module).items())
            if _plain(value) and not key.startswith("_") and key not in WAYS
        }
        digest.update(repr((name, kind_of(module), settings)).encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def kind_of(model: nn.Module) -> str:
    """The class of a model, by its full name."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, bool | int | float | str)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data
