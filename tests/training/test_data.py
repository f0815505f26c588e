import itertools
import os
import pickle
import subprocess
import types

import lightning as L
import numpy as np
import pytest
import torch
import zoo
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader

from wavecomp.training import CopyDataModule, LanguageModelModule, RecallDataModule, TextDataModule
from wavecomp.training.data import Sample
from wavecomp.training.data.samples import collate
from wavecomp.training.data.text import find_files


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def text(count, seed=0):
    return np.random.default_rng(seed).integers(256, size=count, dtype=np.uint8).tobytes()


def validation_bytes(data):
    rows = [data.validation_set()[i].tokens for i in range(len(data.validation_set()))]
    return bytes(torch.cat(rows).tolist())


def test_one_file_is_split_by_its_tail_and_every_byte_of_it_counts(tmp_path):
    content = text(1000)
    data = TextDataModule(source=write(tmp_path, a=content) + "/a", length=64, validation_share=0.25, batch_size=2)
    assert validation_bytes(data) == content[750:]
    for index in range(50):
        sample = bytes(data.train_sample(index).tokens.tolist())
        assert len(sample) == 64 and sample in content[:750]


def test_several_files_are_split_by_file_the_same_way_anywhere(tmp_path):
    files = {f"f{i}": text(500, seed=i) for i in range(10)}
    splits = []
    for place in ("one", "two"):
        data = TextDataModule(source=write(tmp_path / place, **files), length=64, validation_share=0.2)
        splits.append([piece.path.name for piece in data.validation.pieces])
        assert len(data.validation) >= 0.2 * 5000 and not set(splits[-1]) & {p.path.name for p in data.train.pieces}
    assert splits[0] == splits[1] and len(splits[0]) in (2, 3)
    joined = b"".join(files[name] for name in splits[0])
    assert validation_bytes(data) == joined


def test_one_large_file_among_small_ones_is_split_by_its_tail(tmp_path):
    for names in (("book", "readme"), ("b", "r"), ("x1", "x2"), ("y", "z")):
        folder = tmp_path / names[0]
        data = TextDataModule(source=write(folder, **{names[0]: text(100_000), names[1]: text(600)}), length=64)
        assert 0.09 * 100_600 <= len(data.validation) <= 0.13 * 100_600
        assert len(data.train) + len(data.validation) == 100_600


def test_empty_files_are_named(tmp_path):
    with pytest.warns(UserWarning, match="1 empty files are left out: .*/nothing"):
        TextDataModule(source=write(tmp_path, a=text(1000), nothing=""), length=64)


def test_samples_run_on_from_file_to_file(tmp_path):
    files = {f"f{i}": text(7, seed=i) for i in range(30)}
    data = TextDataModule(source=write(tmp_path, **files), length=40, validation_share=0.3)
    joined = b"".join(files[piece.path.name] for piece in data.train.pieces)
    for index in range(30):
        assert bytes(data.train_sample(index).tokens.tolist()) in joined


def test_validation_samples_lie_at_even_distances(tmp_path):
    data = TextDataModule(
        source=write(tmp_path, a=text(10_000)) + "/a", length=100, validation_share=0.5, validation_samples=5
    )
    content = data.validation.read(0, 5000).tobytes()
    assert validation_bytes(data) == b"".join(content[i * 1000 : i * 1000 + 100] for i in range(5))


def test_source_may_be_a_glob_a_folder_or_the_standard_library(tmp_path):
    write(tmp_path, **{"a.txt": "x", "b.py": "y", "c__d.txt": "z", "e.txt": ""})
    assert [p.name for p in find_files(str(tmp_path))] == ["a.txt", "b.py", "d.txt"]
    assert [p.name for p in find_files(str(tmp_path / "**" / "*.txt"))] == ["a.txt", "d.txt"]
    stdlib = find_files("python-stdlib")
    assert len(stdlib) > 100 and all(p.suffix == ".py" and "test" not in p.parts for p in stdlib)


@pytest.mark.parametrize(
    "files, arguments, error, message",
    [
        ({}, {}, FileNotFoundError, "names no file"),
        ({"a": "", "b": ""}, {}, ValueError, "holds no bytes; empty: .*/a, .*/b"),
        ({"a": "abc"}, {"length": 64}, ValueError, "holds 3 bytes for training, too few for one sample of length=64"),
        ({"a": text(1000)}, {"length": 200}, ValueError, "holds 100 bytes for validation, too few"),
        ({"a": text(1000)}, {"length": 0}, ValueError, "length=0 is too small"),
        ({"a": text(1000)}, {"validation_share": 1.0}, ValueError, "validation_share=1.0 is out of range"),
        ({"a": text(1000)}, {"validation_samples": 0}, ValueError, "validation_samples=0"),
        ({"a": text(1000)}, {"batch_size": 0}, ValueError, "batch_size=0"),
        ({"a": text(1000)}, {"num_workers": -1}, ValueError, "num_workers=-1"),
        ({"a": text(1000)}, {"seed": -1}, ValueError, "seed=-1 is negative"),
    ],
)
def test_bad_text_is_named(tmp_path, files, arguments, error, message):
    source = write(tmp_path, **files)
    with pytest.raises(error, match=message):
        TextDataModule(**{"source": source, "length": 64, **arguments})


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    source = write(tmp_path, a=text(100), secret=text(100))
    if os.geteuid() == 0:  # root reads everything: let the operating system refuse by other means
        from pathlib import Path

        opened = Path.open

        def refuse(self, *args, **kwargs):
            if self.name == "secret":
                raise PermissionError(13, "Permission denied")
            return opened(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)
    else:
        (tmp_path / "secret").chmod(0)
    with pytest.raises(OSError, match="cannot read .*secret: Permission denied"):
        TextDataModule(source=source, length=16)


def test_many_files_do_not_run_out_of_handles(tmp_path):
    write(tmp_path, **{f"f{i}": text(20, seed=i) for i in range(400)})
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200));"
        "from wavecomp.training import TextDataModule;"
        f"data = TextDataModule(source={str(tmp_path)!r}, length=500);"
        "[data.train_sample(i) for i in range(100)]"
    )
    subprocess.run([os.sys.executable, "-c", code], check=True)


def test_copy_repeats_and_asks_for_the_second_half():
    data = CopyDataModule(symbols=16, length=128, batch_size=4)
    sample = data.train_sample(3)
    assert torch.equal(sample.tokens[:128], sample.tokens[128:]) and sample.tokens.max() < 16
    assert sample.answers.tolist() == [False] * 128 + [True] * 128
    assert torch.equal(sample.tokens, data.train_sample(3).tokens)
    assert not torch.equal(sample.tokens, data.train_sample(4).tokens)
    other = CopyDataModule(symbols=16, length=128, batch_size=4, seed=1)
    assert not torch.equal(sample.tokens, other.train_sample(3).tokens)
    assert torch.equal(data.validation_set()[5].tokens, other.validation_set()[5].tokens)


def test_the_copy_curriculum_ends_at_full_length():
    data = CopyDataModule(length=128, batch_size=4, curriculum=40, shortest=32, step=32)
    lengths = [len(data.train_sample(i).tokens) // 2 for i in range(60)]
    assert lengths[0] == 32 and lengths == sorted(lengths) and set(lengths) == {32, 64, 96, 128}
    assert all(len(set(lengths[i : i + 4])) == 1 for i in range(0, 60, 4)) and lengths[40] == 128


def test_recall_asks_for_every_key_once_and_answers_are_in_the_story():
    data = RecallDataModule(keys=12, length=200)
    for index in range(20):
        sample = data.train_sample(index)
        raw = bytes(sample.tokens.tolist())
        story, questions = raw[:200], raw[200:]
        facts = {story[i + 1 : i + 3]: story[i + 3 : i + 5] for i in range(200) if story[i : i + 1] == b"="}
        asked = {questions[i + 1 : i + 3]: questions[i + 3 : i + 5] for i in range(0, 60, 5)}
        assert len(facts) == 12 and asked == facts and story.count(b"=") == 12 and questions.count(b"?") == 12
        assert sample.answers.sum() == 24
        assert bytes(sample.tokens[sample.answers].tolist()) == b"".join(asked.values())


def test_the_recall_curriculum_grows_in_steps():
    data = RecallDataModule(keys=8, length=160, batch_size=2, curriculum=16, steps=4)
    assert [len(data.train_sample(i).tokens) for i in range(0, 20, 2)] == [
        50,
        50,
        100,
        100,
        150,
        150,
        200,
        200,
        200,
        200,
    ]
    assert len(data.validation_set()[0].tokens) == 200


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: CopyDataModule(symbols=1), "symbols=1 is out of range; allowed: 2 to 256"),
        (lambda: CopyDataModule(symbols=257), "symbols=257"),
        (lambda: CopyDataModule(length=0), "length=0"),
        (lambda: RecallDataModule(keys=0), "keys=0 is out of range"),
        (lambda: RecallDataModule(keys=12, length=59), "length=59 does not hold keys=12; allowed: 60"),
        (lambda: RecallDataModule(curriculum=-1), "curriculum=-1"),
        (lambda: collate([Sample(torch.tensor([3, 256]))]), "out of range: 3 to 256; allowed: at least one, 0 to 255"),
        (
            lambda: collate([Sample(torch.ones(2).long()), Sample(torch.ones(2).long(), torch.ones(2) > 0)]),
            "1 of 2 samples mark answers; allowed: all or none",
        ),
        (lambda: collate([Sample(torch.tensor([-1]))]), "out of range: -1 to -1"),
        (lambda: collate([Sample(torch.tensor([], dtype=torch.int64))]), "out of range: none"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_collate_pads_ragged_rows_only():
    whole = collate([Sample(torch.arange(3)), Sample(torch.arange(3))])
    assert whole["lengths"] is None and whole["answers"] is None and whole["tokens"].shape == (2, 3)
    ragged = collate([Sample(torch.arange(3), torch.ones(3) > 0), Sample(torch.arange(2), torch.ones(2) > 0)])
    assert ragged["lengths"].tolist() == [3, 2] and ragged["answers"].tolist() == [[True] * 3, [True, True, False]]


class Trainer(types.SimpleNamespace):
    """As much of one as data ask, of the second of two ranks."""

    def __init__(self, batches=0, **settings):
        self.read = types.SimpleNamespace(processed=batches)
        loop = types.SimpleNamespace(batch_progress=types.SimpleNamespace(total=self.read))
        super().__init__(
            fit_loop=types.SimpleNamespace(epoch_loop=loop),
            distributed_sampler_kwargs={"rank": 1, "num_replicas": 2},
            read=self.read,
            **settings,
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_the_last_one_ended(workers):
    data = CopyDataModule(length=8, batch_size=3)
    data.num_workers = workers
    data.trainer = Trainer()
    loader = data.train_dataloader()
    found = []
    for epoch in range(2):
        found += [batch["tokens"] for batch, _ in zip(loader, range(2))]
        data.trainer.read.processed = 2 * (epoch + 1)
    expected = [data.train_sample(1 + 2 * i).tokens for i in range(12)]
    assert torch.equal(torch.cat(found), torch.stack(expected))


def test_workers_serve_what_one_process_serves():
    def first(workers):
        data = CopyDataModule(length=8, batch_size=3)
        data.num_workers = workers
        loader = iter(data.train_dataloader())
        assert isinstance(data.train_dataloader(), DataLoader)
        return torch.stack([next(loader)["tokens"] for _ in range(5)])

    assert torch.equal(first(0), first(2))


def test_data_reaches_workers_that_are_started_afresh():
    data = CopyDataModule(length=8, batch_size=3)
    expected = data.train_sample(5).tokens
    data.trainer = Trainer()
    data.position()
    data.trainer.read.processed = 4
    data.trainer.held = lambda: None  # a trainer cannot be pickled, and need not be
    copied = pickle.loads(pickle.dumps(data))
    assert copied.rows_per_step == data.rows_per_step == 6
    for mine, its in zip(data.train_dataloader(), range(2)):
        other = next(itertools.islice(copied.train_dataloader(), its, None))
        assert torch.equal(mine["tokens"], other["tokens"])
    assert copied.trainer is None and torch.equal(copied.train_sample(5).tokens, expected)
    assert pickle.loads(pickle.dumps(copied.validation_set()))[0].tokens.shape == (16,)


class Reading(LanguageModelModule):
    """Notes what it is trained on."""

    def training_step(self, batch, batch_idx):
        self.read = [*getattr(self, "read", []), *batch["tokens"].sum(-1).tolist()]
        return super().training_step(batch, batch_idx)


class Numbers(CopyDataModule):
    """Samples that say which they are."""

    def train_sample(self, index):
        return Sample(torch.tensor([index, 0]))


def read_by(data, tmp_path, **settings):
    """Which samples a run reads, in order."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoint = settings.pop("ckpt_path", None)
    settings = {"max_steps": -1, "limit_val_batches": 0, "enable_checkpointing": False} | settings
    trainer = L.Trainer(default_root_dir=tmp_path, **quiet, **settings)
    module = Reading(model=zoo.language_model(), warmup_steps=1)
    trainer.fit(module, data, ckpt_path=checkpoint)
    return module.read, trainer


def test_every_sample_is_read_once_however_batches_add_up(tmp_path):
    def numbers(batch_size=1):
        return Numbers(length=16, symbols=64, batch_size=batch_size)

    found, _ = read_by(numbers(), tmp_path, accumulate_grad_batches=4, limit_train_batches=5, max_epochs=3)
    assert found == list(range(15))
    schedule = GradientAccumulationScheduler({0: 1, 2: 4})
    found, _ = read_by(numbers(), tmp_path, limit_train_batches=4, max_epochs=4, callbacks=[schedule])
    assert found == list(range(16))
    found, _ = read_by(numbers(), tmp_path, overfit_batches=2, max_epochs=3)
    assert found == [0, 1] * 3
    found, trainer = read_by(numbers(2), tmp_path, max_steps=4)
    assert found == list(range(8))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    for batch_size, more in ((4, {}), (1, {}), (2, {"accumulate_grad_batches": 2})):
        found, _ = read_by(numbers(batch_size), tmp_path, max_steps=6, ckpt_path=tmp_path / "last.ckpt", **more)
        assert found == list(range(8, 8 + len(found))) and len(found) >= 2 * batch_size


@pytest.mark.parametrize("more", [{"max_steps": 8}, {"limit_train_batches": 3}, {"limit_train_batches": 6}])
def test_a_run_of_some_epochs_resumes_where_it_was(more, tmp_path):
    """Lightning asks for its data before it restores how far it was, to know how many steps there will be."""

    def numbers():
        return Numbers(length=16, symbols=64, batch_size=1)

    class Kept(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    settings = {"max_epochs": 3, **more}
    whole, _ = read_by(numbers(), tmp_path, callbacks=[Kept()], **settings)
    assert whole == list(range(len(whole))) and len(whole) >= 8
    for step in (2, 3, 7):
        found, _ = read_by(numbers(), tmp_path, ckpt_path=tmp_path / f"{step}.ckpt", callbacks=[Kept()], **settings)
        # Lightning counts the batch whose end a checkpoint was written in as one that is still to come
        assert len(whole) - step <= len(found) <= len(whole) - step + 1
        assert found == list(range(step, step + len(found)))
    # and once more, from a checkpoint of a run that resumed
    found, _ = read_by(numbers(), tmp_path, ckpt_path=tmp_path / "8.ckpt", **{**settings, "max_steps": 10})
    assert found == [8, 9][: len(found)]


def test_other_ranks_go_on_with_the_samples_after_those_of_all():
    data = CopyDataModule(length=8, batch_size=3)
    data.trainer = Trainer(batches=2)  # of a run before
    state = data.state_dict()
    assert state == {"position": 0, "batches": 2}  # it was not read from yet
    data.trainer.read.processed = 4
    state = data.state_dict()
    assert state == {"position": 12, "batches": 4}
    alone = CopyDataModule(length=8, batch_size=3)
    alone.load_state_dict(state)
    batch = next(iter(alone.train_dataloader()))
    assert torch.equal(batch["tokens"], torch.stack([data.train_sample(i).tokens for i in (12, 13, 14)]))
    two = CopyDataModule(length=8, batch_size=3)
    two.load_state_dict(state)
    for trainer in (Trainer(batches=2), Trainer(), Trainer(batches=9)):  # that go on, and one that begins
        two.load_state_dict(state)
        two.trainer = trainer
        batch = next(iter(two.train_dataloader()))
        assert torch.equal(batch["tokens"], torch.stack([data.train_sample(i).tokens for i in (13, 15, 17)]))


def test_a_checkpoint_that_counts_the_samples_of_each_rank_is_read_too():
    data = CopyDataModule(length=8, batch_size=3)
    data.trainer = Trainer()
    data.load_state_dict({"samples": 6})
    assert data.position() == 12


def test_a_further_trainer_goes_on_and_never_back():
    data = CopyDataModule(length=8, batch_size=3)
    data.load_state_dict({"position": 40})
    data.trainer = Trainer()
    found = []
    for batches in range(0, 40, 3):
        data.trainer.read.processed = batches
        found.append(data.position())
    assert found == [40 + 6 * batches for batches in range(0, 40, 3)]


def test_a_file_that_was_changed_is_not_read_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_bytes(b"a" * 4000)
    before = TextDataModule(source=str(path), length=8)
    assert set(before.train_sample(0).tokens.tolist()) == {ord("a")}
    (tmp_path / "new").write_bytes(b"c" * 5000)
    (tmp_path / "new").replace(path)
    after = TextDataModule(source=str(path), length=8)
    assert set(after.train_sample(0).tokens.tolist()) == {ord("c")}
    path.write_bytes(b"d" * 100)
    shorter = TextDataModule(source=str(path), length=8)
    path.write_bytes(b"e" * 90)
    with pytest.raises(ValueError, match="text was changed since it was looked at; build the data module again"):
        shorter.train_sample(0)
    for folder, letter in (("one", b"1"), ("two", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").write_bytes(letter * 4000)
        monkeypatch.chdir(tmp_path / folder)
        assert set(TextDataModule(source="same", length=8).train_sample(0).tokens.tolist()) == set(letter)


def test_ranks_take_different_samples():
    data = CopyDataModule(length=8, batch_size=3)
    data.trainer = Trainer()
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["tokens"], torch.stack([data.train_sample(i).tokens for i in (1, 3, 5)]))
    assert isinstance(data, L.LightningDataModule)


def test_a_stream_that_resumes_goes_on_where_it_stopped():
    data = CopyDataModule(length=8, batch_size=3)
    data.load_state_dict({"position": 6})
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["tokens"], torch.stack([data.train_sample(i).tokens for i in (6, 7, 8)]))


def test_two_links_to_a_file_are_one_text(tmp_path):
    (tmp_path / "blobs").mkdir()
    for number in range(5):
        (tmp_path / "blobs" / f"{number}").write_text(f"text {number} " * 50)
        (tmp_path / f"{number}.txt").symlink_to(tmp_path / "blobs" / f"{number}")
    found = find_files(str(tmp_path))
    assert len(found) == 5 and len({path.resolve() for path in found}) == 5


def test_links_to_folders_are_followed_and_none_is_read_twice(tmp_path):
    for name in "ab":
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "text.txt").write_text(f"text {name} " * 50)
    source = tmp_path / "source"
    source.mkdir()
    (source / "own.txt").write_text("own " * 50)
    for name in "ab":
        (source / name).symlink_to(tmp_path / "elsewhere" / name)
    (source / "again").symlink_to(source)
    found = find_files(str(source))
    assert len(found) == 3 and {path.name for path in found} == {"own.txt", "text.txt"}


def test_a_run_that_goes_on_in_other_batches_has_rows_of_one_size():
    data = CopyDataModule(length=64, shortest=8, step=8, curriculum=640, batch_size=16)
    data.load_state_dict({"position": 32})
    other = CopyDataModule(length=64, shortest=8, step=8, curriculum=640, batch_size=24)
    other.load_state_dict({"position": 32})
    for each in (data, other):
        lengths = [len(each.train_sample(32 + i).tokens) for i in range(10 * each.batch_size)]
        batches = [set(lengths[i : i + each.batch_size]) for i in range(0, len(lengths), each.batch_size)]
        assert all(len(sizes) == 1 for sizes in batches) and len(set(lengths)) > 2
