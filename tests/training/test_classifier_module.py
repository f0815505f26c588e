"""Training classifiers, and pieces of several texts to tell apart."""

import math

import lightning as L
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.training import ClassifierModule, CopyDataModule, OriginDataModule


@pytest.fixture
def texts(tmp_path):
    """Three folders: two texts of two letters each, of which one is common, and one of a single long file."""
    for name, letters, files in (("one", b"ab", 5), ("two", b"ac", 5), ("three", b"ad", 1)):
        (tmp_path / name).mkdir()
        for number in range(files):
            choice = torch.randint(2, (2000 // files,), generator=torch.Generator().manual_seed(number)).tolist()
            (tmp_path / name / f"{number}.txt").write_bytes(bytes(letters[i] for i in choice))
    return [str(tmp_path / name) for name in ("one", "two", "three")]


def classifier(compressor=None, classes=3):
    network = wc.ChunkNetwork(
        chunk_length=zoo.CHUNK,
        encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        compressor=compressor or zoo.wavelet_compressor(wc.GlobalTopK(target_ratio=zoo.RATIO)),
    )
    reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)
    return wc.ChunkReduceClassifier(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(chunk_networks=[network], reduce_network=reduce_network),
        head=nn.Linear(zoo.DIM, classes),
    )


def trainer(tmp_path, **arguments):
    settings = dict(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    return L.Trainer(**{**settings, **arguments})


def test_validation_measures_what_the_definitions_say(tmp_path, texts):
    data = OriginDataModule(sources=texts, length=40, batch_size=4, validation_samples=3)
    module = ClassifierModule(model=zoo.perturb(classifier()))
    (logged,) = trainer(tmp_path).validate(module, data, verbose=False)
    batch = data.collate([data.validation_set()[i] for i in range(9)])
    with torch.no_grad():
        logits = module.model.eval()(batch["tokens"])
        ratio = module.model.encode(batch["tokens"]).ratio
    expected = {
        "val/loss": F.cross_entropy(logits, batch["labels"]) / math.log(2),
        "val/accuracy": (logits.argmax(-1) == batch["labels"]).float().mean(),
        "val/compression_ratio": ratio,
    }
    assert set(logged) == set(expected)
    for name, value in expected.items():
        assert logged[name] == pytest.approx(float(value), abs=1e-5), name


def test_training_tells_texts_apart(tmp_path, texts):
    module = ClassifierModule(model=classifier(zoo.leaves()), learning_rate=1e-2, warmup_steps=1)
    (controller,) = module.model.body.controllers().values()
    before = float(controller.log_threshold)
    data = OriginDataModule(sources=texts, length=40, batch_size=8, validation_samples=8)
    run = trainer(tmp_path, max_steps=30)
    run.fit(module, data)
    (logged,) = run.validate(module, data, verbose=False)
    assert logged["val/accuracy"] > 0.9
    assert float(controller.log_threshold) != before


def test_rows_of_unequal_length_count_alike():
    module = ClassifierModule(model=zoo.perturb(classifier()))
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    rows = [torch.randint(256, (n,)) for n in (40, 7)]
    batch = {
        "tokens": nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "lengths": torch.tensor([40, 7]),
        "labels": torch.tensor([2, 0]),
    }
    with torch.no_grad():
        loss = module.training_step(batch, 0)
        alone = [F.cross_entropy(module.model(row[None]), label[None]) for row, label in zip(rows, batch["labels"])]
    assert float(loss) == pytest.approx(float(sum(alone)) / 2, abs=1e-5)
    assert float(logged["train/loss"]) == pytest.approx(float(loss) / math.log(2), abs=1e-5)


def test_more_labels_than_the_head_knows_are_refused(tmp_path, texts):
    data = OriginDataModule(sources=texts, length=40)
    with pytest.raises(ValueError, match="the data has labels up to 2, the model's head knows 0 to 1"):
        trainer(tmp_path).fit(ClassifierModule(model=classifier(classes=2)), data)
    module = ClassifierModule(model=classifier())
    module.model.embedding = nn.Embedding(8, zoo.DIM)
    with pytest.raises(ValueError, match="the data has tokens up to 255, the model's embedding allows 0 to 7"):
        module.check_data(data)
    with pytest.raises(ValueError, match="weight_decay=-1 is negative"):
        ClassifierModule(model=classifier(), weight_decay=-1)


def test_pieces_are_labelled_with_their_text_and_drawn_equally_often(texts):
    data = OriginDataModule(sources=texts, length=50, validation_samples=4, seed=3)
    samples = [data.train_sample(i) for i in range(300)]
    counts = torch.tensor([sample.label for sample in samples]).bincount()
    assert (counts > 70).all() and len(data.classes) == 3
    validation = list(data.validation_set())
    assert [sample.label for sample in validation] == [0, 1, 2] * 4
    for sample in (*samples, *validation):
        assert set(sample.tokens.tolist()) <= {ord("a"), ord("bcd"[sample.label])} and len(sample.tokens) == 50
    assert torch.equal(OriginDataModule(sources=texts, length=50, seed=3).train_sample(7).tokens, samples[7].tokens)
    assert any(
        (OriginDataModule(sources=texts, length=50).train_sample(i).tokens != samples[i].tokens).any() for i in range(9)
    )


def test_what_is_validated_on_is_never_trained_on(texts):
    data = OriginDataModule(sources=texts, length=50, validation_samples=4)
    whole = [[corpus.read(0, len(corpus)).tobytes() for corpus in corpora] for corpora in data.texts]
    for sample in data.validation_set():
        train, validation = whole[sample.label]
        piece = bytes(sample.tokens.tolist())
        assert piece in validation and piece not in train
    for sample in (data.train_sample(i) for i in range(50)):
        train, validation = whole[sample.label]
        assert bytes(sample.tokens.tolist()) in train


def test_pythons_own_library_is_a_source():
    sources = ["python-stdlib/json/*.py", "python-stdlib/email/*.py"]
    data = OriginDataModule(sources=sources, length=64)
    assert all(piece.path.parent.name == "json" for corpus in data.texts[0] for piece in corpus.pieces)
    assert data.classes == sources


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sources": ["python-stdlib/json/*.py"]}, r"sources=\['python-stdlib/json/\*.py'\] has nothing to tell apart"),
        ({"length": 0}, "length=0 is too small"),
        ({"validation_samples": 0}, "validation_samples=0 is too small"),
        ({"validation_share": 1.0}, "validation_share=1.0 is out of range"),
        ({"length": 1000}, r"source '.*one' holds \d+ bytes for validation, too few for one of length=1000"),
    ],
)
def test_bad_input_is_named(texts, settings, message):
    with pytest.raises(ValueError, match=message):
        OriginDataModule(**{"sources": texts, **settings})


def test_a_source_without_files_is_named():
    with pytest.raises(FileNotFoundError, match="python-stdlib|nowhere"):
        OriginDataModule(sources=["python-stdlib/nowhere/*.py", "python-stdlib/json/*.py"])


def test_data_without_labels_is_named(tmp_path):
    module = ClassifierModule(model=classifier(zoo.leaves()))
    with pytest.raises(ValueError, match="CopyDataModule has no labels; allowed: one that has"):
        module.check_data(CopyDataModule(batch_size=2))
