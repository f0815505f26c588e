"""``wavecomp plot``: what it draws comes from the checkpoint, and what it cannot draw is said in a line."""

import json

import matplotlib
import numpy as np
import pytest
import torch
import yaml
import zoo
from test_commands import checkpoint, fails, out_of
from torch import nn

import wavecomp as wc
from wavecomp.commands import plot
from wavecomp.files import build

TEXT = b"What is drawn of a text is what a model makes of it."


def folder_of(folder, **changes):
    """A run that nobody trained: its config with some settings of the wavelet compressor changed."""
    (folder / "config.yaml").write_text(yaml.safe_dump(zoo.tiny_recipe_of_wavelets(**changes)))
    checkpoint(folder, zoo.perturb(build(folder / "config.yaml"), std=0.3))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("run"))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    return tmp_path / "text"


@pytest.fixture
def drawn(monkeypatch):
    """What was to be written, instead of a picture."""
    found = []
    monkeypatch.setattr(plot, "write_figure", lambda drawing, path, *, title: found.append((drawing, title)))
    return found


def draw(capsys, drawn, tmp_path, *args):
    out = out_of(capsys, "plot", *args, "--output", tmp_path / "x.png")
    assert out.endswith(f"{tmp_path / 'x.png'}\n") and out.count("\n") == 1
    return drawn[-1]


def test_each_ending_is_written(run, text, tmp_path, capsys):
    for name in ("x.png", "x.svg", "x.html"):
        out = out_of(capsys, "plot", "energy", text, "--checkpoint", run, "--output", tmp_path / name)
        assert out == f"energy of text: {tmp_path / name}\n" and (tmp_path / name).stat().st_size > 2000
    assert {path.name for path in tmp_path.iterdir()} == {"text", "x.png", "x.svg", "x.html"}


def test_energy_is_of_the_text_and_bands_are_named(run, text, tmp_path, capsys, drawn):
    ax, title = draw(capsys, drawn, tmp_path, "energy", text, "--checkpoint", run)
    codes = wc.load(run).encode(torch.tensor([list(TEXT)]))
    expected = wc.plots.plot_band_energy(codes).images[0].get_array()
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cA2", "cD2", "cD1"]
    assert ax.get_xticklabels()[0].get_text().startswith("0\nWhat") and title == "energy: text"
    ax, title = draw(capsys, drawn, tmp_path, "energy", text, "--checkpoint", run, "--bytes", 20)
    assert ax.images[0].get_array().shape == (3, 2) and title == f"energy: text, the first 20 of {len(TEXT)} bytes"


def test_kept_codes_come_with_the_models_surprisal(run, text, tmp_path, capsys, drawn):
    ax, _ = draw(capsys, drawn, tmp_path, "kept", text, "--checkpoint", run)
    reading = wc.report.read(wc.load(run), TEXT)
    assert ax.patches[0].get_data()[0].tolist() == [len(chunk.codes) for chunk in reading.chunks]
    line = ax.figure.axes[1].patches[0].get_data()[0]
    np.testing.assert_allclose(line, [chunk.bits for chunk in reading.chunks], rtol=1e-4)


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_models_that_predict_nothing_are_looked_at_too(kind, text, tmp_path, capsys, drawn):
    embedding, dim = nn.Embedding(256, zoo.DIM), zoo.DIM
    body = wc.ChunkReduce(
        chunk_networks=[wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=zoo.partial())], reduce_network=nn.Identity()
    )
    if kind == "classifier":
        model = wc.ChunkReduceClassifier(embedding=embedding, body=body, head=nn.Linear(dim, 3))
    else:
        encoder = wc.TransformerEncoder(dim=dim, heads=2, layers=1)
        decoder = wc.ChunkDecoder(chunk_length=zoo.CHUNK, network=encoder, head=nn.Linear(dim, 256))
        model = wc.ChunkReduceAutoencoder(embedding=embedding, body=body, decoder=decoder)
    zoo.perturb(model).save_pretrained(tmp_path)
    kept = wc.load(tmp_path).encode(torch.tensor([list(TEXT)])).statistics["chunk_networks.0.kept"][0]
    ax, _ = draw(capsys, drawn, tmp_path, "kept", text, "--checkpoint", tmp_path)
    assert ax.patches[0].get_data()[0].tolist() == kept.tolist() and len(ax.figure.axes) == 1
    ax, _ = draw(capsys, drawn, tmp_path, "energy", text, "--checkpoint", tmp_path)
    assert ax.images[0].get_array().shape[1] == len(kept)
    draw(capsys, drawn, tmp_path, "filters", "--checkpoint", tmp_path)


def test_filters_are_the_learned_ones_beside_the_initial(tmp_path, capsys, drawn):
    bank = {"class_path": "wavecomp.OrthogonalFilterBank", "init_args": {"init": "db2"}}
    transform = {"class_path": "wavecomp.DWT1d", "init_args": {"filter_bank": bank, "level": 2}}
    learned = folder_of(tmp_path, transform=transform)
    figure, _ = draw(capsys, drawn, tmp_path, "filters", "--checkpoint", learned / "last.ckpt")
    taps = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    begun = {line.get_label(): line.get_ydata() for line in plot.plots.plot_filter_bank(
        wc.OrthogonalFilterBank("db2")).axes[0].lines}  # fmt: skip
    np.testing.assert_allclose(taps["initial approximation"], begun["approximation"], atol=1e-6)
    assert np.abs(taps["approximation"] - begun["approximation"]).max() > 0.05
    error = fails(capsys, "plot", "filters", "--checkpoint", learned, "--bank", 1, "--output", tmp_path / "x.png")
    assert "--bank 1 is not in ChunkReduceLM; allowed: 0 to 0" in error


def test_filters_that_do_not_learn_stand_alone(run, tmp_path, capsys, drawn):
    figure, _ = draw(capsys, drawn, tmp_path, "filters", "--checkpoint", run)
    assert [line.get_label() for line in figure.axes[0].lines] == ["approximation", "detail"]


def test_a_tree_is_that_of_the_best_basis(run, text, tmp_path, capsys, drawn):
    transform = {"class_path": "wavecomp.BestBasis1d", "init_args": {"filter_bank": "haar", "level": 2}}
    basis = folder_of(tmp_path, transform=transform, detail_channel=None)
    ax, _ = draw(capsys, drawn, tmp_path, "tree", text, "--checkpoint", basis)
    assert ax.images[0].get_array().shape == (4, 4) and set(np.unique(ax.images[0].get_array())) <= {1, 2}
    ax, _ = draw(capsys, drawn, tmp_path, "energy", text, "--checkpoint", basis)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["aa", "ad", "dd", "da", "a", "d"]
    error = fails(capsys, "plot", "tree", text, "--checkpoint", run, "--output", tmp_path / "x.png")
    assert "has a DWT1d; a tree to plot has BestBasis1d alone" in error


def test_a_scalogram_and_a_position_code_are_those_of_the_models_parts(run, text, tmp_path, capsys, drawn):
    model, tokens = wc.load(run), torch.tensor([list(TEXT)])
    ax, title = draw(capsys, drawn, tmp_path, "scalogram", text, "--checkpoint", run)
    assert ax.images[0].get_array().shape == (3, len(TEXT)) and title == "scalogram: text"
    assert len(set(ax.images[0].get_array()[:, 0].tolist())) == 3
    figure, _ = draw(capsys, drawn, tmp_path, "position", text, "--checkpoint", run)
    expected = wc.plots.plot_position_code(model.body.chunk_networks[0].compressor.encoding, model.encode(tokens))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected.axes[0].images[0].get_array())
    bare = folder_of(tmp_path, encoding=None)
    error = fails(capsys, "plot", "position", text, "--checkpoint", bare, "--output", tmp_path / "x.png")
    assert "has no encoding; allowed: PositionFrequencyEncoding, DyadicPositionCode" in error


def quality(**changes):
    return {"task": "text", "compressor": "mean", "asked": 4, "seed": 0, "bits": 2.0, "ratio": 4.0} | changes


def test_rate_draws_a_panel_for_each_task(tmp_path, capsys, drawn):
    runs = [quality(), quality(asked=8, ratio=8.0, bits=2.5), quality(compressor="none", ratio=None, bits=3.0)]
    (tmp_path / "q.json").write_text(json.dumps({"runs": [*runs, quality(task="copy", bits=0.5)]}))
    figure, title = draw(capsys, drawn, tmp_path, "rate", tmp_path / "q.json")
    text, copy = figure.axes
    assert (text.get_title(), copy.get_title()) == ("Rate and distortion: text", "Rate and distortion: copy")
    lines = {line.get_label(): line.get_data() for line in text.lines if not line.get_label().startswith("_")}
    assert [x.tolist() for x in lines["mean"]] == [[1 / 8, 1 / 4], [2.5, 2.0]] and lines["none"][1] == [3.0, 3.0]
    assert title == "rate: q.json"


def test_a_compressor_has_one_colour_in_all_panels_of_a_rate(tmp_path, capsys, drawn):
    runs = [quality(), quality(compressor="haar"), quality(compressor="haar", task="copy")]
    (tmp_path / "q.json").write_text(json.dumps({"runs": runs}))
    figure, _ = draw(capsys, drawn, tmp_path, "rate", tmp_path / "q.json")
    text, copy = ({line.get_label(): line.get_color() for line in ax.lines} for ax in figure.axes)
    assert text["haar"] == copy["haar"] != text["mean"]


def test_training_draws_the_metrics_beside_the_checkpoint_and_the_target(tmp_path, capsys, drawn):
    pruner = {"class_path": "wavecomp.Shrinkage", "init_args": {"target_ratio": 4}}
    transform = {"class_path": "wavecomp.DWT1d", "init_args": {"filter_bank": "haar", "level": 4}}
    folder = folder_of(tmp_path, pruner=pruner, transform=transform, detail_channel=None)
    assert "metrics.csv does not exist; give --checkpoint" in fails(
        capsys, "plot", "training", "--checkpoint", folder, "--output", tmp_path / "x.png"
    )
    (folder / "metrics.csv").write_text("step,val/compression_ratio\n1,5\n2,4.5\n")
    for given in (folder, folder / "last.ckpt"):
        figure, _ = draw(capsys, drawn, tmp_path, "training", "--checkpoint", given)
        lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
        assert lines == {"val": [5, 4.5], "target": [4, 4]}


def test_the_course_of_a_checkpoint_that_is_not_there_is_not_drawn(tmp_path, capsys):
    folder = folder_of(tmp_path)
    (folder / "metrics.csv").write_text("step,val/compression_ratio\n1,5\n2,4.5\n")
    asked = ["plot", "training", "--checkpoint", folder / "typo.ckpt", "--output", tmp_path / "x.png"]
    assert "typo.ckpt does not exist" in fails(capsys, *asked)
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_drawn_is_said_in_one_line(run, text, tmp_path, capsys):
    (tmp_path / "empty").touch()
    (tmp_path / "no.json").write_text("{}")
    (tmp_path / "dwt.json").write_text(json.dumps({"runs": [{"form": "matrix", "seconds": [1]}]}))
    (tmp_path / "none.json").write_text(json.dumps({"runs": []}))
    out = tmp_path / "x.png"
    for args, message in (
        (["plot"], "arguments are required: PLOT; `wavecomp plot --help`"),
        (["plot", "spectrum"], "invalid choice: 'spectrum' (choose from 'energy', 'kept', "),
        (["plot", "energy", "--checkpoint", run, "--output", out], "required: FILE; `wavecomp plot energy --help`"),
        (["plot", "energy", text, "--output", out], "required: --checkpoint"),
        (["plot", "energy", text, "--checkpoint", run], "required: --output"),
        (["plot", "energy", text, "--checkpoint", run, "--output", "x.pdf"], "'.pdf'; allowed: .png, .svg, .html"),
        (["plot", "energy", text, "--checkpoint", run, "--output", tmp_path], "is a folder"),
        (["plot", "energy", text, "--checkpoint", run, "--output", tmp_path / "no" / "x.png"], "does not exist"),
        (["plot", "energy", tmp_path / "x", "--checkpoint", run, "--output", out], "/x does not exist"),
        (["plot", "energy", tmp_path, "--checkpoint", run, "--output", out], "is a folder; give a file"),
        (["plot", "energy", tmp_path / "empty", "--checkpoint", run, "--output", out], "empty is empty; give one"),
        (["plot", "kept", text, "--checkpoint", tmp_path / "y", "--output", out], "checkpoint"),
        (["plot", "kept", text, "--checkpoint", run, "--bytes", 0, "--output", out], "--bytes 0 is too small"),
        (["plot", "kept", text, "--checkpoint", run, "--stage", 1, "--output", out], "--stage 1 is out of range; allo"),
        (["plot", "rate", tmp_path / "x", "--output", out], "`wavecomp bench quality` writes one"),
        (["plot", "rate", text, "--output", out], "text holds no runs of compressors; `wavecomp bench quality`"),
        (["plot", "rate", tmp_path / "no.json", "--output", out], "no.json holds no runs of compressors"),
        (["plot", "rate", tmp_path / "dwt.json", "--output", out], "dwt.json holds no runs of compressors"),
        (["plot", "rate", tmp_path / "none.json", "--output", out], "none.json holds no runs of compressors"),
    ):
        assert message in fails(capsys, *args), args
    assert not out.exists()


def test_a_style_that_does_not_work_here_is_told_and_leaves_nothing(run, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no LaTeX
    with matplotlib.rc_context({"text.usetex": True}):
        error = fails(capsys, "plot", "kept", text, "--checkpoint", run, "--output", tmp_path / "x.png")
    assert "RuntimeError: " in error and "latex" in error and "`wavecomp --debug plot ...`" in error
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
