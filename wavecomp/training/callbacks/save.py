"""Codes to files while a model predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from wavecomp.codes import Codes
from wavecomp.files import fingerprint, save_codes


class SaveCodes(Callback):
    """Writes the codes that ``predict`` makes, a file for each row, which :func:`wavecomp.load_codes` reads.

    The files are called ``rank0-batch000000-row000.safetensors``, with the numbers of process, batch and row. Each says
    which model made it: the attribute ``model`` of the module that predicts, or the module itself where it has none.

    Args:
        folder: where they go; it is made if need be. Such files that were there go first.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._fingerprint = ""

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            for path in self.folder.glob("rank*-*.safetensors"):
                path.unlink()
        trainer.strategy.barrier()
        self._fingerprint = fingerprint(_model(pl_module))

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Codes,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        loader = f"-loader{dataloader_idx}" if dataloader_idx else ""
        for row in range(len(outputs.tokens)):
            path = self.folder / f"rank{trainer.global_rank}{loader}-batch{batch_idx:06d}-row{row:03d}.safetensors"
            save_codes(path, outputs, _model(pl_module), row=row, fingerprint=self._fingerprint)


def _model(module: L.LightningModule) -> nn.Module:
    model = getattr(module, "model", module)
    return model if isinstance(model, nn.Module) else module
