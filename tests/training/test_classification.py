"""Labelled documents: ListOps files, and folders and archives of classes."""

import gzip
import lzma
import tarfile

import numpy as np
import pytest
import torch

from wavecomp.training import FolderClassificationDataModule, ListOpsDataModule
from wavecomp.training.data import Sample
from wavecomp.training.data.classification import Document, hold_out
from wavecomp.training.data.listops import TOKENS
from wavecomp.training.data.samples import collate_labelled


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def classes(folder, count=10):
    """Two classes of texts that say what they are."""
    names = {f"{name}__t{i}.txt": f"{name} text {i} " + "x" * i for name in ("neg", "pos") for i in range(count)}
    return write(folder, **names)


def texts_of(samples):
    return [bytes(sample.tokens.tolist()).decode() for sample in samples]


def validation_of(data):
    return [data.validation_set()[i] for i in range(len(data.validation_set()))]


def archive(folder, path, mode):
    with tarfile.open(path, mode) as tar:
        tar.add(folder, arcname=folder.name)
    return str(path)


def lists(path, rows, header="Source\tTarget"):
    content = "\n".join([header, *(f"{source}\t{target}" for source, target in rows)]) + "\n"
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "wt") as file:
        file.write(content)
    return str(path)


ROWS = [(f"( ( ( [MAX {i} ) {j} ) ] )", max(i, j)) for i in range(8) for j in range(1, 6)]


def test_a_class_is_the_folder_that_a_text_lies_in(tmp_path):
    data = FolderClassificationDataModule(source=str(classes(tmp_path)), validation_share=0.2, batch_size=4)
    assert data.classes == ["neg", "pos"] and len(data.train) == 16 and len(validation_of(data)) == 4
    every = [data.train_sample(i) for i in range(16)] + validation_of(data)
    assert len(set(texts_of(every))) == 20
    for sample, text in zip(every, texts_of(every)):
        assert text.startswith(data.classes[sample.label])
    batch = next(iter(data.train_dataloader()))
    assert (
        set(batch) == {"tokens", "lengths", "labels"} and batch["labels"].dtype == batch["tokens"].dtype == torch.int64
    )
    assert batch["lengths"].tolist() == [len(data.train_sample(i).tokens) for i in range(4)]
    assert batch["labels"].tolist() == [data.train_sample(i).label for i in range(4)]


@pytest.mark.parametrize("ending, mode", [(".tar.xz", "w:xz"), (".tar.gz", "w:gz"), (".tar", "w")])
def test_an_archive_is_read_like_its_folder(tmp_path, ending, mode):
    folder = classes(tmp_path / "reviews")
    packed = archive(folder, tmp_path / f"reviews{ending}", mode)
    for source in (packed, str(tmp_path / "outer")):  # a single outermost folder is entered, packed or not
        if source != packed:
            (tmp_path / "outer").mkdir()
            folder.rename(tmp_path / "outer" / "reviews")
        data = FolderClassificationDataModule(source=source)
        assert data.classes == ["neg", "pos"] and len(data.train) + len(data.validation) == 20


def test_files_lie_at_any_depth_and_those_beside_classes_are_passed_over(tmp_path):
    write(classes(tmp_path), **{"neg__deep__er__t.txt": "neg deep", "readme": "about", ".hidden__t.txt": "no"})
    write(tmp_path, **{"pos__.DS_Store": "junk"})
    data = FolderClassificationDataModule(source=str(tmp_path), validation_share=0.1)
    texts = texts_of([data.train_sample(i) for i in range(len(data.train))] + validation_of(data))
    assert "neg deep" in texts and len(texts) == 21


def test_long_documents_are_cut_and_split_as_before(tmp_path):
    source = str(classes(tmp_path))
    whole, cut = FolderClassificationDataModule(source=source), FolderClassificationDataModule(source=source, length=10)
    assert texts_of(validation_of(cut)) == [text[:10] for text in texts_of(validation_of(whole))]


def test_the_split_is_that_of_the_contents_wherever_they_lie(tmp_path):
    one = classes(tmp_path / "one")
    for i in range(10):
        write(
            tmp_path / "two", **{f"{name}__{9 - i}": (one / name / f"t{i}.txt").read_text() for name in ("neg", "pos")}
        )
    splits = []
    for folder, seed in (("one", 0), ("two", 5)):
        data = FolderClassificationDataModule(source=str(tmp_path / folder), validation_share=0.3, seed=seed)
        splits.append(texts_of(validation_of(data)))
        assert sorted(sample.label for sample in validation_of(data)) == [0, 0, 0, 1, 1, 1]
    assert splits[0] == splits[1]


def test_validation_mixes_the_classes(tmp_path):
    data = FolderClassificationDataModule(source=str(classes(tmp_path, count=40)), validation_share=0.5)
    labels = [sample.label for sample in validation_of(data)]
    assert len(labels) == 40 and 5 < sum(labels[:20]) < 15


def test_a_source_of_its_own_is_validated_on(tmp_path):
    classes(tmp_path / "train", count=6)
    write(tmp_path / "test", neg__a="neg a", pos__b="pos b")
    data = FolderClassificationDataModule(source=str(tmp_path / "train"), validation_source=str(tmp_path / "test"))
    assert len(data.train) == 12 and sorted(texts_of(validation_of(data))) == ["neg a", "pos b"]
    write(tmp_path / "test", zzz__c="more")
    with pytest.raises(ValueError, match="has the classes neg, pos, zzz; allowed: those of source=.*, neg, pos"):
        FolderClassificationDataModule(source=str(tmp_path / "train"), validation_source=str(tmp_path / "test"))


def test_epochs_hold_every_document_once_in_another_order(tmp_path):
    data = FolderClassificationDataModule(source=str(classes(tmp_path)), validation_share=0.2)
    first, second = ([texts_of([data.train_sample(i)])[0] for i in range(e * 16, e * 16 + 16)] for e in (0, 1))
    assert sorted(first) == sorted(second) and len(set(first)) == 16 and first != second
    other = FolderClassificationDataModule(source=str(tmp_path), validation_share=0.2, seed=1)
    assert texts_of([other.train_sample(i) for i in range(16)]) != first


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_resumes_goes_on_where_it_stopped(tmp_path, workers):
    data = ListOpsDataModule(source=lists(tmp_path / "train.tsv", ROWS), batch_size=3, num_workers=workers)
    data.load_state_dict({"position": 60})
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].tolist() == [data.train_sample(i).label for i in (60, 61, 62)]


def test_empty_files_are_named(tmp_path):
    write(classes(tmp_path), pos__nothing="")
    with pytest.warns(UserWarning, match="1 empty files are left out: .*pos/nothing"):
        FolderClassificationDataModule(source=str(tmp_path))


def test_lists_are_tokens_without_round_brackets(tmp_path):
    rows = [("( ( ( [MED ( ( [SM 1 ) 2 ) ] ) 7 ) [MIN 0 [MAX 9 ] ] ] )", 3), ("5", 5)]
    rows += [("( [MAX 1 3 ] )", 3), ("[MIN 5 6 ]", 5)]  # for validation, or the others
    data = ListOpsDataModule(source=lists(tmp_path / "a.tsv", rows), validation_share=0.5)
    for index in range(2):
        sample = data.train_sample(index)
        words = [TOKENS[token] for token in sample.tokens.tolist()]
        first, second = {
            3: ("[MED [SM 1 2 ] 7 [MIN 0 [MAX 9 ] ] ]", "[MAX 1 3 ]"),
            5: ("5", "[MIN 5 6 ]"),
        }[sample.label]
        assert words in (first.split(), second.split())
    assert data.vocabulary == 15 and data.classes == list("0123456789")


@pytest.mark.parametrize("ending", [".tsv", ".tsv.xz", ".tsv.gz"])
def test_lists_may_be_compressed(tmp_path, ending):
    data = ListOpsDataModule(
        source=lists(tmp_path / f"train{ending}", ROWS), validation_source=lists(tmp_path / f"val{ending}", ROWS[:7])
    )
    assert len(data.train) == 40 and len(validation_of(data)) == 7
    batch = next(iter(data.val_dataloader()))
    assert sorted(batch["labels"].tolist()) == sorted(value for _, value in ROWS[:7])


@pytest.mark.parametrize(
    "files, arguments, message",
    [
        ({}, {"length": 0}, "length=0 is too small; allowed: 1 and above"),
        ({}, {"validation_share": 0.0}, "validation_share=0.0 is out of range; allowed: between 0 and 1"),
        ({}, {"validation_share": 1.0}, "validation_share=1.0"),
        ({}, {"batch_size": 0}, "batch_size=0"),
        ({}, {"source": "nowhere"}, "source='nowhere' cannot be read .*No such file"),
        ({"one__a": "a"}, {}, "source=.* has 1 class folders 'one'; allowed: two and above"),
        ({"a": "a", "b": "b"}, {}, "has 0 class folders"),
        ({"one__a": "a", "one__b": "b", "two__": None}, {}, "has classes without text: two; allowed: a file in each"),
        ({"one__a": "a", "one__b": "b", "two__c": ""}, {}, "has classes without text: two"),
        ({"one__a": "a", "one__b": "b", "two__c": "c"}, {}, "class 'two' has 1 document, none to validate on"),
        (
            {"broken.tar.xz": "this is no archive"},
            {"source": "broken.tar.xz"},
            "source=.*cannot be read .*; allowed: a fo",
        ),
    ],
)
def test_bad_folders_are_named(tmp_path, monkeypatch, files, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **{name: content for name, content in files.items() if content is not None})
    for name in (name for name, content in files.items() if content is None):
        (tmp_path / name.rstrip("_")).mkdir()
    if not files:
        classes(tmp_path)
    with pytest.raises(ValueError, match=message):
        FolderClassificationDataModule(**{"source": str(tmp_path), **arguments})


def test_half_an_archive_is_named(tmp_path):
    packed = archive(classes(tmp_path / "reviews"), tmp_path / "reviews.tar.xz", "w:xz")
    content = (tmp_path / "reviews.tar.xz").read_bytes()
    (tmp_path / "reviews.tar.xz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read .*; allowed: a folder, .tar, .tar.gz or .tar.xz"):
        FolderClassificationDataModule(source=packed)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "opens with b''; allowed: a header of Source, a tab and Target"),
        ("[MAX 1 2 ]\t2\n", r"opens with b'\[MAX 1 2 \].t2'"),
        ("Source\tTarget\n", "has a header and nothing else; allowed: one list and above"),
        (
            "Source\tTarget\n[MAX 1 ]\t1\n[AVG 1 2 ]\t1\n",
            r"line 3 holds b'\[AVG 1 2 \]', which is no list; allowed: 0 1 ",
        ),
        ("Source\tTarget\n[MAX 1 2\t2\n", r"line 2 holds b'\[MAX 1 2', which is no list"),
        ("Source\tTarget\n\t2\n", "line 2 holds b'', which is no list"),
        ("Source\tTarget\n[MAX 12 3 ]\t3\n", "which is no list"),
        ("Source\tTarget\n] 3 [MAX\t3\n", "which is no list"),
        ("Source\tTarget\n3 4 5\t3\n", "which is no list"),
        ("Source\tTarget\n[MAX 1 ] [MIN 2 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[XAM 1 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[ [MAX 1 2 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[MAX 1 [ 2 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[MAX[ 1 2 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[MAX 1 MMM 2 ]\t1\n", "which is no list"),
        ("Source\tTarget\n[MAX 1 [MIN ] ]\t1\n", "which is no list"),
        ("Source\tTarget\n[MAX 1 2 ]\n", "line 2 has Target=''; allowed: 0 to 9"),
        ("Source\tTarget\n[MAX 1 2 ]\t12\n", "line 2 has Target='12'; allowed: 0 to 9"),
        (
            "Source\tTarget\n[MAX 1 2 ]\t2\n",
            "class '2' has 1 document, none to validate on; allowed: 2 different ones and above, or a",
        ),
    ],
)
def test_bad_lists_are_named(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        ListOpsDataModule(source=str(tmp_path / "a.tsv"))


@pytest.mark.parametrize("name", ["none.tsv", "broken.tsv.xz", "broken.tsv.gz", "."])
def test_lists_that_cannot_be_read_are_named(tmp_path, name):
    write(tmp_path, **{"broken.tsv.xz": "no archive", "broken.tsv.gz": "no archive"})
    with pytest.raises(ValueError, match="source=.* cannot be read .*; allowed: a file, .xz and .gz too"):
        ListOpsDataModule(source=str(tmp_path / name))


def test_half_a_compressed_file_is_named(tmp_path):
    for name in ("a.tsv.xz", "a.tsv.gz"):
        source = lists(tmp_path / name, ROWS)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="cannot be read"):
            ListOpsDataModule(source=source)


def test_at_least_one_of_each_class_is_held_out_and_one_kept():
    documents = [Document(np.ones(1, dtype=np.uint8), label, bytes([9 - i])) for label in (0, 1) for i in range(3)]
    for share, count in ((0.01, 1), (0.5, 2), (0.99, 2)):
        train, validation = hold_out(documents, share, ["a", "b"])
        assert len(validation) == 2 * count and len(train) == 6 - 2 * count
        assert max(d.digest for d in validation) < min(d.digest for d in train)


def test_documents_that_say_the_same_are_on_one_side():
    for copies in ([0, 0, 0, 1, 2, 2, 3, 4], [0, 1, 1, 1, 1, 1, 1], [5, 5, 5, 5, 5, 6]):
        documents = [Document(np.ones(1, dtype=np.uint8), 0, bytes([digest])) for digest in copies]
        for share in (0.01, 0.1, 0.3, 0.5, 0.99):
            train, validation = hold_out(documents, share, ["a"])
            assert train and validation and len(train) + len(validation) == len(copies)
            assert not {d.digest for d in train} & {d.digest for d in validation}
    with pytest.raises(ValueError, match="class 'a' has 1 document, none to validate on"):
        hold_out(documents[:3], 0.5, ["a"])


def test_samples_without_a_label_are_named():
    with pytest.raises(ValueError, match="1 of 2 samples have a label; allowed: all"):
        collate_labelled([Sample(torch.ones(2).long(), label=0), Sample(torch.ones(2).long())])
    with pytest.raises(ValueError, match="out of range: 15 to 15; allowed: at least one, 0 to 14"):
        collate_labelled([Sample(torch.tensor([15]), label=0)], vocabulary=15)


def test_folders_of_classes_may_be_links(tmp_path):
    (tmp_path / "real").mkdir()
    real = classes(tmp_path / "real")
    links = tmp_path / "links"
    links.mkdir()
    for name in ("neg", "pos"):
        (links / name).symlink_to(real / name)
    one, other = (FolderClassificationDataModule(source=str(source)) for source in (real, links))
    assert other.classes == ["neg", "pos"] and len(one.train) == len(other.train)
