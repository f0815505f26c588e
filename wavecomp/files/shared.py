"""Models to share: a folder with a config and safetensors, which nobody has to be trusted for."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wavecomp.files.config import CONFIG, build_model, construct, describe, read_config
from wavecomp.files.identity import add_tensors, fingerprint, kind_of, settings_of

WEIGHTS = "model.safetensors"
DIGEST = "digest"
"""The entry of the tensors' metadata that holds a hash of them and of the config."""
TIED = "tied"
"""The entry of a config that lists which names are of one tensor."""


def save_shared(model: nn.Module, folder: str | Path) -> None:
    """Write a model to a folder: ``config.yaml``, from which it is built, and ``model.safetensors``.

    Before anything is written the model is built from its config once, to see that it is the same.

    Raises:
        ValueError: a model that is not the same when it is built again, or the folder of a run.
    """
    folder = Path(folder)
    if (folder / CONFIG).exists() and not (folder / WEIGHTS).exists():
        raise ValueError(f"folder {folder} is that of a run, whose {CONFIG} would be lost; give another")
    settings, tied = describe(model), _tied(model)
    doubles = {name for names in tied for name in names[1:]}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in doubles}
    _check_same(model, settings, tied, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving.") as partial:
        entries = {"model": settings} | ({TIED: tied} if tied else {})
        (Path(partial) / CONFIG).write_text(yaml.safe_dump(entries, sort_keys=False))
        save_file(tensors, Path(partial) / WEIGHTS, metadata={"format": "pt", DIGEST: _digest(entries, tensors)})
        for name in (CONFIG, WEIGHTS):
            os.replace(Path(partial) / name, folder / name)


def load_shared(folder: str | Path, *, trusted: Sequence[str] = ()) -> nn.Module:
    """The model that :func:`save_shared` wrote, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: no config beside the tensors.
        ValueError: damaged tensors, or some that were not saved with the config; a class that is not trusted.
    """
    config, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    entries = read_config(config)
    model = build_model(entries.get("model"), config, trusted=trusted)
    try:
        tensors = load_file(weights)
        with safe_open(weights, framework="pt") as file:
            saved = (file.metadata() or {}).get(DIGEST)
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged: {error}") from error
    if saved is not None and saved != _digest(entries, tensors):
        raise ValueError(
            f"{weights} and {config} are not as they were saved together; fetch both again, or build the model from a "
            "config of your own and load the tensors"
        )
    try:
        _fill(model, entries.get(TIED, []), tensors)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{weights} does not fit the model in {config}: {error}") from error
    return model.eval()


def _digest(entries: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(yaml.safe_dump(entries).encode())
    add_tensors(digest, tensors)
    return digest.hexdigest()


def _tied(model: nn.Module) -> list[list[str]]:
    """Names of parameters that are one and the same."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [same for same in names.values() if len(same) > 1]


def _fill(model: nn.Module, tied: Sequence[Sequence[str]], tensors: dict[str, Tensor]) -> None:
    """Tensors into a fresh model, in the type that they come in."""
    for first, *others in tied:
        for name in others:
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, model.get_parameter(first))
            tensors = {**tensors, name: tensors[first]}
    fill(model, tensors)


def fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Tensors into a model, in the type that they come in.

    Raises:
        ValueError: tensors of another model.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in tensors and isinstance(tensor, Tensor):
            tensor.data = tensor.data.to(tensors[name].dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(misfit(shapes(model.state_dict()), shapes(tensors)) or str(error)) from error


def shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """The shape of each entry of a state_dict; ``None`` of one that is no tensor."""
    return {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}


def misfit(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """The first key for which a model does not take a state_dict, and how many there are; ``None`` where it does.

    Args:
        expected: the :func:`shapes` of the model's own.
        given: those of the other.
    """
    found = [
        *(f"Missing key {name}" for name in expected if name not in given),
        *(f"Unexpected key {name}" for name in given if name not in expected),
        *(
            f"Key {name} has shape {given[name]}, the model's has {shape}"
            for name, shape in expected.items()
            if given.get(name, shape) != shape
        ),
    ]
    return found[0] + (f"; {len(found)} keys do not fit" if len(found) > 1 else "") if found else None


def _check_same(model: nn.Module, settings: dict[str, Any], tied: list[list[str]], tensors: dict[str, Tensor]) -> None:
    """Raise ``ValueError`` unless the model comes back when it is built again."""
    try:
        with torch.random.fork_rng(devices=[]):
            other: nn.Module = construct(settings, None)
        _fill(other, tied, tensors)
    except Exception as error:  # a constructor may raise anything
        raise ValueError(
            f"{type(model).__name__} cannot be built again from what its parts remember: {error}"
        ) from error
    mine, theirs = (dict(whole.named_modules()) for whole in (model, other))
    for name in [*mine, *theirs]:
        at = f"{type(model).__name__}{name and '.'}{name}"
        if name not in mine or name not in theirs:
            raise ValueError(
                f"{at} is in the model {'only' if name in mine else 'under another name'}, and a model that is built "
                "again has each part by itself; build it anew with the parts that it is to have, and load the tensors"
            )
        before, after = _all_of(mine[name]), _all_of(theirs[name])
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key):
                raise ValueError(
                    f"{at} was changed after it was built: {key}={before.get(key)!r}, built again it has "
                    f"{after.get(key)!r}; build it anew with what it is to have, and load the tensors"
                )
    if fingerprint(model) != fingerprint(other):
        raise ValueError(f"{type(model).__name__} has other tensors when it is built again")


def _all_of(module: nn.Module) -> dict[str, Any]:
    return {"class": kind_of(module), **settings_of(module)}
