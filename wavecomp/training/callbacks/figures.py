"""Figures of a model while it trains: to TensorBoard, or to files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from wavecomp.bands import BandLayout
from wavecomp.codes import Codes
from wavecomp.plots import plot_band_energy, plot_filter_bank
from wavecomp.records import check_count
from wavecomp.report import band_layout
from wavecomp.report.figure import Drawing, write_figure
from wavecomp.wavelets import FilterBank


class BandEnergyLogger(Callback):
    """Each validation draws how loud each band of each chunk is, in one row of one batch: :func:`plot_band_energy`.

    The figure ``band_energy`` goes to each TensorBoardLogger that the trainer has, and otherwise to a file. A model
    whose compressor reports no energies is told so once, and trains on.

    Args:
        stage: which Chunk-Network, of several.
        batch: which batch of the validation.
        row: of the batch.
        folder: write files here, ``band_energy-step000120.png``, whatever loggers there are; unless given, where there
            is no TensorBoardLogger they go to ``figures`` in the folder of the run.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, *, stage: int = 0, batch: int = 0, row: int = 0, folder: str | Path | None = None) -> None:
        for name, number in (("stage", stage), ("batch", batch), ("row", row)):
            check_count(name, number, least=0)
        self.stage, self.batch, self.row = stage, batch, row
        self.folder = folder
        self._warned = False

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or batch_idx != self.batch or dataloader_idx:
            return
        # where parameters are split over processes, all of them have to run the model
        with trainer.precision_plugin.forward_context():
            codes: Codes = pl_module.predict_step(batch, batch_idx)
        destination = _Destination(trainer, self.folder)
        if not trainer.is_global_zero:
            return
        try:
            drawing = plot_band_energy(codes, stage=self.stage, row=self.row, layout=_layout(pl_module, self.stage))
        except ValueError as error:
            if not self._warned:
                rank_zero_warn(f"BandEnergyLogger draws nothing: {error}")
            self._warned = True
        else:
            destination.log("band_energy", drawing)


class FilterLogger(Callback):
    """Each validation draws every filter bank that learns, beside what it began as: :func:`plot_filter_bank`.

    The figures ``filters/NAME``, with the name of the bank in the model, go where those of :class:`BandEnergyLogger`
    go. Of a bank with several heads the first is drawn. Banks that are not linear have no taps and are left out.

    Args:
        folder: as in :class:`BandEnergyLogger`.
    """

    def __init__(self, *, folder: str | Path | None = None) -> None:
        self.folder = folder
        self._initial: dict[str, FilterBank] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # before a checkpoint is read, and before parameters are moved or split
        self._initial = {name: copy.deepcopy(bank) for name, bank in pl_module.named_modules() if _learns(bank)}
        if not self._initial:
            rank_zero_warn("FilterLogger draws nothing: the model has no linear filter bank that learns")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        destination = _Destination(trainer, self.folder)
        for name, initial in self._initial.items():
            learned = copy.deepcopy(initial)
            learned.load_state_dict({k: _whole(v) for k, v in pl_module.get_submodule(name).state_dict().items()})
            if trainer.is_global_zero:
                figure = plot_filter_bank(learned, initial=initial)
                destination.log(f"filters/{name.removeprefix('model.')}", figure)


class _Destination:
    """Where figures go. To be made by all processes, for the first one tells the others where the run is."""

    def __init__(self, trainer: L.Trainer, folder: str | Path | None) -> None:
        self.step = trainer.global_step
        self.boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        run = Path(trainer.log_dir or trainer.default_root_dir)
        self.folder = Path(folder) if folder is not None else None if self.boards else run / "figures"

    def log(self, name: str, drawing: Drawing) -> None:
        for board in self.boards:
            board.experiment.add_figure(name, drawing.figure.figure, global_step=self.step)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{name.replace('/', '-')}-step{self.step:06d}.png"
            write_figure(drawing, path, title=f"{name}, step {self.step}")


def _layout(module: L.LightningModule, stage: int) -> BandLayout | None:
    try:
        return band_layout(module.get_submodule(f"model.body.chunk_networks.{stage}"))
    except AttributeError:
        return None


def _learns(module: nn.Module) -> bool:
    return isinstance(module, FilterBank) and module.linear and any(p.requires_grad for p in module.parameters())


def _whole(tensor: Any) -> Tensor:
    """A parameter that is split over processes, put together on each."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
