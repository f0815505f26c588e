"""The command line: ``fit | validate | test | predict | ls | cp``, and the modules of ``wavecomp.commands``."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import shutil
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

import wavecomp as wc
from wavecomp.allocator import keep_freed_memory
from wavecomp.files import CONFIG, read_checkpoint
from wavecomp.files.recipes import recipes
from wavecomp.training import BytesPerSecond, CompressionModule, LastCheckpoint, SafeStop, SaveCodes

USAGE = """usage: wavecomp COMMAND ...

  fit       --config RECIPE [--config OVERLAY] [--model.x ...]   train
  validate  --config RECIPE --ckpt_path FILE                     measure on the validation share
  test      --config RECIPE --ckpt_path FILE                     the same, under test/
  predict   --config RECIPE --ckpt_path FILE                     save the codes of the validation share
  ls                                                             list the recipes
  cp        RECIPE FILE                                          copy a recipe, to change it
  generate  --checkpoint FILE --prompt TEXT                      continue a text
  compress  FILE... --checkpoint FILE --output CODES             files to codes
  inspect   CODES                                                what is in a file of codes
  report    FILE --checkpoint FILE --output PAGE.html            a text as its codes see it, to look through
  plot      PLOT [FILE] [--checkpoint FILE] --output FIGURE      a figure: energy, kept, filters, tree, rate, training
  bench     NAME                                                 measure how fast and how good it is
  doctor                                                         what is installed, and what it would run on

A RECIPE is a name that `wavecomp ls` shows, or a path; a checkpoint FILE may be the folder of its run.
`wavecomp COMMAND --help` lists what can be set, `wavecomp --debug COMMAND ...` shows where an error came from, and
`wavecomp --version` tells the version."""

COMMANDS = ("generate", "compress", "inspect", "report", "plot", "bench", "doctor")
"""The modules of ``wavecomp.commands``."""


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    args = sys.argv[1:] if args is None else args
    keep_freed_memory()
    try:
        match args:
            case [] | ["-h" | "--help"]:
                print(USAGE)
            case ["--version"]:
                print(f"wavecomp {wc.__version__}")
            case ["--debug", *rest]:
                debug(rest)
            case ["ls"]:
                list_recipes()
            case ["cp", name, target]:
                copy_recipe(name, Path(target))
            case ["ls" | "cp", *_]:
                called = {"ls": "wavecomp ls", "cp": "wavecomp cp RECIPE FILE"}[args[0]]
                raise ValueError(f"wrong arguments for {args[0]}; it is called as: {called}")
            case [command] if command in Cli.subcommands():
                raise ValueError(f"{command} needs --config RECIPE; recipes: {', '.join(p.stem for p in recipes())}")
            case [command, *_] if command in Cli.subcommands():
                args = with_recipe_paths(args)
            case [command, *rest] if command in COMMANDS:
                run_command(command, rest)
            case [command, *_]:
                commands = ", ".join([*Cli.subcommands(), "ls", "cp", *COMMANDS])
                raise ValueError(f"command {command!r} is unknown; allowed: {commands}")
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if args and args[0] in Cli.subcommands():
        run(args)


def debug(args: list[str]) -> None:
    """Run a command; after its line of error comes the traceback."""
    try:
        main(args)
    except SystemExit as stop:
        if stop.code == 2 and stop.__context__ is not None:
            traceback.print_exception(stop.__context__)
        raise


def run_command(name: str, args: list[str]) -> None:
    """Run one of ``wavecomp.commands``."""
    command = importlib.import_module(f"wavecomp.commands.{name}")
    parser = CommandParser(prog=f"wavecomp {name}", description=str(command.__doc__))
    command.add_arguments(parser)
    arguments = parser.parse_args(args)
    try:
        command.run(arguments)
    except (ValueError, OSError):
        raise
    except Exception as error:  # what no check foresaw: a library's own error, no memory
        fail(f"{type(error).__name__}: {error}; `wavecomp --debug {name} ...` shows where it came from")


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in a line; what can be set is in ``--help``."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; `{self.prog} --help` lists what can be set")


def fail(error: Exception | str) -> NoReturn:
    """End with one line that says what is wrong."""
    print(f"wavecomp: error: {clear(str(error))}", file=sys.stderr)
    raise SystemExit(2)


def clear(message: str) -> str:
    """What a parser says, without the types it tried and the values around the one that is wrong."""
    noise = ("Does not validate against", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(noise))
    before, at_class, innermost = text.rpartition("Problem with given class_path ")
    return f"in {innermost}" if at_class else before + innermost


def list_recipes() -> None:
    """Show what each recipe is about: those that stand alone first, then what is laid over them."""
    found = sorted((headline(path).startswith("Overlay"), path.stem, headline(path)) for path in recipes())
    width = max((len(name) for _, name, _ in found), default=0)
    for _, name, line in found:
        print(f"{name:<{width}}  {line}")


def headline(path: Path) -> str:
    """The first comment line of a recipe."""
    return path.read_text().partition("\n")[0].lstrip("# ").rstrip()


def recipe_path(name: str) -> Path:
    """A recipe by name or path.

    Raises:
        ValueError: neither a recipe nor a file.
    """
    known = {path.stem: path for path in recipes()}
    if name not in known and not Path(name).is_file():
        raise ValueError(f"config {name!r} is neither a recipe nor a file; recipes: {', '.join(known)}")
    path = known.get(name, Path(name))
    try:
        check_keys(yaml.safe_load(path.read_text()), path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is not YAML: {error}") from error
    return path


def check_keys(node: Any, path: Path) -> None:
    """Raise ``ValueError`` for a key beside a ``class_path`` that the parser would not name."""
    if isinstance(node, dict):
        if "class_path" in node and (unknown := node.keys() - {"class_path", "init_args", "dict_kwargs"}):
            raise ValueError(
                f"config {path}: key {min(unknown)!r} beside class_path: {node['class_path']} is unknown; "
                "allowed: init_args"
            )
        for child in node.values():
            check_keys(child, path)
    elif isinstance(node, list):
        for child in node:
            check_keys(child, path)


def copy_recipe(name: str, target: Path) -> None:
    """Copy a recipe to a file or into a folder, without overwriting.

    Raises:
        ValueError: an unknown recipe, or a target that exists.
    """
    source = recipe_path(name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise ValueError(f"{target} exists already; give another name")
    shutil.copyfile(source, target)
    print(f"copied {source.stem} to {target}; train it with: wavecomp fit --config {target}")


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
    if paths and headline(paths[0]).startswith("Overlay"):
        name = paths[0].stem
        raise ValueError(f"config {name!r} is an overlay and comes behind a recipe: --config RECIPE --config {name}")
    return resolved


class Parser(LightningArgumentParser):
    """Says what is wrong in a line; what can be set is in ``--help``."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)  # a parser inside a parser: the outer one speaks
        fail(message)


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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"trainer.default_root_dir": "runs"})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand]
        try:
            settings.ckpt_path = self._checkpoint(settings.get("ckpt_path"), settings.trainer.default_root_dir)
        except (ValueError, OSError) as error:
            fail(error)
        # checkpoints hold tensors and plain values: nothing is unpickled
        settings.weights_only = True
        for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"):
            # the parser reads a count as a float, which Lightning takes for a share
            value = settings.trainer[name]
            if isinstance(value, float) and value > 1 and value.is_integer():
                settings.trainer[name] = int(value)

    def _checkpoint(self, asked: str | None, root: str) -> str | None:
        if asked is None:
            if self.config.subcommand != "fit":
                raise ValueError(f"{self.config.subcommand} needs --ckpt_path FILE: it measures a trained model")
            return None
        path = newest_checkpoint(Path(root)) if asked == "last" else Path(asked)
        path = path / "last.ckpt" if path.is_dir() else path
        read_checkpoint(path)
        return str(path)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            if isinstance(self.model, CompressionModule):
                self.model.check_data(self.datamodule)
        except (ValueError, TypeError, OSError) as error:
            fail(error)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        root = self._get(self.config_init, "trainer").default_root_dir
        extra: list[Any] = []
        if self.subcommand == "fit":
            logger = CSVLogger(root, name="")
            kwargs["logger"] = self._loggers(logger)
            self.last = LastCheckpoint(logger.log_dir)
            best = ModelCheckpoint(
                dirpath=logger.log_dir, filename="best", monitor="val/loss", enable_version_counter=False
            )
            extra = [BytesPerSecond(), SafeStop(self.last), self.last, best]
        elif self.subcommand == "predict":
            extra = [SaveCodes(Path(root) / "codes")]
        self.trainer_defaults["callbacks"] = extra
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
        """Save the last step and say what came of it."""
        path = self.last.save_now(self.trainer)
        if self.trainer.is_global_zero:
            print(summary(self.trainer, path))

    def after_predict(self) -> None:
        """Say where the codes are."""
        if self.trainer.is_global_zero:
            print(f"codes are in {Path(self.trainer.default_root_dir) / 'codes'}")


def installed(package: str) -> bool:
    """Whether there is a package, without importing it."""
    return importlib.util.find_spec(package) is not None


def newest_checkpoint(root: Path) -> Path:
    """The ``last.ckpt`` that was written last below a folder of runs.

    Raises:
        FileNotFoundError: when there is none.
    """
    found = sorted(root.glob("version_*/last.ckpt"), key=lambda path: path.stat().st_mtime)
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


def summary(trainer: L.Trainer, checkpoint: Path) -> str:
    """What a run reached, where it is, and what to try next."""
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    checkpoint = checkpoint.relative_to(Path.cwd()) if checkpoint.is_relative_to(Path.cwd()) else checkpoint
    folder = checkpoint.parent
    rows = [
        (label, form.format(logged[key])) for label, key, form in FIGURES if not math.isnan(logged.get(key, math.nan))
    ]
    rows.append(("checkpoint", str(checkpoint)))
    lines = [f"  {name:<30}{value}" for name, value in rows]
    next_steps = [
        f"  python -c \"import wavecomp as wc; print(wc.load('{checkpoint}'))\"",
        f"  wavecomp validate --config {folder / CONFIG} --ckpt_path {checkpoint}",
        f"  wavecomp fit --config {folder / CONFIG} --model.init_args.learning_rate 2e-3",
        "  wavecomp ls",
    ]
    return "\n".join(["", f"Trained {trainer.global_step} steps.", *lines, "Next:", *next_steps])


def is_no_tip(record: logging.LogRecord) -> bool:
    """False for what Lightning says at every run of services that one could use."""
    return "Tip:" not in record.getMessage()


def run(args: list[str]) -> None:
    """Run one of Lightning's commands."""
    # samples are cheap to make; the config lies where the checkpoints go; the last is Lightning's own
    for message in (".*does not have many workers.*", ".*exists and is not empty.*", ".*treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_no_tip)
    sys.argv = [sys.argv[0], *args]  # Lightning starts further ranks from it
    try:
        Cli(
            model_class=L.LightningModule,
            datamodule_class=L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise SystemExit(130) from None
        raise
    except (ValueError, OSError) as error:
        fail(error)
