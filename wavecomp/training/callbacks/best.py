"""The checkpoint of the lowest validation loss."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from wavecomp.files.output import folder_beside, naming


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: of the lowest ``val/loss`` of a run, also where it goes on in another folder.

    Lightning begins to compare anew there. Here the folder that a run goes on in is given the best one so far: that
    beside the checkpoint which it goes on from, or the one where it was written.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/loss",
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # when a stop may have come between
        )
        self._resumed: Path | None = None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).absolute()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"
        written, score = Path(state_dict["best_model_path"]), state_dict["best_model_score"]
        if score is None:
            return
        # a run may have been moved since, and another one begun where it was
        places = [written] if self._resumed is None else [self._resumed.with_name(path.name), written]
        before = next((place for place in places if place.is_file()), None)
        if before is None:
            looked = " nor ".join(map(str, dict.fromkeys(places)))
            rank_zero_warn(f"the best checkpoint of this run is not at {looked}; {path.name} begins anew")
            return
        if path != before:
            _copy(before, path)
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(path): score}


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target), folder_beside(target) as folder:
        whole = Path(folder) / "whole"
        shutil.copyfile(source, whole)
        os.replace(whole, target)
