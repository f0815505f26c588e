"""The folder of a run: who has it, where it goes on from, and what is said of it at the end."""

from __future__ import annotations

import json
import math
import os
import shlex
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from wavecomp.files import CONFIG

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Where launchers tell a process which one it is."""


def is_rank_zero() -> bool:
    """Whether this process is the first of its run, as far as that can be told before there is a trainer."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def claim(root: Path) -> Path:
    """The folder of a new run, which is made: runs that start at once do not get the same."""
    number = int(CSVLogger(root, name="").version)
    while True:
        folder = root / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def newest_checkpoint(root: Path) -> Path:
    """The ``last.ckpt`` that was written last below a folder of runs.

    Raises:
        FileNotFoundError: when there is none.
    """
    found = [path for path in root.glob("version_*/last.ckpt") if (path.parent / CONFIG).is_file()]
    found.sort(key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"ckpt_path=last: no run below {root} has a last.ckpt to resume from")
    return found[-1]


FIGURES = (
    ("validation bits per byte", "val/bits_per_byte", "{:.3f}"),
    ("answer bits", "val/answer_bits", "{:.3f}"),
    ("answer bits, codes hidden", "val/answer_bits_hidden", "{:.3f}"),
    ("answer accuracy", "val/answer_accuracy", "{:.3f}"),
    ("validation accuracy", "val/accuracy", "{:.3f}"),
    ("reconstruction bits", "val/reconstruction_bits", "{:.3f}"),
    ("context gain (bits per byte)", "val/context_gain", "{:+.3f}"),
    ("compression ratio", "val/compression_ratio", "{:.2f}"),
    ("bytes per second", "train/bytes_per_second", "{:,.0f}"),
)


def summary(trainer: L.Trainer, checkpoint: Path, *, validated: int | None = None) -> str:
    """What a run reached, where it is, and what to try next.

    Args:
        validated: the step that figures of validation are of.
    """
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    checkpoint = checkpoint.relative_to(Path.cwd()) if checkpoint.is_relative_to(Path.cwd()) else checkpoint
    folder = checkpoint.parent
    rows = [
        (label, form.format(logged[key])) for label, key, form in FIGURES if not math.isnan(logged.get(key, math.nan))
    ]
    if validated not in (None, trainer.global_step):
        rows.append(("validation was at step", f"{validated:,}"))
    rows.append(("checkpoint", str(checkpoint)))
    lines = [f"  {name:<30}{value}" for name, value in rows]
    run, config, tensors = (shlex.quote(str(path)) for path in (folder, folder / CONFIG, checkpoint))
    program = f"import wavecomp as wc; print(wc.load({json.dumps(str(checkpoint), ensure_ascii=False)}))"
    next_steps = [
        f"  python -c {shlex.quote(program)}",
        f"  wavecomp plot training --checkpoint {run} --output training.png",
        f"  wavecomp validate --config {config} --ckpt_path {tensors}",
        f"  wavecomp fit --config {config} --model.init_args.learning_rate 2e-3",
        "  wavecomp ls",
    ]
    return "\n".join(["", f"Trained {trainer.global_step} steps.", *lines, "Next:", *next_steps])
