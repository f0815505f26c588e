"""``wavecomp fit``, ``validate``, ``test`` and ``predict``: Lightning's command line, with a folder per run."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from wavecomp.files import read_checkpoint
from wavecomp.files.models import LAST, checkpoint_in
from wavecomp.files.recipes import is_overlay, recipe_path, recipes
from wavecomp.files.shared import misfit, shapes
from wavecomp.training.callbacks import BestCheckpoint, BytesPerSecond, LastCheckpoint, SafeStop, SaveCodes
from wavecomp.training.checkpoints import WholeFiles
from wavecomp.training.optimisation import CompressionModule
from wavecomp.training.runs import claim, is_rank_zero, newest_checkpoint, summary

UNFOUNDED = (
    "does not have many workers",  # samples are cheap to make
    "exists and is not empty",  # the config lies where the checkpoints go
    "your dataloader is not resumable",  # the samples go on where they were
    "treespec, LeafSpec",  # Lightning's own
    "dirpath has changed",  # the best checkpoint comes along
    "callbacks used to create the checkpoint need to be",  # who measures writes none
)
"""Warnings of Lightning that mean nothing here."""


class Trainer(L.Trainer):
    """Lightning's own, of which a command line can tell limits of one batch from those of all: 1 from 1.0.

    Args:
        limit_train_batches: how many batches of an epoch to train on, or the share of them where it has a point.
        limit_val_batches: the same of validation.
        limit_test_batches: the same of ``test``.
        limit_predict_batches: the same of ``predict``.
        settings: all others.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **settings,
        )


def with_recipe_paths(args: list[str]) -> list[str]:
    """Replace the names of recipes after ``--config`` or ``-c`` by their paths.

    Raises:
        ValueError: neither a recipe nor a file, or an overlay that lies over nothing.
    """
    resolved, paths = [], []
    for before, arg in zip([None, *args], args):
        if before in ("--config", "-c") or arg.startswith("--config="):
            paths.append(recipe_path(arg.removeprefix("--config=")))
            arg = f"--config={paths[-1]}" if arg.startswith("--config=") else str(paths[-1])
        resolved.append(arg)
    if paths and is_overlay(paths[0]):
        name = paths[0].stem
        raise ValueError(f"config {name!r} is an overlay and comes behind a recipe: --config RECIPE --config {name}")
    return resolved


class Parser(LightningArgumentParser):
    """Says what is wrong in a line; what can be set is in ``--help``."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)  # a parser inside a parser: the outer one speaks
        raise ValueError(message) from ex


class SaveConfig(SaveConfigCallback):
    """Saves the resolved config beside the checkpoints of a run, when training starts.

    Without the checkpoint that the run resumed from: who trains from this config starts anew.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **settings: Any) -> None:
        config = config.clone()
        config.ckpt_path = None
        super().__init__(parser, config, **settings)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class Cli(LightningCLI):
    """Lightning's command line, with a folder per run and clear errors.

    A run lives in ``default_root_dir/version_N``: config, checkpoints and metrics side by side.
    """

    def __init__(self, **settings: Any) -> None:
        self._claimed: Path | None = None
        self._given: dict[str, Any] | None = None  # shapes of what the checkpoint holds
        try:
            super().__init__(**settings)  # which does all there is to do
        except BaseException:
            if self._claimed is not None:
                with contextlib.suppress(OSError):  # something is in it
                    self._claimed.rmdir()
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"trainer.default_root_dir": "runs"})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand]
        settings.ckpt_path = self._checkpoint(settings.get("ckpt_path"), settings.trainer)
        # checkpoints hold tensors and plain values: nothing is unpickled
        settings.weights_only = True

    def _checkpoint(self, asked: str | None, trainer: Namespace) -> str | None:
        if asked is None:
            if self.config.subcommand != "fit":
                raise ValueError(f"{self.config.subcommand} needs --ckpt_path FILE: it measures a trained model")
            return None
        path = newest_checkpoint(Path(trainer.default_root_dir)) if asked == "last" else Path(asked)
        if path.is_dir():  # a run goes on from where it was, and is measured where it was best
            path = path / LAST if self.config.subcommand == "fit" else checkpoint_in(path)
        checkpoint = read_checkpoint(path)
        step = checkpoint.get("global_step", 0)
        if self.config.subcommand == "fit" and 0 <= trainer.max_steps <= step:
            raise ValueError(
                f"--ckpt_path {path} has all {step} steps, and trainer.max_steps={trainer.max_steps} asks for no more; "
                "raise --trainer.max_steps"
            )
        self._given = shapes(checkpoint["state_dict"])
        return str(path)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except TypeError as error:  # arguments that do not go together
            raise ValueError(str(error)) from error

    def _check_model(self) -> None:
        """Raise ``ValueError`` for a model that goes neither with the data nor with the checkpoint."""
        if not isinstance(self.model, CompressionModule):
            return
        self.model.check_data(self.datamodule)
        hook = type(self.model).on_load_checkpoint
        if self._given is None or not self.model.strict_loading or hook is not CompressionModule.on_load_checkpoint:
            return  # what is loaded may be something else
        if found := misfit(shapes(self.model.state_dict()), self._given):
            raise ValueError(f"--ckpt_path is of another model than the config: {found}")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        settings = self._get(self.config_init, "trainer")
        if self.subcommand == "fit" and settings.enable_checkpointing is False:
            raise ValueError("trainer.enable_checkpointing=False: a run is its checkpoints; allowed: True")
        self._check_model()  # before there is a folder
        root = settings.default_root_dir
        extra: list[Any] = []
        if self.subcommand == "fit":
            if not settings.fast_dev_run and is_rank_zero():
                self._claimed = claim(Path(root))
            logger = CSVLogger(root, name="", version=self._claimed.name if self._claimed else None)
            kwargs["logger"] = self._loggers(logger)
            self.last = LastCheckpoint(logger.log_dir)
            best = BestCheckpoint(logger.log_dir)
            extra = [BytesPerSecond(), SafeStop(self.last), best, self.last]  # the last one may stop after a validation
        elif self.subcommand == "predict":
            extra = [SaveCodes(Path(root) / "codes")]
        self.trainer_defaults["callbacks"] = extra
        plugins = settings.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, WholeFiles()]
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise ValueError(f"trainer: {error} `wavecomp doctor` tells what there is to train on") from error

    def _loggers(self, csv: CSVLogger) -> list[Logger]:
        """CSV always comes first: its folder is the run's. TensorBoard joins where nothing else is asked for."""
        asked = self._get(self.config_init, "trainer").logger
        if asked is False:
            return [csv]
        if asked is None or asked is True:
            if not installed("tensorboard"):
                return [csv]
            return [csv, TensorBoardLogger(csv.root_dir, name="", version=csv.version, default_hp_metric=False)]
        return [csv, *(asked if isinstance(asked, list) else [asked])]

    def after_fit(self) -> None:
        """Save the last step and say what came of it; a dry run leaves nothing behind."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self.last.save_now(self.trainer)
        if self.trainer.is_global_zero:
            print(summary(self.trainer, path, validated=self.last.validated))

    def after_predict(self) -> None:
        """Say where the codes are."""
        if self.trainer.is_global_zero:
            print(f"codes are in {Path(self.trainer.default_root_dir) / 'codes'}")


def installed(package: str) -> bool:
    """Whether there is a package, without importing it."""
    return importlib.util.find_spec(package) is not None


def is_no_tip(record: logging.LogRecord) -> bool:
    """False for what Lightning says at every run of services that one could use."""
    return "Tip:" not in record.getMessage()


def run(args: list[str]) -> None:
    """Run a command with what is behind it.

    Raises:
        ValueError: a recipe, an argument or a part of the model that is not allowed.
        OSError: a file that is not there.
    """
    command, *_ = args = with_recipe_paths(args)
    if len(args) == 1:
        raise ValueError(f"{command} needs --config RECIPE; recipes: {', '.join(path.stem for path in recipes())}")
    for message in UNFOUNDED:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_no_tip)
    sys.argv = [sys.argv[0], *args]  # Lightning starts further ranks from it
    try:
        Cli(
            model_class=L.LightningModule,
            datamodule_class=L.LightningDataModule,
            trainer_class=Trainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except SIGTERMException:
        raise SystemExit(143) from None
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        told = textwrap.shorten(str(error), 300)  # torch lists every entry
        raise ValueError(f"--ckpt_path is of another model than the config: {told}") from error
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise SystemExit(130) from None
        raise
