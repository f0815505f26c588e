import csv
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import processes
import pytest
import torch
import yaml
import zoo
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

import wavecomp as wc
from wavecomp import cli
from wavecomp.files.recipes import recipe_path, recipes
from wavecomp.training import LanguageModelModule
from wavecomp.training.cli import with_recipe_paths
from wavecomp.training.runs import RANKS, claim, is_rank_zero

TINY = str(zoo.TINY)
MORE = ["--trainer.max_steps", "9"]
"""Of a run that goes on behind the eight steps of the recipe."""


def fit(root, *more):
    cli.main(["fit", "--config", TINY, "--trainer.default_root_dir", str(root), *more])


def losses(root, version):
    with open(Path(root) / f"version_{version}" / "metrics.csv") as file:
        return {int(row["step"]): row["train/answer_bits"] for row in csv.DictReader(file) if row["train/answer_bits"]}


def fails(capsys, *args):
    """Run a command that must end with one line of error and exit code 2; return that line."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    assert stop.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "Seed set" not in line]
    assert len(error) == 1 and error[0].startswith("wavecomp: error: ") and len(error[0]) < 600, error
    return error[0]


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wavecomp"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    argv, sys.argv = sys.argv, ["wavecomp"]
    fit(root)
    sys.argv = argv
    return root


def test_fit_leaves_config_checkpoints_and_metrics_side_by_side(trained):
    files = {p.name for p in (trained / "version_0").iterdir()}
    of_tensorboard = {name for name in files if name.startswith(("events.", "hparams."))}
    assert files - of_tensorboard == {"config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"}
    with open(trained / "version_0" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    figures = ["bits_per_byte", "compression_ratio", "context_gain", "answer_bits", "answer_accuracy"]
    assert {f"val/{name}" for name in figures} <= set(rows[0])
    assert {"train/bits_per_byte", "train/compression_ratio", "train/bytes_per_second"} <= set(rows[0])
    assert {row["val/compression_ratio"] for row in rows} == {"", "4.0"}
    last = torch.load(trained / "version_0" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 8


def test_fit_ends_with_a_summary_whose_commands_work(tmp_path, capsys):
    fit(tmp_path / "two words")
    out = capsys.readouterr().out
    for figure in ("validation bits per byte", "context gain", "compression ratio", "bytes per second"):
        assert re.search(rf"{figure}.*  [+-]?[\d.,]+", out), figure
    commands = [shlex.split(line) for line in out[out.index("Next:") :].splitlines()[1:]]
    assert len(commands) == 5
    python, plot, validate, again, _ = commands
    assert python[:2] == ["python", "-c"]
    exec(python[2], {})
    assert "ChunkReduceLM(" in capsys.readouterr().out
    *arguments, picture = plot[1:]
    cli.main([*arguments, str(tmp_path / picture)])
    assert (tmp_path / picture).stat().st_size > 2000
    cli.main(validate[1:])
    cli.main([*again[1:], "--trainer.max_steps", "1"])
    assert (tmp_path / "two words" / "version_1").is_dir()


def test_load_gives_the_model_that_was_trained(trained):
    path = trained / "version_0" / "last.ckpt"
    model = wc.load(path)
    assert not model.training
    state = torch.load(path, weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f"model.{name}"])
    assert len(model.state_dict()) > 20
    assert isinstance(wc.load(str(trained / "version_0")), wc.ChunkReduceLM)


def test_validate_test_and_predict_read_the_checkpoint(trained, tmp_path, capsys):
    path = str(trained / "version_0")  # a folder will do
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false"]
    for command in ("validate", "test", "predict"):
        cli.main([command, "--config", TINY, "--ckpt_path", path, *root])
    out = capsys.readouterr().out
    assert "val/bits_per_byte" in out and "test/bits_per_byte" in out
    files = sorted((tmp_path / "codes").iterdir())
    assert len(files) == 8 and all(f.suffix == ".safetensors" for f in files)
    codes = wc.load_codes(files[0], wc.load(path))
    assert codes.values.shape == (1, 16, 16) and codes.tokens.tolist() == [64]


class Notes(DummyLogger):
    """A logger of one's own, as Weights & Biases' would be."""

    kept: ClassVar[dict] = {}

    def __init__(self, project):
        super().__init__()
        self.project = project

    def log_metrics(self, metrics, step=None):
        self.kept.setdefault(self.project, set()).update(metrics)


def test_a_logger_of_a_recipe_is_respected_beside_the_csv(tmp_path):
    recipe = yaml.safe_load(Path(TINY).read_text())
    recipe["trainer"] |= {
        "max_steps": 4,
        "default_root_dir": str(tmp_path),
        "logger": {"class_path": f"{__name__}.Notes", "init_args": {"project": "mine"}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    cli.main(["fit", "--config", str(tmp_path / "mine.yaml")])
    assert {"val/bits_per_byte", "train/compression_ratio"} <= Notes.kept["mine"]
    assert list(losses(tmp_path, 0)) == [0, 1, 2, 3] and not list(tmp_path.rglob("events.*"))


@pytest.mark.parametrize("logger, there", [(None, False), (None, True), ("true", True), ("false", True)])
def test_tensorboard_is_written_where_it_is_installed(logger, there, tmp_path, monkeypatch):
    if there:
        pytest.importorskip("tensorboard")
    else:
        monkeypatch.setattr("wavecomp.training.cli.installed", lambda package: False)
    fit(tmp_path, "--trainer.max_steps", "4", *(["--trainer.logger", logger] if logger else []))
    events = [path.parent.name for path in tmp_path.rglob("events.*")]
    assert events == (["version_0"] if there and logger != "false" else [])
    assert list(losses(tmp_path, 0)) == [0, 1, 2, 3]


def test_what_a_step_needs_is_tried_before_any_work(tmp_path, capsys):
    text = Path(TINY).read_text()
    for good, bad, message in (
        ("out_features: 256", "out_features: 8", "tokens up to 15, the model's head predicts 0 to 7"),
        ("num_embeddings: 256", "num_embeddings: 8", "tokens up to 15, the model's embedding allows 0 to 7"),
        ("in_features: 16", "in_features: 8", "the parts of the model do not fit together: .*16.*8"),
    ):
        assert good in text
        (tmp_path / "bad.yaml").write_text(text.replace(good, bad))
        assert re.search(message, fails(capsys, "fit", "--config", str(tmp_path / "bad.yaml"))), message


def test_a_checkpoint_callback_of_ones_own_changes_nothing(tmp_path):
    fit(tmp_path, "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.max_steps", "5")
    last = torch.load(tmp_path / "version_0" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5


def test_a_dry_run_leaves_nothing_to_resume_from(tmp_path, capsys):
    fit(tmp_path)
    assert "Next:" in capsys.readouterr().out
    fit(tmp_path, "--trainer.fast_dev_run", "true")
    assert "Next:" not in capsys.readouterr().out
    fit(tmp_path, "--trainer.max_steps", "9", "--ckpt_path", "last")
    last = sorted(tmp_path.glob("version_*/last.ckpt"), key=lambda path: path.stat().st_mtime)[-1]
    assert torch.load(last, weights_only=True)["global_step"] == 9


@pytest.mark.parametrize("count", [1, 2])
def test_a_count_of_batches_is_no_share(count, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        LanguageModelModule, "on_validation_end", lambda self: seen.append(self.trainer.limit_val_batches)
    )
    fit(tmp_path, "--trainer.limit_val_batches", str(count))
    assert set(seen) == {count} and isinstance(seen[0], int)


@pytest.mark.parametrize(
    "more", [["--trainer.limit_val_batches=1"], ["--trainer", '{"limit_val_batches": 1}'], ["--config", "one.yaml"]]
)
def test_one_and_all_batches_are_told_apart(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("trainer: {limit_val_batches: 1, limit_train_batches: 1.0}")
    fit(tmp_path, *more, "--trainer.limit_train_batches", "1.0", "--trainer.max_steps", "1")
    saved = yaml.safe_load((tmp_path / "version_0" / "config.yaml").read_text())["trainer"]
    assert [repr(saved[f"limit_{name}_batches"]) for name in ("val", "train")] == ["1", "1.0"]


def test_a_run_that_resumes_has_the_controller_of_one_that_went_on(tmp_path, monkeypatch):
    transform = {"class_path": "wavecomp.DWT1d", "init_args": {"filter_bank": "haar", "level": 4}}
    pruner = {"class_path": "wavecomp.Shrinkage", "init_args": {"target_ratio": 4}}
    recipe = zoo.tiny_recipe_of_wavelets(transform=transform, pruner=pruner, detail_channel=None)
    (tmp_path / "adaptive.yaml").write_text(yaml.safe_dump(recipe))
    run = ["fit", "--config", str(tmp_path / "adaptive.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    cli.main(run)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        training_step = LanguageModelModule.training_step

        def interrupted(self, batch, batch_idx):
            if self.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return training_step(self, batch, batch_idx)

        patch.setattr(LanguageModelModule, "training_step", interrupted)
        handler = signal.getsignal(signal.SIGINT)
        cli.main(run)
    signal.signal(signal.SIGINT, handler)
    cli.main([*run, "--ckpt_path", "last"])
    same_model(tmp_path / "version_0", tmp_path / "version_2")


def test_a_checkpoint_of_another_model_is_named(trained, tmp_path, capsys):
    recipe = yaml.safe_load(Path(TINY).read_text())
    recipe["model"]["init_args"]["model"]["init_args"]["embedding"]["init_args"]["num_embeddings"] += 1
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    for command in ("fit", "validate"):
        error = fails(
            capsys, command, "--config", str(tmp_path / "other.yaml"), "--ckpt_path", str(trained / "version_0"),
            "--trainer.default_root_dir", str(tmp_path), *MORE,
        )  # fmt: skip
        assert (
            "--ckpt_path is of another model than the config: Key model.embedding.weight has shape (256, 16), " in error
        )
        assert "the model's has (257, 16)" in error
    assert not list(tmp_path.glob("version_*"))


def test_a_checkpoint_of_other_parts_names_the_first_and_counts_them(trained, tmp_path, capsys):
    state = torch.load(trained / "version_0" / "last.ckpt", weights_only=True)
    del state["state_dict"]["model.head.bias"]
    state["state_dict"]["model.hat.bias"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.ckpt")
    error = fails(capsys, "fit", "--config", TINY, "--ckpt_path", str(tmp_path / "other.ckpt"), *MORE)
    assert error.endswith("than the config: Missing key model.head.bias; 2 keys do not fit")


def test_a_run_that_validates_nothing_has_a_checkpoint_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("wavecomp.training.callbacks.stop.EVERY", 2)
    ticks = itertools.count(step=400)  # seconds at each look
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2"):
        patch.setattr(LanguageModelModule, "training_step", killed_at(7))
        fit(tmp_path, "--trainer.limit_val_batches", "0")
    assert torch.load(tmp_path / "version_0" / "last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.slow
def test_a_run_that_is_told_to_end_saves_and_does_not_look_finished(tmp_path):
    command = ["fit", "--config", TINY, "--trainer.default_root_dir", tmp_path]
    command += ["--trainer.accumulate_grad_batches", 4]  # in which most batches end no step
    settings = ["--trainer.max_steps", 100_000, "--trainer.val_check_interval", 100_000]
    run = processes.start_command(*command, *settings, said=tmp_path / "said.txt")
    metrics = tmp_path / "version_0" / "metrics.csv"
    while not metrics.exists() and run.is_alive():
        time.sleep(0.1)
    run.terminate()
    run.join(120)
    out = (tmp_path / "said.txt").read_text()
    assert run.exitcode == 143, out
    assert "Resume with the same command and --ckpt_path last" in out
    assert torch.load(tmp_path / "version_0" / "last.ckpt", weights_only=True)["global_step"] > 0


@pytest.mark.parametrize("step, more", [(3, []), (5, []), (4, ["--trainer.accumulate_grad_batches", "2"])])
def test_ctrl_c_saves_and_resumes_with_the_same_losses(step, more, trained, tmp_path, monkeypatch, capsys, caplog):
    if more:
        fit(tmp_path / "whole", *more)
    whole = tmp_path / "whole" if more else trained
    training_step, asked = LanguageModelModule.training_step, []

    def interrupted(self, batch, batch_idx):
        if self.global_step == step and not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return training_step(self, batch, batch_idx)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(LanguageModelModule, "training_step", interrupted)
        fit(tmp_path, *more)
    signal.signal(signal.SIGINT, handler)
    assert stop.value.code == 130
    assert "Resume with the same command and --ckpt_path last" in caplog.text + capsys.readouterr().err
    assert torch.load(tmp_path / "version_0" / "last.ckpt", weights_only=True)["global_step"] == step + 1
    fit(tmp_path, *more, "--ckpt_path", "last")
    first, second = losses(tmp_path, 0), losses(tmp_path, 1)
    assert min(second) == step + 1 and {**first, **second} == losses(whole, 0)
    same_model(whole / "version_0", tmp_path / "version_1")
    assert yaml.safe_load((tmp_path / "version_1" / "config.yaml").read_text())["ckpt_path"] is None


def killed_at(last):
    step = LanguageModelModule.training_step

    def killed(self, batch, batch_idx):
        if self.global_step == last:
            raise MemoryError
        return step(self, batch, batch_idx)

    return killed


def test_a_run_that_is_killed_resumes_from_its_last_validation(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2"):
        patch.setattr(LanguageModelModule, "training_step", killed_at(6))
        fit(tmp_path)
    fit(tmp_path, "--ckpt_path", "last")
    whole, second = losses(trained, 0), losses(tmp_path, 1)
    assert list(second) == [4, 5, 6, 7]
    assert {step: whole[step] for step in second} == second
    same_model(trained / "version_0", tmp_path / "version_1")


def test_the_last_checkpoint_is_kept_when_validation_gets_worse(tmp_path, monkeypatch, capsys):
    step = killed_at(7)

    def spoilt(self, batch, batch_idx):
        if self.global_step == 5:  # between the second validation and the third
            with torch.no_grad():
                self.model.head.weight.mul_(100)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2"):
        patch.setattr(LanguageModelModule, "training_step", spoilt)
        fit(tmp_path, "--trainer.val_check_interval", "2")
    with open(tmp_path / "version_0" / "metrics.csv") as file:
        loss = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    best = 2 * (loss.index(min(loss)) + 1)
    assert len(loss) == 3 and best < 6
    for name, step in (("last.ckpt", 6), ("best.ckpt", best)):
        assert torch.load(tmp_path / "version_0" / name, weights_only=True)["global_step"] == step
    # a folder stands for the better one, but to go on from
    scale = [float(wc.load(tmp_path / "version_0" / name).head.weight.detach().norm()) for name in ("", "best.ckpt")]
    assert scale[0] == scale[1]
    capsys.readouterr()
    measure = ["--config", str(tmp_path / "version_0" / "config.yaml"), "--ckpt_path", str(tmp_path / "version_0")]
    cli.main(["validate", *measure, "--trainer.default_root_dir", str(tmp_path)])
    assert f"{min(loss):.3f}"[:5] in capsys.readouterr().out


def test_the_best_checkpoint_is_that_of_all_parts_of_a_run(tmp_path, monkeypatch):
    step = killed_at(5)

    def spoilt(self, batch, batch_idx):
        if self.global_step == 6:  # in the second part, which so gets no better
            with torch.no_grad():
                self.model.head.weight.mul_(100)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2"):
        patch.setattr(LanguageModelModule, "training_step", step)
        fit(tmp_path)
    step = LanguageModelModule.training_step
    monkeypatch.setattr(LanguageModelModule, "training_step", spoilt)
    fit(tmp_path, "--ckpt_path", "last")
    for folder, name, at in (("version_0", "best", 4), ("version_1", "best", 4), ("version_1", "last", 8)):
        path = tmp_path / folder / f"{name}.ckpt"
        assert torch.load(path, weights_only=True)["global_step"] == at, (folder, name)
    assert not list(tmp_path.rglob("*.partial"))


def test_settings_that_a_run_does_not_go_on_with_are_told(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    more = ["--ckpt_path", "last", "--trainer.max_steps"]
    with pytest.warns(UserWarning, match="learning_rate=1e-05 is not what this run began with: its optimiser goes on"):
        fit(tmp_path / "run", *more, "10", "--model.init_args.learning_rate", "1e-5")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "learning_rate|weight_decay|betas")
        fit(tmp_path / "run", *more, "12")


def test_a_run_that_has_all_its_steps_does_not_go_on(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    for asked in ("last", str(trained / "version_0")):
        error = fails(
            capsys, "fit", "--config", TINY, "--ckpt_path", asked, "--trainer.default_root_dir", str(tmp_path / "run")
        )
        assert "last.ckpt has all 8 steps, and trainer.max_steps=8 asks for no more; raise --trainer.max_ste" in error
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["version_0"]


@pytest.mark.parametrize("left", ["", "best.ckpt", "last.ckpt"])
def test_a_run_that_was_moved_takes_its_best_checkpoint_along(left, trained, tmp_path):
    """Where it was, another one may have begun since; of one that was moved alone the best stays behind."""
    shutil.copytree(trained, tmp_path / "was")
    (tmp_path / "was" / "version_0" / "best.ckpt").unlink()
    state = torch.load(trained / "version_0" / "last.ckpt", weights_only=True)
    (best,) = [key for key in state["callbacks"] if key.startswith("BestCheckpoint")]
    written = tmp_path / "was" / "version_0" / "best.ckpt"
    state["callbacks"][best]["best_model_path"] = str(written)
    moved = tmp_path / "moved"
    moved.mkdir()
    torch.save(state, moved / "last.ckpt")
    whole = (trained / "version_0" / "best.ckpt").read_bytes()
    if left != "best.ckpt":
        (moved / "best.ckpt").write_bytes(whole)
    if left:
        written.write_bytes(whole if left == "best.ckpt" else b"of another run")
    fit(tmp_path, "--ckpt_path", str(moved), "--trainer.max_steps", "9", "--trainer.limit_val_batches", "0")
    assert (tmp_path / "version_0" / "best.ckpt").read_bytes() == whole


def test_a_best_checkpoint_that_is_gone_is_told(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    state = torch.load(trained / "version_0" / "last.ckpt", weights_only=True)
    (best,) = [key for key in state["callbacks"] if key.startswith("BestCheckpoint")]
    state["callbacks"][best]["best_model_path"] = str(tmp_path / "gone" / "best.ckpt")
    (tmp_path / "run" / "version_0" / "best.ckpt").unlink()
    torch.save(state, tmp_path / "run" / "version_0" / "last.ckpt")
    with pytest.warns(UserWarning, match="the best checkpoint of this run is not at .*run/version_0/.* nor .*gone/"):
        fit(tmp_path / "run", "--ckpt_path", "last", "--trainer.max_steps", "9")


def test_runs_that_start_at_once_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.setattr(CSVLogger, "_get_next_version", lambda self: 0)  # neither sees the other's
    for _ in range(2):
        fit(tmp_path, "--trainer.max_steps", "1")
    for number in (0, 1):
        names = {path.name for path in (tmp_path / f"version_{number}").iterdir()}
        assert {"config.yaml", "metrics.csv", "last.ckpt"} <= names
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(claim, [tmp_path] * 16))
    assert sorted(int(folder.name.removeprefix("version_")) for folder in folders) == list(range(2, 18))


def test_only_the_first_rank_claims_a_folder(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert is_rank_zero()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_rank_zero()
    monkeypatch.setenv("RANK", "2")
    assert not is_rank_zero()


def test_a_run_that_never_began_leaves_no_folder(tmp_path, monkeypatch, capsys):
    def broken(self, stage):
        raise OSError("no such text")

    monkeypatch.setattr("wavecomp.training.CopyDataModule.setup", broken)
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false"]
    assert "no such text" in fails(capsys, "fit", "--config", TINY, *root)
    assert not list(tmp_path.iterdir())


def test_an_error_that_nothing_foresaw_is_a_line_and_debug_shows_more(tmp_path, monkeypatch, capsys):
    def broken(self, batch, batch_idx):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguageModelModule, "training_step", broken)
    args = ["fit", "--config", TINY, "--trainer.default_root_dir", str(tmp_path)]
    error = fails(capsys, *args)
    assert error.endswith(
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied; `wavecomp --debug fit ...` shows where it came from"
    )
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--debug", *args])
    shown = capsys.readouterr().err
    assert error in shown and "Traceback (most recent call last)" in shown and "in broken" in shown


def test_a_config_without_entries_is_named(tmp_path, capsys):
    for content in ("", "# all of it is a comment\n", "- 1\n"):
        (tmp_path / "empty.txt").write_text(content)
        assert fails(capsys, "fit", "--config", str(tmp_path / "empty.txt")).endswith("empty.txt has no entries")


def same_model(one, other):
    mine, theirs = (wc.load(run / "last.ckpt").state_dict() for run in (one, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine) and mine


def test_ls_lists_recipes_with_a_line_each(capsys):
    cli.main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipes()) >= 5
    assert all(re.match(r"\S+ +\S.*\.$", line) for line in lines), lines


def test_cp_copies_a_recipe_and_never_overwrites(tmp_path, capsys):
    cli.main(["cp", "copy", str(tmp_path / "mine.yaml")])
    assert (tmp_path / "mine.yaml").read_text() == recipe_path("copy").read_text()
    assert "exists already" in fails(capsys, "cp", "copy", str(tmp_path / "mine.yaml"))
    cli.main(["cp", "copy", str(tmp_path)])
    assert (tmp_path / "copy.yaml").is_file()


def test_cp_says_how_the_copy_is_trained(tmp_path, capsys):
    cli.main(["cp", "copy", str(tmp_path / "mine.yaml")])
    assert capsys.readouterr().out.endswith(f"train it with: wavecomp fit --config {tmp_path / 'mine.yaml'}\n")
    cli.main(["cp", "smoke", str(tmp_path / "over.yaml")])  # which lies over a recipe
    out = capsys.readouterr().out
    assert out.endswith(f"train it with: wavecomp fit --config RECIPE --config {tmp_path / 'over.yaml'}\n")
    given = shlex.split(out[out.index("wavecomp fit") :].replace("RECIPE", "copy"))[1:]
    assert with_recipe_paths(given)[2] == str(recipe_path("copy"))


def test_names_of_recipes_become_paths():
    path = str(recipe_path("copy"))
    assert with_recipe_paths(["fit", "--config", "copy", "-c", "copy", "--config=copy"]) == [
        "fit", "--config", path, "-c", path, f"--config={path}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "args, message",
    [
        (
            ["fit", "--config", "quickstrat"],
            "config 'quickstrat' is neither a recipe nor a file; recipes: .*quickstart",
        ),
        (["train"], "command 'train' is unknown"),
        (["fit"], "fit needs --config RECIPE; recipes: .*quickstart"),
        (["ls", "x"], "unrecognized arguments: x; `wavecomp ls --help` lists"),
        (["validate", "--config", TINY], "validate needs --ckpt_path FILE"),
        (["cp", "copy"], "the following arguments are required: FILE; `wavecomp cp --help`"),
        (["fit", "--config", TINY, "--ckpt_path", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["fit", "--config", TINY, "--data.init_args.batch_size", "0"], "batch_size=0 is too small"),
        (["fit", "--config", TINY, "--model.init_args.learning_rate", "-1"], "learning_rate=-1.0"),
        (["fit", "--config", TINY, "--trainer.max_stepz", "3"], "max_stepz"),
        (
            ["fit", "--config", TINY, "--data", "wavecomp.training.TextDataModule", "--data.source", "none"],
            "names no file",
        ),
    ],
)
def test_errors_are_named_and_exit_with_2(args, message, capsys):
    assert re.search(message, fails(capsys, *args))


@pytest.mark.parametrize(
    "place, key",
    [
        (("trainer",), "max_stepz"),
        (("model", "init_args"), "learning_rat"),
        (("model", "init_args", "model", "init_args", "body", "init_args", "reduce_network", "init_args"), "windw"),
        (("data", "init_args"), "symbls"),
        (("data",), "init_arg"),
    ],
)
def test_a_misspelt_recipe_key_is_named(place, key, tmp_path, capsys):
    recipe = yaml.safe_load(Path(TINY).read_text())
    node = recipe
    for name in place:
        node = node[name]
    node[key] = 3
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(recipe))
    assert key in fails(capsys, "fit", "--config", str(tmp_path / "bad.yaml"))


def test_a_bad_value_deep_in_a_recipe_is_named(tmp_path, capsys):
    text = yaml.safe_dump(zoo.tiny_recipe_of_wavelets())
    for good, bad, message in (
        ("filter_bank: haar", "filter_bank: wavy", "wavelet='wavy' is not a discrete wavelet"),
        ("level: 2", "level: 7", "level=7 is too deep for chunk_length=16"),
        ("count: 4", "count: 99", "count=99 asks for more codes than the 16 coefficients"),
        ("length: 32", "length: 0", "length=0"),
    ):
        assert good in text
        (tmp_path / "bad.yaml").write_text(text.replace(good, bad))
        assert re.search(message, fails(capsys, "fit", "--config", str(tmp_path / "bad.yaml"))), message


def test_a_damaged_checkpoint_is_refused(trained, tmp_path, capsys):
    whole = (trained / "version_0" / "last.ckpt").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "bad.ckpt").write_bytes(content)
        assert "bad.ckpt is damaged" in fails(
            capsys, "fit", "--config", TINY, "--ckpt_path", str(tmp_path / "bad.ckpt")
        )


def test_last_without_a_run_says_where_it_looked(tmp_path, capsys):
    error = fails(capsys, "fit", "--config", TINY, "--trainer.default_root_dir", str(tmp_path), "--ckpt_path", "last")
    assert f"no run below {tmp_path} has a last.ckpt" in error


def test_help_needs_no_recipe(capsys):
    cli.main([])
    assert "usage: wavecomp" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [[str(Path(sys.executable).parent / "wavecomp")], [sys.executable, "-m", "wavecomp"]]
)
def test_it_is_installed_as_a_script_and_as_a_module(command):
    out = subprocess.run([*command, "ls"], capture_output=True, text=True, check=True)
    assert "quickstart" in out.stdout


def validations(root, version):
    with open(root / f"version_{version}" / "metrics.csv") as file:
        return [(int(row["step"]), row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]


@pytest.mark.parametrize("step", [2, 3, 5, 7])
def test_a_stop_invents_no_validation_and_loses_none(step, tmp_path, monkeypatch, capsys):
    """Validation is due after every fourth step of eight."""
    settings = ["--trainer.max_steps", "8", "--trainer.val_check_interval", "4"]
    settings += ["--trainer.check_val_every_n_epoch", "null"]
    fit(tmp_path / "whole", *settings)
    whole = validations(tmp_path / "whole", 0)
    assert [at for at, _ in whole] == [3, 7]
    training_step = LanguageModelModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelModule, "training_step", interrupted)
        if step == 7:  # the last one: there is nothing to resume
            fit(tmp_path / "halves", *settings)
        else:
            with pytest.raises(SystemExit):
                fit(tmp_path / "halves", *settings)
    before = validations(tmp_path / "halves", 0)
    if step != 7:
        fit(tmp_path / "halves", *settings, "--ckpt_path", "last")
        before += validations(tmp_path / "halves", 1)
    assert before == whole
    assert "validation was at step" not in capsys.readouterr().out


def test_the_summary_says_which_step_was_validated(tmp_path, capsys):
    settings = ["--trainer.val_check_interval", "4", "--trainer.check_val_every_n_epoch", "null"]
    fit(tmp_path, "--trainer.max_steps", "6", *settings)
    out = capsys.readouterr().out
    assert "Trained 6 steps." in out and re.search(r"validation was at step +4\n", out)


def test_a_model_trained_in_half_precision_is_loaded_as_it_is(tmp_path):
    fit(tmp_path, "--trainer.max_steps", "1", "--trainer.precision", "bf16-true")
    model = wc.load(tmp_path / "version_0")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
