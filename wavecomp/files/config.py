"""Models as configs and back: the class path of each module, and what it was built with."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from wavecomp.files.identity import without_numpy
from wavecomp.modules import built_with, remember
from wavecomp.wavelets import FilterTaps

CONFIG = "config.yaml"
OURS = ("wavecomp", "torch.nn")
"""Packages whose classes any config may name."""


def read_config(path: str | Path) -> dict[str, Any]:
    """The entries of a config.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no config.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist; a model is rebuilt from the config beside its tensors")
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"config {path} has no entries")
    return config


def build(config: str | Path, *, trusted: Sequence[str] | None = None) -> nn.Module:
    """A fresh model from the config of a run.

    Args:
        config: a file with an entry ``model``: what trains the model, or the model.
        trusted: packages whose classes the config may name besides wavecomp and ``torch.nn``; any unless given. To
            build a class its module is imported, so a config that a stranger wrote should name those alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a config without a model, or one that names classes that are no modules or not trusted.
    """
    try:
        settings = read_config(config)["model"]
        settings = settings.get("init_args", {}).get("model", settings)
        settings["class_path"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"config {config} has no entry model.init_args.model, or model, with a class_path") from error
    return build_model(settings, config, trusted=trusted)


def build_model(settings: Any, config: str | Path, *, trusted: Sequence[str] | None) -> nn.Module:
    """A fresh model from the settings that a config has of it, as :func:`build` does."""
    try:
        model: nn.Module = construct(settings, trusted)
    except Exception as error:  # a constructor may raise anything
        raise ValueError(f"config {config} does not describe a model: {error}") from error
    return model


def construct(settings: Any, trusted: Sequence[str] | None) -> Any:
    """What settings describe; see :func:`describe`."""
    if isinstance(settings, list):
        return [construct(item, trusted) for item in settings]
    if not isinstance(settings, dict):
        return settings
    if "class_path" not in settings:
        return {key: construct(value, trusted) for key, value in settings.items()}
    if unknown := settings.keys() - {"class_path", "args", "init_args", "dict_kwargs"}:
        raise ValueError(f"key {min(unknown)!r} beside class_path is unknown; allowed: init_args")
    kind = find_class(settings["class_path"], trusted)
    args = construct(settings.get("args") or [], trusted)
    kwargs = construct({**(settings.get("init_args") or {}), **(settings.get("dict_kwargs") or {})}, trusted)
    made = kind(*args, **kwargs)
    # a module of torch does not remember by itself
    return remember(made, *args, **kwargs) if isinstance(made, nn.Module) else made


def find_class(path: str, trusted: Sequence[str] | None) -> type[nn.Module] | type[FilterTaps]:
    """The class of a path; its module is imported only if it lies in a package that is ours or trusted.

    Raises:
        ValueError: a class that is not there, no module, or of another package.
    """
    module, _, name = str(path).rpartition(".")
    _check_trusted(path, module, trusted)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"class_path {path} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, nn.Module | FilterTaps):
        raise ValueError(f"class_path {path} is no module; allowed: subclasses of torch.nn.Module")
    _check_trusted(path, found.__module__, trusted)  # ours may have imported it from elsewhere
    return found


def _check_trusted(path: str, module: str, trusted: Sequence[str] | None) -> None:
    if trusted is None:
        return
    allowed = (*OURS, *trusted)
    if not any(f"{module}.".startswith(f"{package}.") for package in allowed):
        raise ValueError(f"class_path {path} is not trusted; allowed: what lies in {', '.join(allowed)}")


def describe(module: nn.Module) -> dict[str, Any]:
    """Settings that :func:`construct` makes a fresh module of the same kind from.

    A :class:`Module` remembers what it was built with, and so does all that was built from a config. Of any other, and
    of those of torch, it is what it keeps under the names of its constructor's arguments.

    Raises:
        ValueError: a module that keeps something else, or a class that cannot be found by its name.

    Example:
        >>> describe(wc.MeanPoolCompressor(count=4))
        {'class_path': 'wavecomp.MeanPoolCompressor', 'init_args': {'count': 4, 'encoding': None}}
    """
    return _described(module, "")


def class_path(kind: type) -> str:
    """The shortest path that a class is imported by.

    Raises:
        ValueError: a class that none leads to, as one of a function or a notebook.
    """
    packages = kind.__module__.split(".")
    if packages != ["__main__"]:
        for count in range(1, len(packages) + 1):
            package = ".".join(packages[:count])
            if getattr(sys.modules.get(package), kind.__name__, None) is kind:
                return f"{package}.{kind.__name__}"
    raise ValueError(
        f"class {kind.__qualname__} of {kind.__module__} cannot be imported by its name, so no config can name it; "
        "allowed: classes of a module in a file"
    )


def _arguments(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional ones that have no name of their own, and all others."""
    if isinstance(module, nn.Sequential):
        return tuple(module), {}
    remembered = built_with(module)
    if remembered is None:
        return (), {name: _kept(module, name) for name in _names(module) if name not in ("device", "dtype")}
    signature = inspect.signature(type(module).__init__)
    bound = signature.bind(module, *remembered.args, **remembered.kwargs)
    bound.apply_defaults()
    args, kwargs = bound.args[1:], dict(bound.kwargs)
    if all(parameter.kind is not inspect.Parameter.VAR_POSITIONAL for parameter in signature.parameters.values()):
        # nothing has to go by its place
        args, kwargs = (), {**dict(zip(list(bound.arguments)[1:], args)), **kwargs}
    return args, {name: _as_it_is_now(module, name, value) for name, value in kwargs.items()}


def _names(module: nn.Module) -> list[str]:
    """Of the arguments that a module takes which does not remember any."""
    if isinstance(module, nn.Identity) or type(module).__init__ is nn.Module.__init__:
        return []
    recurrent = type(module) in (nn.RNN, nn.LSTM, nn.GRU)  # they hand on whatever they are given
    signature = inspect.signature(nn.RNNBase.__init__ if recurrent else type(module).__init__)
    names = [name for name in list(signature.parameters)[1:] if not name.startswith("_")]
    if recurrent:
        names.remove("mode")
        if not isinstance(module, nn.LSTM):
            names.remove("proj_size")
        if isinstance(module, nn.RNN):
            names.append("nonlinearity")
    return names


def _kept(module: nn.Module, name: str) -> Any:
    if not hasattr(module, name):
        raise ValueError(
            f"{type(module).__name__} does not keep the {name!r} that it was built with, so it cannot be built again; "
            "build it in a class of your own that inherits from wavecomp.Module"
        )
    value = getattr(module, name)
    # torch's modules are told whether to have a bias, and keep it under the same name
    return value is not None if name == "bias" and (value is None or isinstance(value, Tensor)) else value


def _as_it_is_now(module: nn.Module, name: str, value: Any) -> Any:
    """A submodule may have been exchanged since."""
    now = getattr(module, name, None)
    if isinstance(value, nn.Module) and isinstance(now, nn.Module):
        return now
    if isinstance(value, Sequence) and isinstance(now, nn.ModuleList):
        return list(now)
    return value


def _described(value: Any, where: str) -> Any:
    """A value as YAML holds it.

    Args:
        where: its path from the model, for errors.
    """
    value = without_numpy(value)
    if isinstance(value, nn.Module):
        try:
            settings: dict[str, Any] = {"class_path": class_path(type(value))}
            args, kwargs = _arguments(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}" if where else str(error)) from None
        if args:
            settings["args"] = _described(args, where)
        inside = f"{where}." if where else ""
        settings["init_args"] = {name: _described(given, f"{inside}{name}") for name, given in kwargs.items()}
        return settings
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _described(item, where) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_described(item, f"{where}[{place}]") for place, item in enumerate(value)]
    try:
        taps = FilterTaps.of(value)
    except TypeError:
        raise ValueError(
            f"{where}={value!r} has type {type(value).__name__}, which no config holds; allowed: numbers, strings, "
            "modules, and lists of these"
        ) from None
    return {"class_path": class_path(FilterTaps), "init_args": {k: list(v) for k, v in asdict(taps).items()}}
