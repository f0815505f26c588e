"""Text of the Hub, from files made here: with a stub of the libraries always, with the real ones where installed."""

import itertools
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from wavecomp.training import HubTextDataModule
from wavecomp.training.data.hub import bytes_per_token, pack


class StubStream:
    """The part of ``datasets.IterableDataset`` that is used."""

    def __init__(self, rows, seed=None, part=(0, 1)):
        self.rows, self.seed, self.part, self.epoch = rows, seed, part, 0

    def shuffle(self, seed, buffer_size):
        return StubStream(self.rows, seed, self.part)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def iter(self, batch_size):
        rows = list(self.rows)
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(rows)
        rank, world_size = self.part
        rows = rows[rank::world_size]
        for start in range(0, len(rows), batch_size):
            taken = rows[start : start + batch_size]
            yield {name: [row[name] for row in taken] for name in taken[0]}


def stub_load_dataset(path, name, *, split, streaming):
    assert streaming
    from pathlib import Path

    files = sorted(Path(path).glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"Couldn't find any data file at {path}.")
    chosen = [file for file in files if file.name.startswith(split)]
    if not chosen:
        raise ValueError(f"Bad split: {split}.")
    return StubStream([json.loads(line) for file in chosen for line in file.read_text().splitlines()])


class StubTokenizer:
    """Words, each with its place; spaces are dropped."""

    def __init__(self, path):
        with open(path) as file:
            self.settings = json.load(file)
        self.vocabulary = self.settings["model"]["vocab"]

    from_file = classmethod(lambda cls, path: cls(path))

    @classmethod
    def from_pretrained(cls, name):
        raise OSError(f"no {name}")

    def get_vocab(self):
        return self.vocabulary

    def no_truncation(self):
        self.settings["truncation"] = None

    def no_padding(self):
        self.settings["padding"] = None

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        ids, offsets, at = [], [], 0
        for word in text.split():
            at = text.index(word, at)
            ids.append(self.vocabulary.get(word, 0))
            offsets.append((at, at + len(word)))
            at += len(word)
        if self.settings["truncation"]:
            limit = self.settings["truncation"]["max_length"]
            ids, offsets = ids[:limit], offsets[:limit]
        if self.settings["padding"]:
            ids, offsets = [*ids, 0], [*offsets, (0, 0)]
        return SimpleNamespace(ids=ids, offsets=offsets)


@pytest.fixture(params=["stub", "real"])
def libraries(request, monkeypatch, tmp_path):
    if request.param == "real":
        pytest.importorskip("datasets")
        pytest.importorskip("tokenizers")
        return
    datasets, tokenizers = ModuleType("datasets"), ModuleType("tokenizers")
    distributed = ModuleType("datasets.distributed")
    datasets.load_dataset = stub_load_dataset
    distributed.split_dataset_by_node = lambda stream, rank, world_size: StubStream(
        stream.rows, stream.seed, (rank, world_size)
    )
    tokenizers.Tokenizer = StubTokenizer
    for module in (datasets, distributed, tokenizers):
        monkeypatch.setitem(sys.modules, module.__name__, module)


WORDS = ["ape", "bär", "cow", "dog", "elk", "fox", "gnu", "日本"]


def texts(count, seed=0):
    random = np.random.default_rng(seed)
    return [f"{i} " + " ".join(random.choice(WORDS, size=random.integers(3, 30))) for i in range(count)]


def save(folder, split="train", documents=None, shards=4, column="text"):
    folder.mkdir(parents=True, exist_ok=True)
    documents = texts(60) if documents is None else documents
    for shard in range(shards):
        lines = [json.dumps({column: document, "n": 1}) + "\n" for document in documents[shard::shards]]
        (folder / f"{split}-{shard:05}-of-{shards:05}.jsonl").write_text("".join(lines))
    return str(folder)


def save_tokenizer(path, words=WORDS):
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<end>", *words])}
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
        | {"pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [
            {"id": 1, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            | {"special": True}
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    path.write_text(json.dumps(tokenizer))
    return str(path)


def text_of(rows):
    return b"".join(bytes(row.tokens.tolist()) for row in rows).decode()


def documents_of(data, part=0, parts=1, count=1000):
    return list(itertools.islice(data.train_texts(data._train, part, parts), count))


def batches_of(data, count):
    return list(itertools.islice(iter(data.train_dataloader()), count))


def test_an_epoch_holds_every_document_once_and_those_held_out_never(libraries, tmp_path):
    data = HubTextDataModule(dataset=save(tmp_path / "set"), validation_share=0.2, shuffle=10)
    held_out = [text for text in texts(60) if data._is_held_out(text)]
    kept = set(texts(60)) - set(held_out)
    assert 4 < len(held_out) < 25
    read = documents_of(data, count=2 * len(kept))
    first, second = read[: len(kept)], read[len(kept) :]
    assert set(first) == set(second) == kept and first != second
    assert sorted(text_of(data._validation).split("\n\n")[:-1]) == sorted(held_out)


@pytest.mark.parametrize("parts", [2, 3])  # 4 shards can be dealt to 2, and not to 3
def test_parts_share_the_documents_of_an_epoch(libraries, tmp_path, parts):
    data = HubTextDataModule(dataset=save(tmp_path / "set"), validation_share=0.2, shuffle=10)
    kept = sorted(text for text in texts(60) if not data._is_held_out(text))
    for epoch in (0, 1):
        shares = [list(data.epoch_texts(data._train, part, parts, epoch)) for part in range(parts)]
        assert all(shares) and sorted(itertools.chain(*shares)) == kept


def test_each_worker_reads_the_whole_of_its_part(libraries, tmp_path):
    data = HubTextDataModule(
        dataset=save(tmp_path / "set"), packed=False, batch_size=1, num_workers=2, validation_share=0.2
    )
    rows = [bytes(batch["tokens"][0].tolist()).decode() for batch in batches_of(data, 100)]
    for worker in (0, 1):
        expected = list(data.epoch_texts(data._train, worker, 2, epoch=0))
        assert len(expected) > 10 and rows[worker::2][: len(expected)] == expected


def test_packed_rows_are_full_and_lose_nothing(libraries, tmp_path):
    data = HubTextDataModule(dataset=save(tmp_path / "set"), length=50, batch_size=3, shuffle=0, validation_share=0.1)
    rows = list(itertools.islice(iter(data.train_stream(0, 1)), 20))
    assert all(len(row.tokens) == 50 for row in rows)
    documents = documents_of(data, count=100)
    joined = "".join(text + "\n\n" for text in documents)
    assert b"".join(bytes(row.tokens.tolist()) for row in rows) == joined.encode()[:1000]
    (batch,) = batches_of(data, 1)
    assert batch["tokens"].shape == batch["bytes"].shape == (3, 50) and batch["lengths"] is None
    # every byte of text counts, those between documents do not
    every = list(data.rows(documents))
    assert sum(int(row.bytes.sum()) for row in every) == sum(len(text.encode()) for text in documents)


def test_ragged_rows_are_documents_cut_at_length(libraries, tmp_path):
    data = HubTextDataModule(
        dataset=save(tmp_path / "set"), length=40, batch_size=8, packed=False, shuffle=0, validation_share=0.1
    )
    (batch,) = batches_of(data, 1)
    expected = [text.encode()[:40] for text in documents_of(data, count=8)]
    assert batch["lengths"].tolist() == [len(text) for text in expected] and len(set(map(len, expected))) > 1
    for row, length, text in zip(batch["tokens"], batch["lengths"], expected):
        assert bytes(row[:length].tolist()) == text


def test_tokens_count_the_bytes_of_the_text(libraries, tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer.json")
    data = HubTextDataModule(
        dataset=save(tmp_path / "set"), tokenizer=tokenizer, separator=" <end> ", length=16, validation_share=0.3
    )
    assert data.vocabulary == 10 and data.separator.tolist() == [1]
    rows = [data.validation_set()[i] for i in range(len(data.validation_set()))]
    held_out = [text for text in texts(60) if data._is_held_out(text)]
    assert sum(int(row.bytes.sum()) for row in rows) == sum(len(text.encode()) for text in held_out)
    # each document's number is a token that is not known
    assert sum(len(row.tokens) for row in rows) == sum(len(text.split()) + 1 for text in held_out)
    tokens, counts = data.encode("ape  bär 日本 ")
    assert tokens.tolist() == [2, 3, 9] and counts.tolist() == [3, 6, 8]
    for row in rows:
        assert torch.equal(row.bytes == 0, row.tokens == 1)
    batch = next(iter(data.val_dataloader()))
    assert batch["bytes"].shape == batch["tokens"].shape


def test_bytes_of_a_character_of_several_tokens_count_once():
    # 日 in three tokens, as byte-level tokenizers have it
    assert bytes_per_token("a日b", np.array([1, 2, 2, 2, 3])).tolist() == [1, 3, 0, 0, 1]
    assert bytes_per_token("", np.array([], dtype=np.int64)).tolist() == []


def test_tokens_without_a_place_count_no_bytes():
    assert bytes_per_token("abc", np.array([2, 0, 3])).tolist() == [2, 0, 1]


def test_real_byte_level_tokens_add_up_to_the_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts(50), vocab_size=300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pytest.importorskip("datasets")
    data = HubTextDataModule(dataset="none", tokenizer=str(tmp_path / "tokenizer.json"))
    for text in ["  ape bär 日本 🦊 ", "\n\nfox", "x", *texts(20, seed=1)]:
        tokens, counts = data.encode(text)
        assert len(tokens) == len(counts) and counts.sum() == len(text.encode()) and counts.min() >= 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [3, 4])
def test_a_stream_that_resumes_goes_on_where_it_stopped(libraries, tmp_path, workers, done):
    def make():
        return HubTextDataModule(
            dataset=save(tmp_path / "set"), length=32, batch_size=2, num_workers=workers, validation_share=0.1
        )

    whole = batches_of(make(), done + 4)
    resumed = make()
    resumed.load_state_dict({"position": done * 2})
    for expected, batch in zip(whole[done:], batches_of(resumed, 4)):
        assert torch.equal(expected["tokens"], batch["tokens"])


def test_ranks_read_different_documents(libraries, tmp_path):
    data = HubTextDataModule(dataset=save(tmp_path / "set"), length=400, packed=False, validation_share=0.1)
    rows = [{text_of([row]) for row in itertools.islice(iter(data.train_stream(rank, 2)), 20)} for rank in (0, 1)]
    assert len(rows[0]) == len(rows[1]) == 20 and not rows[0] & rows[1]


def test_a_split_of_its_own_is_validated_on_and_nothing_held_out(libraries, tmp_path):
    save(tmp_path / "set", split="test", documents=texts(12, seed=3), shards=1)
    data = HubTextDataModule(
        dataset=save(tmp_path / "set"), validation_split="test", validation_documents=5, shuffle=0, separator="|"
    )
    assert text_of(data._validation) == "".join(text + "|" for text in texts(12, seed=3)[:5])
    assert set(documents_of(data, count=60)) == set(texts(60))


def test_empty_documents_are_passed_over(libraries, tmp_path):
    documents = ["", "ape", "", "fox"] * 5
    data = HubTextDataModule(
        dataset=save(tmp_path / "set", documents=documents, shards=1), packed=False, shuffle=0, validation_share=1e-9
    )
    rows = list(itertools.islice(iter(data.train_stream(0, 1)), 10))
    assert [text_of([row]) for row in rows] == ["ape", "fox"] * 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"length": 0}, "length=0 is too small; allowed: 1 and above"),
        ({"shuffle": -1}, "shuffle=-1 is too small; allowed: 0 and above"),
        ({"validation_documents": 0}, "validation_documents=0 is too small"),
        ({"validation_share": 0.0}, "validation_share=0.0 is out of range; allowed: between 0 and 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"split": "nowhere"}, "split='nowhere' cannot be loaded: .*Bad split"),
        ({"column": "body"}, "column='body' is not in dataset=.*; allowed: .*text"),
        ({"column": "n"}, "column='n' holds int; allowed: text"),
        ({"validation_share": 1e-9}, "holds out no text of dataset=.*; allowed: a larger share"),
    ],
)
def test_bad_input_is_named(libraries, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        data = HubTextDataModule(dataset=save(tmp_path / "set"), **arguments)
        next(iter(data.train_dataloader()))
        data.validation_set()


def test_what_cannot_be_loaded_is_named(libraries, tmp_path):
    with pytest.raises(
        ValueError, match="dataset='.*/none', subset=None, split='train' cannot be loaded: Couldn't find"
    ):
        HubTextDataModule(dataset=str(tmp_path / "none")).validation_set()
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer='.*broken.json' cannot be loaded .*; allowed: a name on the Hub"):
        HubTextDataModule(dataset="any", tokenizer=str(tmp_path / "broken.json"))


def test_documents_of_nothing_do_not_keep_a_rank_waiting(libraries, tmp_path):
    data = HubTextDataModule(dataset=save(tmp_path / "set", documents=["", "ape", ""]), validation_split="train")
    rows = data.rows(data.train_texts(data._train, 0, 1))
    assert text_of([next(rows)]).startswith("ape")
    data = HubTextDataModule(dataset=save(tmp_path / "none", documents=["", ""]), validation_split="train")
    with pytest.raises(ValueError, match="has no text for part 1 of 1"):
        next(data.rows(data.train_texts(data._train, 0, 1)))


def test_a_part_without_documents_is_named(libraries, tmp_path):
    data = HubTextDataModule(dataset=save(tmp_path / "set", documents=["ape"], shards=1), validation_share=1e-9)
    with pytest.raises(ValueError, match="has no text for part 2 of 2; allowed: at least one document for each rank"):
        next(data.train_texts(data._train, 1, 2))


@pytest.mark.parametrize("missing", ["datasets", "tokenizers"])
def test_missing_libraries_are_named(libraries, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"{missing} is not installed.*pip install 'wavecomp\\[hub\\]'"):
        HubTextDataModule(dataset="any", tokenizer="any")


def test_pack_joins_documents_longer_and_shorter_than_a_row():
    documents = [(np.arange(10), np.ones(10, dtype=int)), (np.arange(3), np.ones(3, dtype=int))]
    rows = list(pack(documents, length=4, separator=np.array([9, 9])))
    assert [row.tokens.tolist() for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9], [0, 1, 2, 9], [9]]
    assert [row.bytes.tolist() for row in rows] == [[1] * 4, [1] * 4, [1, 1, 0, 0], [1, 1, 1, 0], [0]]
