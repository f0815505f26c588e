"""The checkpoint of the lowest validation loss."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from wavecomp.files.output import folder_beside


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: of the lowest ``val/loss`` of a run, also where it goes on in another folder.

    Lightning begins to compare anew there. Here the folder that a run goes on in is given the best one so far, as long
    as that is where it was.

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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, score = Path(state_dict["best_model_path"]), state_dict["best_model_score"]
        path = Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"
        if score is None or not before.is_file():
            return
        if path != before:
            _copy(before, path)
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(path): score}


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(target) as folder:
        whole = Path(folder) / "whole"
        shutil.copyfile(source, whole)
        os.replace(whole, target)
