"""Long texts: checkpoints are asked what they were trained for, and costs are measured where they are said to be."""

import sys

import numpy as np
import pytest
import torch
import yaml
from reading_tables import rows

import wavecomp as wc
from wavecomp.benchmarks import answers, long, reading
from wavecomp.benchmarks.measure import Options
from wavecomp.training import SortDataModule
from wavecomp.training.data.tasks import VALIDATION


@pytest.fixture
def run(tmp_path):
    """A folder of a run of a tiny model on some data."""

    def make(data, **settings):
        folder = tmp_path / "runs" / data / "version_0"
        folder.mkdir(parents=True)
        parts = {
            "embedding": {"class_path": "torch.nn.Embedding", "init_args": {"num_embeddings": 256, "embedding_dim": 8}},
            "body": {
                "class_path": "wavecomp.ChunkReduce",
                "init_args": {
                    "chunk_networks": [
                        {
                            "class_path": "wavecomp.ChunkNetwork",
                            "init_args": {
                                "chunk_length": 64,
                                "compressor": {
                                    "class_path": "wavecomp.MeanPoolCompressor",
                                    "init_args": {"count": 2},
                                },
                            },
                        }
                    ],
                    "reduce_network": {
                        "class_path": "wavecomp.ReduceNetwork",
                        "init_args": {"dim": 8, "heads": 1, "layers": 1},
                    },
                },
            },
            "decoder": {
                "class_path": "wavecomp.LocalDecoder",
                "init_args": {"dim": 8, "heads": 1, "layers": 1, "window": 16},
            },
            "head": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 256}},
        }
        config = {
            "seed_everything": 3,
            "model": {"init_args": {"model": {"class_path": "wavecomp.ChunkReduceLM", "init_args": parts}}},
            "data": {"class_path": f"wavecomp.training.{data}", "init_args": settings},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        model = wc.files.build(folder / "config.yaml")
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": state}, folder / "last.ckpt")
        return str(folder)

    return make


def asked(checkpoint, small=False):
    members = answers.members([checkpoint], small)
    return {name: member for name, member in members.items() if "simulated" not in name}


def test_a_checkpoint_is_asked_what_it_was_trained_for(run):
    passkey = asked(run("PasskeyDataModule", length=4096))
    assert len(passkey) == 9
    assert sum(name.startswith("passkey-1048576-middle-PasskeyDataModule-version_0-") for name in passkey) == 1
    assert len(asked(run("SortDataModule", symbols=5))) == 3
    assert {name.partition("-")[0] for name in asked(run("RulerDataModule", task=["vt", "fwe"]))} == {"vt", "fwe"}
    assert {name.partition("-")[0] for name in asked(run("TextDataModule"))} == {"passkey", *answers.TASKS}
    with pytest.raises(FileNotFoundError, match="checkpoint nowhere is no run"):
        answers.members(["nowhere"], False)


def test_answers_are_scored_and_told(run, monkeypatch):
    for name in ("PASSKEY", "RULER", "SORT"):
        monkeypatch.setattr(answers, name, {600: 2})
    found = []
    for data, settings in (
        ("PasskeyDataModule", {"length": 4096}),
        ("SortDataModule", {"symbols": 5}),
        ("RulerDataModule", {"task": "vt"}),
    ):
        found += [member() for member in asked(run(data, **settings)).values()]
    assert [(entry["task"], entry["depth"]) for entry in found] == [
        *(("passkey", depth) for depth in answers.DEPTHS), ("sort", None), ("vt", None),
    ]  # fmt: skip
    assert all(len(entry["scores"]) == 2 and entry["seed"] == 3 for entry in found)
    told = {row[0]: row for row in rows(long.table(found))}
    assert told["PasskeyDataModule/version_0, 4,096"][1:] == ["600", "0 of 2", "0 of 2", "0 of 2"]
    assert told["RulerDataModule/version_0"][1:] == ["vt", "0.0", "0"]
    assert "trained on SortDataModule/version_0" in told


class Knows:
    """A model that says what it was told to say."""

    def __init__(self, tokens):
        self.tokens = tokens

    def generate(self, prompt, max_new_tokens, temperature):
        return self.tokens[None, : prompt.shape[1] + max_new_tokens]

    def __call__(self, tokens):
        return torch.nn.functional.one_hot(self.tokens, 256)[None].float()


@pytest.mark.parametrize("task", ["passkey", "niah_multivalue", "vt"])
def test_right_answers_score_one_and_wrong_ones_zero(task):
    data = answers._data(task, 1500, "middle" if task == "passkey" else None, {})
    sample = data.validation_sample(0)
    assert answers._said(Knows(sample.tokens), data, 0) == 1
    assert answers._said(Knows(torch.where(sample.answers, ord("?"), sample.tokens)), data, 0) == 0


def test_sorting_is_scored_by_place():
    data = SortDataModule(length=400)
    tokens = data.validation_sample(1).tokens.clone()
    tokens[-20:-15] = (tokens[-20:-15] + 1) % 20
    assert answers._sorted(Knows(tokens), data, 1) == pytest.approx(0.75)


def test_passkeys_stand_where_they_are_said_to():
    for depth, share in answers.DEPTHS.items():
        text = bytes(answers._data("passkey", 4096, depth, {}).validation_sample(0).tokens.tolist())
        place = text.index(b"Remember it.") / len(text)
        assert abs(place - share) < 0.06, depth


def test_simulated_predictors_know_the_distributions_that_samples_were_drawn_from():
    length = 200_000
    symbols = SortDataModule(length=length).validation_sample(7).tokens[:length].numpy()
    weights = np.random.default_rng([0, VALIDATION, 7]).integers(1, 10, size=(2, 20))
    shares = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.abs(np.bincount(symbols, minlength=20) / length - shares).max() < 0.005


def test_simulated_predictors_rank_as_what_they_know():
    scores = answers.simulated(4000, 100)["scores"]
    nothing, first, both, last, last_two, eighth, counts = scores.values()
    # among k that are left one is right: the mean of 1 / k
    assert nothing == pytest.approx(sum(1 / k for k in range(1, 21)) / 20, abs=0.03)
    assert nothing < first < both < counts and last < last_two < counts < 1 and last < eighth < counts
    assert 0.55 < both < 0.75 and counts > 0.95


def test_a_guess_is_among_those_that_are_left():
    guess, target = np.array([2, 0, 1, 3]), np.array([0, 2, 3, 1])
    # 2 instead of 0; then 2, for 0 is known; then 1 instead of 3; then 1
    assert answers._told_the_places_before(guess, target) == 0.5


@pytest.mark.parametrize("name", ["quickstart", pytest.param("two stages", marks=pytest.mark.slow)])
def test_generation_is_timed_after_each_context(name):
    contexts = (300, 1500)
    entry = reading.generation(name, contexts, 1)
    assert [len(seconds) for seconds in entry["seconds"]] == [1, 1] and min(map(min, entry["seconds"])) > 0
    span = reading.MODELS[name]().body.spans[-1]
    if name == "quickstart":  # the sink, and eight codes for each chunk of 64 that ended, new bytes included
        assert entry["codes"] == [1 + 8 * ((context + 2 * span) // 64) for context in contexts]
    else:  # eight coarse ones for each 256
        assert entry["codes"][1] - entry["codes"][0] < (contexts[1] - contexts[0]) // 20
    assert rows(reading.table([entry]))[0][-1] == "1.00"


def read_stream(entry, length):
    assert entry["codes"] == 8 * (length // 64) and entry["memory"] >= 0
    pieces = -(-length // reading.PIECE)
    assert {name: len(seconds) for name, seconds in entry["seconds"].items()} == {"stream": pieces, "encode": pieces}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_stream_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 1024)
    monkeypatch.setattr(reading, "BLOCK", 512)
    read_stream(reading._stream(3000), 3000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_stream_is_read_in_a_process_of_its_own():
    length = reading.PIECE + 1000
    read_stream(reading.stream(length), length)


def test_the_stream_is_compared_with_its_peer_piece_by_piece():
    seconds = {"stream": [1.0, 2.0, 3.0], "encode": [0.5, 2.0, 6.0]}
    entry = {"what": "stream", "length": 3000, "codes": 1, "memory": 2**21, "seconds": seconds, "seed": 0}
    assert rows(long.table([entry])) == [["3,000", "500", "353", "1.00", "2.0"]]


def test_members_of_the_grid():
    assert long.members(Options()).keys() == {
        "generation-quickstart", "generation-two stages", "stream-500000", "stream-5000000",
        "sort-4000-simulated", "sort-8000-simulated", "sort-16000-simulated",
    }  # fmt: skip
