"""Grids go on where they stopped; their members compare equals, and their tables say how many there are."""

import json
import logging

import pytest
import torch
import zoo
from reading_tables import rows

import wavecomp as wc
from wavecomp.benchmarks import __main__ as command
from wavecomp.benchmarks import grid, quality, ratio, recipes, results, tables, tasks, wavelets
from wavecomp.benchmarks.measure import Options
from wavecomp.benchmarks.mixed import SENTENCE, MixedTextDataModule, mixed
from wavecomp.files.recipes import recipe_path

SMALL = Options(small=True)


@pytest.fixture
def tiny(monkeypatch):
    """Models of 16 channels."""
    for module in (quality, tasks, wavelets):
        monkeypatch.setattr(module, "DIM", 16)
    for module in (quality, tasks):
        monkeypatch.setattr(module, "HEADS", 2)


def test_a_member_that_fails_costs_no_other_and_what_is_done_is_not_done_again(tmp_path, monkeypatch, caplog, tiny):
    def broken():
        raise RuntimeError("this one is broken")

    makers = {"broken": broken, "mean": lambda: wc.MeanPoolCompressor(count=4)}
    monkeypatch.setattr(quality, "compressors", lambda ratio: makers)
    options = SMALL._replace(only=("copy-8-0-broken", "copy-8-0-mean", "rate-8-0-mean"))
    level = logging.getLogger("lightning.pytorch").level
    done = grid.run(tmp_path, quality.members(options), options)
    assert logging.getLogger("lightning.pytorch").level == level
    assert [run["task"] for run in done] == ["copy", "rate"]
    assert all(run["compressor"] == "mean" and run["ratio"] == 8 and run["bits"] > 1 for run in done)
    assert all(run["codes_of_chunks"] == [4, 4] for run in done)
    assert all(run["took"] > 0 and run["commit"] and run["device"] for run in done)
    assert [run["member"] for run in done] == ["copy-8-0-mean", "rate-8-0-mean"]
    assert "this one is broken" in caplog.text and [p.suffix for p in tmp_path.glob("small/*")] == [".json"] * 2
    monkeypatch.setattr(tasks, "trained", broken)
    assert grid.run(tmp_path, quality.members(options), options) == done
    # what is done stays, also where another part of the grid is asked for
    other = options._replace(only=("rate-8-0-broken",))
    assert grid.run(tmp_path / "elsewhere", quality.members(other), other, done) == done
    assert "mean" in quality.table(done)


def test_what_is_done_can_be_collected_without_running_the_rest(tmp_path):
    def member():
        raise AssertionError("was run")

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "one.json").write_text('{"seed": 3}')
    options = Options(collect=True)
    assert grid.run(tmp_path, {"one": member, "two": member}, options) == [{"seed": 3}]


def test_the_command_says_how_large_a_grid_is_that_is_there_in_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ratio-members" / "small"
    folder.mkdir(parents=True)
    entry = {"what": "text", "compressor": "Shrinkage", "asked": 8.0, "seed": 0, "trained": 8.1, "calibrated": 7.9}
    (folder / "text-8-0-Shrinkage.json").write_text(json.dumps(entry))
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(["ratio", "--small", "--collect"]))
    result = json.loads((tmp_path / "ratio.json").read_text())
    assert result["members"] == len(ratio.members(SMALL)) == 13 and result["runs"] == [entry]
    assert result["commit"] == "unknown"  # the member does not say at which commit it was run
    figures = ["8.100 (1 of 3)", "1.25%", "7.900 (1 of 3)", "1.25%"]
    assert rows(capsys.readouterr().out) == [["text", "Shrinkage", "8", "", "", *figures, "", ""]]
    assert (tmp_path / "ratio.png").read_bytes().startswith(b"\x89PNG")
    # goes on from its own file where the members are gone, but not from that of another command
    assert result["versions"]["torch"] == "unknown"
    entry |= {"member": "text-8-0-Shrinkage", "torch": "2.0"}
    (tmp_path / "ratio.json").write_text(json.dumps(result | {"runs": [entry]}))
    (folder / "text-8-0-Shrinkage.json").unlink()
    command.run(parser.parse_args(["ratio", "--small", "--collect"]))
    result = json.loads((tmp_path / "ratio.json").read_text())
    assert result["runs"] == [entry] and result["versions"]["torch"] == "2.0"
    with pytest.raises(ValueError, match="no member of ratio is done"):
        command.run(parser.parse_args(["ratio", "--collect"]))
    with pytest.raises(ValueError, match="no member of wavelets is done; without --collect they are run"):
        command.run(parser.parse_args(["wavelets", "--collect"]))
    with pytest.raises(ValueError, match="--only zz begins no member; they begin with copy, rate"):
        command.run(parser.parse_args(["wavelets", "--only", "zz"]))


def test_a_grid_goes_on_from_runs_of_the_same_text_alone(tmp_path, monkeypatch):
    """Also where another has the same name."""
    monkeypatch.chdir(tmp_path)
    book, file = tmp_path / "book.txt", tmp_path / "ratio.json"
    book.write_text("once upon a time")
    options = Options(source=str(book))
    run = {"seed": 0, "member": "text-8-0-Shrinkage", "commit": "a", "device": "b", "torch": "2.0"}
    grid.write(file, results.result("ratio", [run], options, members=1))
    assert results.runs_of(file, "ratio", options) == [run]
    book.write_text("another book")
    assert results.runs_of(file, "ratio", options) == []
    assert results.runs_of(file, "ratio", Options()) == results.runs_of(book / "none", "ratio", options) == []


def test_the_command_ends_with_an_error_when_members_failed_and_keeps_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    entry = {"what": "text", "compressor": "Shrinkage", "asked": 8.0, "seed": 0, "trained": 8.1, "calibrated": 7.9}
    members = {"good": lambda: entry, "bad": lambda: 1 / 0, "worse": lambda: 1 / 0}
    monkeypatch.setattr(ratio, "members", lambda options: members)
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit, match="2 of the members failed, as told above: bad, worse"):
        command.run(parser.parse_args(["ratio"]))
    assert [run["member"] for run in json.loads((tmp_path / "ratio.json").read_text())["runs"]] == ["good"]
    monkeypatch.setattr("wavecomp.benchmarks.wavelets.members", lambda options: {"bad": lambda: 1 / 0})
    with pytest.raises(ValueError, match="no member of wavelets is done; those that ran failed, as told above"):
        command.run(parser.parse_args(["wavelets"]))
    command.run(parser.parse_args(["ratio", "--only", "good"]))
    command.run(parser.parse_args(["ratio", "--collect"]))


def test_members_keep_as_many_codes_as_they_are_compared_at():
    for target in (4, 8, 16):
        makers = quality.compressors(target)
        assert len(makers) > 8
        for name, make in makers.items():
            compressor = make()
            controlled = any(isinstance(module, wc.RatioController) for module in compressor.modules())
            if not controlled and name not in ("none", "all"):
                assert compressor.capacity(tasks.CHUNK) == tasks.CHUNK // target, name


def test_what_is_compared_has_as_many_parameters():
    """A strided convolution beside the fixed low-pass with its channel, and a wider one beside what adapts."""
    for target in (4, 8, 16):
        makers = quality.compressors(target)
        for peers in (("strided", quality.OURS), ("wide-strided", "partial+channel")):
            sizes = [tasks.parameters(tasks.autoencoder(makers[name]())) for name in peers]
            assert max(sizes) < 1.01 * min(sizes)


def test_transforms_keep_as_many_codes_and_only_those_called_learned_learn():
    makers = wavelets.compressors()
    assert len(makers) > 15
    tokens = torch.randint(256, (2, 4 * tasks.CHUNK))
    for name, make in makers.items():
        compressor = make()
        assert compressor.capacity(tasks.CHUNK) == wavelets.COUNT, name
        learns = any(p.requires_grad for p in compressor.transform.parameters())
        assert learns == name.startswith(("learned", "neural", "4-band")), name
        assert float(tasks.language_model(compressor).encode(tokens).ratio) == wavelets.RATIO, name


def test_members_of_one_text_are_not_taken_for_those_of_another(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        options = Options(source=str(tmp_path / name))
        (run,) = grid.run(tmp_path / "members", {"one": lambda name=name: {"text": name}}, options)
        assert run["text"] == name


def test_names_of_members_stay_what_they_were():
    names = quality.members(Options()).keys()
    assert {"copy-4-0-lowpass+channel", "text-8-2-mean", "rate-8-1-partial+channel", "recall-8-0-none"} <= names
    assert "text-8-0-window" in names and "copy-8-0-map-reduce" in names and "text-4-0-window" in names
    for start in ("text-16k-8", "text-4"):
        assert {name for name in names if name.startswith(start)} == {
            f"{start}-{seed}-{name}" for seed in range(3) for name in (quality.OURS, quality.STACKED, "window")
        }
    assert {name for name in names if name.startswith("uneven")} == {
        f"uneven-{asked}-{seed}-{name}"
        for asked, own in ((8, [quality.OURS]), (12.8, []), (16, [quality.OURS]))
        for seed in range(3)
        for name in (*quality.ADAPTING, *own)
    }
    assert "rate-8-0-partial-predicted+channel" in names and "copy-8-0-partial-predicted+channel" not in names
    assert {"text-8-0-Shrinkage", "mixed-8-2-DyadicLeaves"} <= ratio.members(Options(source="any")).keys()


def test_every_target_of_quality_can_be_measured():
    told = {"bits": 1.0, "equal_time": {"bits": 1.0}}
    runs = [
        {"task": task, "asked": asked, "seed": seed, "compressor": name} | told
        for task, asked, seed, name in quality._grid(small=False)
    ]
    for target in quality.targets():
        assert target.values(runs), target.what


@pytest.mark.parametrize("task", ["rate", "uneven", "copy"])
def test_a_task_has_the_model_that_its_module_trains(task):
    kind = wc.ChunkReduceAutoencoder if task in ("rate", "uneven") else wc.ChunkReduceLM
    model = quality.model_of(task, quality.PREDICTED, 8)
    assert type(model) is kind and len(model.body.chunk_networks[0].encoder.blocks) == (1 if task == "copy" else 2)
    module = tasks.module_of(task, model, steps=1)
    assert type(module).__name__ == ("LanguageModelModule" if task == "copy" else "AutoencoderModule")


def test_what_leads_is_tried_at_every_ratio_and_the_rest_at_one():
    names = quality.members(Options()).keys()
    assert set(quality.LEADING) <= quality.compressors(8).keys()
    assert {"copy-16-2-strided", "recall-4-0-random-k+channel", "copy-8-0-latents"} <= names
    assert not {"copy-16-2-latents", "copy-4-0-map-reduce"} & names


def test_no_public_compressor_escapes():
    found = {type(make()) for make in quality.compressors(8).values()}
    assert found == set(zoo.COMPRESSORS)


@pytest.mark.parametrize("task", ["text", "rate"])
def test_map_reduce_has_as_many_blocks_and_no_code_reads_another(task):
    floor, peer = (quality.model_of(task, name, 8) for name in (quality.MAP_REDUCE, "mean"))
    assert tasks.parameters(floor) == tasks.parameters(peer)
    embedded = torch.randn(1, 4 * tasks.CHUNK, tasks.DIM, requires_grad=True)
    for model, reads in ((floor, False), (peer, True)):
        codes = model.body(wc.Codes.from_tokens(embedded))
        (grad,) = torch.autograd.grad(codes.values[:, -1].sum(), embedded)
        assert bool((grad[:, : -tasks.CHUNK] != 0).any()) == reads


@pytest.mark.parametrize("target", quality.RATIOS["text"])
def test_the_window_has_as_many_parameters_as_stacked_and_no_codes(target):
    stacked = quality.model_of("text", quality.STACKED, target)
    assert stacked.body.spans == (tasks.CHUNK, target * tasks.CHUNK)
    window = quality.window_model(target)
    assert tasks.parameters(window) == pytest.approx(tasks.parameters(stacked), rel=0.005)
    tokens = torch.randint(256, (1, 200))
    torch.testing.assert_close(window(tokens), window(tokens, codes="hidden"))
    assert float(window.context(tokens).mask.sum()) == 0


def test_the_window_is_trained_beside_stacked_for_as_many_steps_and_for_as_long(monkeypatch):
    trained = []

    def train(task, make, *, seed, steps, source):
        trained.append((type(make()).__name__, steps))
        return {"bits": 3.0 - 0.1 * len(trained), "gain": 0.0, "ratio": None, "parameters": 1}

    monkeypatch.setattr(tasks, "trained", train)
    monkeypatch.setattr(quality, "step_of", lambda model: lambda tokens: None)
    times = {quality.STACKED: [3.0, 4.0], "window": [2.0, 2.0]}
    monkeypatch.setattr(quality.measure, "interleaved", lambda calls, repeats: times)
    entry = quality.members(Options())["text-8-0-window"]()
    assert sorted(trained) == [("WindowModel", 400), ("WindowModel", 700)]
    assert entry["equal_time"]["steps"] == 700 and entry["step_seconds"] == times
    names = {row[0]: row[1] for row in rows(quality.table([entry]))}
    assert names.keys() == {"window", "window, equal time"} and names["window"] != names["window, equal time"]


def test_a_window_model_trains_like_any_other(tiny):
    found = tasks.trained("copy", lambda: quality.window_model(8), seed=0, steps=2, source=None)
    assert 3 < found["bits"] < 10 and found["gain"] == 0 and found["ratio"] is None


@pytest.mark.slow
def test_a_transform_trains(tmp_path, tiny):
    options = SMALL._replace(only=("copy-0-packets", "rate-0-neural-lifting+"))
    done = grid.run(tmp_path, wavelets.members(options), options)
    assert [run["transform"] for run in done] == ["packets+top-k", "neural-lifting+channel"]
    assert done[1]["learned"] > 0 == done[0]["learned"]
    assert {row[0] for row in rows(wavelets.table(done))} == {"packets+top-k", "neural-lifting+channel"}


def quality_run(name, seed, bits, task="copy", **more):
    return {
        "task": task, "compressor": name, "asked": 8, "seed": seed, "bits": bits, "gain": 0.1, "ratio": 8.0,
        "parameters": 496_129,
    } | more  # fmt: skip


def test_the_table_of_quality_says_what_is_missing_and_has_the_least_bits_on_top():
    runs = [quality_run("mean", seed, 2.0 + seed) for seed in range(3)]
    runs += [quality_run("top", 0, 1.0, codes_of_chunks=[4, 5])]
    runs += [quality_run("top", 1, 1.5, ratio=7.5, codes_of_chunks=[2, 4])]
    runs += [quality_run("mean", 0, 2.5, task="text", gain=0.25)]
    assert rows(quality.table(runs)) == [
        ["top", "1.250 ± 0.250 (2 of 3)", "", "", "7.50 to 8.00", "2 to 5", "496"],
        ["mean", "3.000 ± 1.000", "2.500 (1 of 3)", "0.250 (1 of 3)", "8.00", "", "496"],
    ]
    # chunks of two kinds of text have different numbers of codes whoever asks
    runs = [quality_run("top", 0, 1.0, task="uneven", codes_of_chunks=[1, 7])]
    assert rows(quality.table(runs)) == [["top", "1.000 (1 of 3)", "8.00", "496"]]


def test_columns_of_numbers_stand_to_the_right():
    text = tables.markdown(["model", "x"], [["haar", "1.25"], ["5/3", ""], ["db4", "10 ± 2"]]).splitlines()
    assert text[1] == "|:------|-------:|" and text[2] == "| haar  |   1.25 |" and len({len(t) for t in text}) == 1


def test_the_text_that_is_given_is_that_of_one_recipe_alone(tmp_path, monkeypatch):
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        raise InterruptedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes.subprocess, "run", run)
    for recipe in recipes.RECIPES:
        with pytest.raises(InterruptedError):
            recipes.fit(recipe, 0, small=True, source="book.txt")
    told = {recipe: "book.txt" in command for recipe, command in zip(recipes.RECIPES, commands)}
    assert told == {recipe: recipe == "quickstart, longer" for recipe in recipes.RECIPES}


def test_recipes_that_are_measured_are_recipes():
    for recipe in recipes.RECIPES:
        for name in recipe.split(",")[0].split(" + "):
            assert recipe_path(name).is_file()
    assert len(recipes.members(Options())) == recipes.SEEDS * len(recipes.RECIPES)


def test_the_last_value_of_each_column_counts(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss,val/ratio\n0,3.0,,\n1,,2.5,inf\n1,2.0,,\n2,,1.5,inf\n2,,,\n")
    assert recipes.last_values(path) == {"step": 2.0, "train/loss": 2.0, "val/loss": 1.5}


@pytest.mark.slow
def test_a_recipe_is_trained_as_the_command_line_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    member = recipes.members(SMALL)["copy+copy-mean-pool-0"]
    entry = member()
    assert entry["recipe"] == "copy + copy-mean-pool" and entry["steps"] == 4
    assert entry["metrics"]["val/compression_ratio"] == 4 and entry["metrics"]["val/loss"] > 3
    told = {"took": 90.0, "device": "AMD EPYC, 2 threads"}
    (row,) = rows(recipes.table([entry | told]))
    assert row[0] == "copy + copy-mean-pool" and row[2] == "4" and row[-2:] == ["2", "1.5"]
    (on_gpu,) = rows(recipes.table([entry | told | {"device": "NVIDIA H200"}]))
    assert on_gpu[-2:] == ["", "1.5"]
    kept = wc.load(recipes.RUNS / "small" / "copy+copy-mean-pool-0" / "version_0")
    assert isinstance(kept.body.chunk_networks[0].compressor, wc.MeanPoolCompressor)


def test_mixed_text_has_one_sentence_in_every_other_chunk(tmp_path):
    chunk = ratio.CHUNK
    assert 2 * len(SENTENCE) == chunk
    tokens = torch.arange(256).repeat(2, 2)
    out = mixed(tokens, chunk)
    assert torch.equal(out[:, chunk : 2 * chunk], tokens[:, chunk : 2 * chunk])
    assert bytes(out[1, 2 * chunk : 3 * chunk].tolist()) == 2 * SENTENCE
    (tmp_path / "text").write_bytes(bytes(range(256)) * 64)
    data = MixedTextDataModule(chunk=32, source=str(tmp_path / "text"), length=1024, batch_size=2)
    chunks = next(iter(data.train_dataloader()))["tokens"].unflatten(1, (-1, 32))
    assert (chunks[:, 0::2] == torch.tensor(list(SENTENCE[:32]))).all()
    assert (chunks[:, 1::2].diff(dim=-1) % 256 == 1).all()
