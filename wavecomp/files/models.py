"""Models on disk: tensors, and the config beside them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wavecomp.files.config import CONFIG, build
from wavecomp.files.shared import WEIGHTS, fill, load_shared

BEST, LAST = "best.ckpt", "last.ckpt"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a training checkpoint, on the CPU; tensors and plain values only.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if not zipfile.is_zipfile(path):  # of which torch would tell at length, and nothing of use
        raise ValueError(f"checkpoint {path} is damaged or no checkpoint of tensors: it is no whole zip file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can break the reader anywhere
        # torch goes on to advise reading it as what it should not be
        told = str(error).splitlines() or [type(error).__name__]
        (reason, *_) = [line.strip() for line in told if "Unsupported global" in line] or told
        reason = reason.partition("This file can still be loaded")[0].partition("In PyTorch")[0].strip()
        raise ValueError(f"checkpoint {path} is damaged or no checkpoint of tensors: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} is damaged: it holds no state_dict")
    return checkpoint


def checkpoint_in(run: Path) -> Path:
    """The checkpoint to use of a run's folder: of the lowest validation loss, or the last where nothing was validated.

    Raises:
        FileNotFoundError: a folder with neither.
    """
    for name in (BEST, LAST):
        if (run / name).is_file():
            return run / name
    raise FileNotFoundError(f"folder {run} is no run: it holds neither {BEST} nor {LAST}")


def load(path: str | Path, *, trusted: Sequence[str] | None = None) -> nn.Module:
    """A model from disk, in eval mode, on the CPU: of a run, or of ``save_pretrained``.

    The model is built from the ``config.yaml`` in the same folder; the other file gives its tensors and nothing else.
    The config of a run may name any class that can be imported, so load runs of people you trust. That of
    ``save_pretrained`` may come from a stranger, and names classes of wavecomp and of ``torch.nn`` only.

    Args:
        path: a checkpoint of a run, its folder (then ``best.ckpt``, or ``last.ckpt`` where nothing was validated), or a
            folder with a ``model.safetensors``.
        trusted: packages that the config may name classes of, besides wavecomp and ``torch.nn``; as said above unless
            given.

    Raises:
        FileNotFoundError: no checkpoint, or no config beside it.
        ValueError: damaged tensors, or some that do not fit the config; a class that is not trusted.
    """
    path = Path(path)
    if (path / WEIGHTS).is_file():
        return load_shared(path, trusted=trusted or ())
    if path.is_dir():
        try:
            path = checkpoint_in(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}, nor {WEIGHTS} of a saved model") from None
    state = read_checkpoint(path)["state_dict"]
    model = build(path.parent / CONFIG, trusted=trusted)
    prefix = "model."
    tensors = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        fill(model, tensors)
    except ValueError as error:
        raise ValueError(f"checkpoint {path} does not fit the model in {path.parent / CONFIG}: {error}") from error
    return model.eval()
