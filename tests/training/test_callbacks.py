"""Callbacks: figures, the ratio, and codes to files."""

import csv
import importlib.util
import warnings

import lightning as L
import numpy as np
import pytest
import torch
import zoo
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.image import imread
from torch.utils.data import DataLoader

import wavecomp as wc
from wavecomp.plots.style import decibels
from wavecomp.training import BandEnergyLogger, FilterLogger, LanguageModelModule, RatioMonitor, SaveCodes
from wavecomp.training.callbacks import BytesPerSecond, figures
from wavecomp.training.data.samples import Sample, collate

BANK = "body.chunk_networks.0.compressor.transform.filter_banks.0"


def loader(count=8, length=65, batch_size=2):
    generator = torch.Generator().manual_seed(0)
    samples = [Sample(torch.randint(256, (length,), generator=generator)) for _ in range(count)]
    return DataLoader(samples, batch_size=batch_size, collate_fn=collate)


def module(compressor=None, **more):
    torch.manual_seed(0)
    return LanguageModelModule(model=zoo.language_model(compressor, **more), warmup_steps=2, learning_rate=1e-2)


def learnable(bank="db2"):
    return zoo.wavelet_compressor(transform=wc.DWT1d(wc.OrthogonalFilterBank(bank), level=2))


def trainer(folder, callback, **settings):
    defaults = dict(
        max_steps=4, val_check_interval=2, num_sanity_val_steps=1, log_every_n_steps=1, enable_checkpointing=False,
        logger=CSVLogger(folder, name=""), enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    return L.Trainer(default_root_dir=folder, callbacks=[callback], **{**defaults, **settings})


def fit(folder, callback, learner, **settings):
    run = trainer(folder, callback, **settings)
    run.fit(learner, loader(), loader(4))
    return run


class Board(TensorBoardLogger):
    """A TensorBoardLogger that keeps what it is given, and needs no TensorBoard."""

    def __init__(self, folder):
        self.folder, self.figures = folder, []

    def add_figure(self, name, figure, global_step):
        self.figures.append((name, figure, global_step))

    experiment = property(lambda self: self)
    name = property(lambda self: "")
    version = property(lambda self: 0)
    log_dir = save_dir = root_dir = property(lambda self: str(self.folder))
    log_metrics = log_hyperparams = log_graph = save = finalize = after_save_checkpoint = lambda self, *_, **__: None


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_band_energies_of_a_validation_batch_are_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda drawing, path, title: drawn.append((drawing, path, title)))
    learner = module()
    fit(tmp_path, BandEnergyLogger(batch=1, row=1), learner)
    assert [path.name for _, path, _ in drawn] == ["band_energy-step000002.png", "band_energy-step000004.png"]
    ax, path, title = drawn[-1]
    assert path.parent == tmp_path / "version_0" / "figures" and title == "band_energy, step 4"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cA2", "cD2", "cD1"]
    batch = list(loader(4))[1]
    learner.model.eval()
    with torch.no_grad():
        energy = learner.model.encode(batch["tokens"]).statistics["chunk_networks.0.band_energy"][1].T
    np.testing.assert_allclose(ax.images[0].get_array(), decibels(energy.numpy()), rtol=1e-4)


def test_figures_are_files_of_the_run_without_tensorboard(tmp_path):
    fit(tmp_path, BandEnergyLogger(), module())
    names = written(tmp_path)
    assert names == [f"version_0/figures/band_energy-step00000{step}.png" for step in (2, 4)]
    assert imread(tmp_path / names[0]).shape[2] == 4


@pytest.mark.parametrize("folder", [None, "mine"])
def test_figures_go_to_tensorboard_and_to_a_folder_that_is_named(folder, tmp_path):
    board = Board(tmp_path / "board")
    callback = BandEnergyLogger(folder=folder and tmp_path / folder)
    fit(tmp_path, callback, module(), logger=[CSVLogger(tmp_path, name=""), board])
    assert [(name, step) for name, _, step in board.figures] == [("band_energy", 2), ("band_energy", 4)]
    assert all(isinstance(figure, wc.plots.style.Figure) for _, figure, _ in board.figures)
    assert written(tmp_path) == ([f"mine/band_energy-step00000{step}.png" for step in (2, 4)] if folder else [])


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="no tensorboard")
def test_tensorboard_itself_takes_the_figures(tmp_path):
    fit(tmp_path, FilterLogger(), module(learnable()), logger=TensorBoardLogger(tmp_path, name=""))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    assert [image.step for image in events.Images(f"filters/{BANK}")] == [2, 4]
    assert not written(tmp_path)


def test_a_model_without_energies_is_told_so_once_and_trains_on(tmp_path):
    with pytest.warns(UserWarning, match="draws nothing: codes carry no 'band_energy' of stage=0") as caught:
        run = fit(tmp_path, BandEnergyLogger(), module(wc.MeanPoolCompressor(count=4)))
    assert len([w for w in caught if "draws nothing" in str(w.message)]) == 1
    assert run.global_step == 4 and not written(tmp_path)
    with pytest.raises(ValueError, match="stage=-1 is negative; allowed: 0 and above"):
        BandEnergyLogger(stage=-1)


def test_learned_filters_are_drawn_beside_initial_ones(tmp_path, monkeypatch):
    drawn = []
    draw = figures.plot_filter_bank
    monkeypatch.setattr(
        figures, "plot_filter_bank", lambda bank, initial: drawn.append((bank, initial)) or draw(bank, initial=initial)
    )
    learner = module(learnable())
    before = {name: value.clone() for name, value in learner.model.get_submodule(BANK).state_dict().items()}
    fit(tmp_path, FilterLogger(folder=tmp_path / "filters"), learner)
    assert written(tmp_path) == [f"filters/filters-{BANK}-step00000{step}.png" for step in (2, 4)]
    (one, _), (bank, initial) = drawn
    for name, value in learner.model.get_submodule(BANK).state_dict().items():
        assert torch.equal(bank.state_dict()[name], value) and torch.equal(initial.state_dict()[name], before[name])
    angles = [next(found.parameters()) for found in (initial, one, bank)]
    assert not torch.equal(angles[0], angles[1]) and not torch.equal(angles[1], angles[2])


@pytest.mark.parametrize("transform", [lambda: None, lambda: zoo.TRANSFORMS[wc.DWT1d]["neural"](2)])
def test_a_model_without_filters_to_draw_is_told_so(transform, tmp_path):
    with pytest.warns(UserWarning, match="the model has no linear filter bank that learns"):
        fit(tmp_path, FilterLogger(), module(zoo.wavelet_compressor(transform=transform())))
    assert not written(tmp_path)


def metrics(folder):
    with open(folder / "version_0" / "metrics.csv") as file:
        return [row for row in csv.DictReader(file) if row.get("chunk_networks.0/ratio")]


class Watch(RatioMonitor):
    """Also keeps the statistics of each batch."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.seen.append((dict(pl_module.statistics), pl_module.model.body.controllers()))
        self.threshold = [float(c.threshold) for c in pl_module.model.body.controllers().values()]
        super().on_train_batch_end(trainer, pl_module, *rest)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_ratio_is_that_of_the_last_steps(accumulate, tmp_path):
    watch = Watch(steps=2)
    learner = module(zoo.leaves(), second=8)
    fit(tmp_path, watch, learner, accumulate_grad_batches=accumulate, max_steps=2 if accumulate == 2 else 4)
    rows = metrics(tmp_path)
    assert [int(row["step"]) for row in rows] == ([0, 1] if accumulate == 2 else [0, 1, 2, 3])
    last = [statistics for statistics, _ in watch.seen[-2 * accumulate :]]
    for stage in (0, 1):
        path = f"chunk_networks.{stage}"
        places, kept = (torch.cat([s[f"{path}.{name}"].flatten() for s in last]) for name in ("places", "kept"))
        assert float(rows[-1][f"{path}/ratio"]) == pytest.approx(float(places.sum() / kept.sum()))
        for percent in (10, 50, 90):
            expected = np.percentile(kept, percent, method="inverted_cdf")
            assert float(rows[-1][f"{path}/kept_{percent}"]) == expected, percent
    overflow = torch.cat([s["chunk_networks.0.overflow"].flatten() for s in last]).float()
    assert float(rows[-1]["chunk_networks.0/overflow"]) == pytest.approx(float(overflow.mean()))
    assert float(rows[-1]["chunk_networks.0/target_ratio"]) == 4
    assert [float(rows[-1]["chunk_networks.0/threshold"])] == pytest.approx(watch.threshold)
    # the second stage pools: it has no target, and loses nothing
    assert not {"chunk_networks.1/target_ratio", "chunk_networks.1/threshold", "chunk_networks.1/overflow"} & {
        *rows[-1]
    }


def test_chunks_behind_the_end_of_a_row_do_not_count(tmp_path):
    statistics = {"a.places": torch.tensor([[8, 8, 3, 0]]), "a.kept": torch.tensor([[2, 4, 1, 0]])}
    from wavecomp.training.callbacks.ratio import _counted

    assert _counted(statistics, "a", 4).tolist() == [19, 0, 0, 1, 1, 0, 1]


def badly_held():
    """Half as much again as was asked for, and nothing moves it."""
    compressor = zoo.leaves()
    compressor.controller.set_threshold(1e-6)
    compressor.controller.gain = 0.0
    compressor.controller.start = 1e-6
    return module(compressor)


def test_a_ratio_that_is_not_kept_is_told_once(tmp_path):
    with pytest.warns(UserWarning) as caught:
        fit(tmp_path, RatioMonitor(steps=2, patience=3), badly_held(), max_steps=8)
    told = [str(w.message) for w in caught if "compression ratio" in str(w.message)]
    ratio = float(metrics(tmp_path)[2]["chunk_networks.0/ratio"])
    assert told == [
        f"chunk_networks.0 reached a compression ratio of {ratio:.2f} over the last 2 steps, {1 - ratio / 4:.0%} below "
        "its target of 4; give it more steps, more room, or another target"
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*compression ratio")
        for kept in (
            RatioMonitor(steps=2, patience=9),
            RatioMonitor(steps=9, patience=0),
            RatioMonitor(steps=2, patience=0, tolerance=0.6),
        ):
            fit(tmp_path / "kept", kept, badly_held(), max_steps=8)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps=0 is too small; allowed: 1 and above"),
        ({"tolerance": 0}, "tolerance=0 is out of range; allowed: above 0"),
        ({"patience": -1}, "patience=-1 is negative; allowed: 0 and above"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RatioMonitor(**settings)


def test_speed_over_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps=0 is too small; allowed: 1 and above"):
        BytesPerSecond(steps=0)


def test_the_monitor_says_what_it_can_watch(tmp_path):
    class Other(L.LightningModule):
        def configure_optimizers(self):
            return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])

        def training_step(self, batch, batch_idx):
            raise AssertionError

    with pytest.raises(ValueError, match="RatioMonitor watches a Other; allowed: a CompressionModule"):
        trainer(tmp_path, RatioMonitor()).fit(Other(), loader())


@torch.no_grad()
def test_saved_codes_are_those_that_load_codes_reads(tmp_path):
    learner = module(zoo.leaves())
    batches = loader(3)
    predicted = trainer(tmp_path, SaveCodes(tmp_path / "new" / "codes")).predict(learner, batches)
    names = [f"rank0-batch{batch:06d}-row{row:03d}.safetensors" for batch, row in ((0, 0), (0, 1), (1, 0))]
    assert sorted(path.name for path in (tmp_path / "new" / "codes").iterdir()) == names
    for name, (batch, row) in zip(names, ((0, 0), (0, 1), (1, 0))):
        codes, made = wc.load_codes(tmp_path / "new" / "codes" / name, learner.model), predicted[batch]
        held = made.mask[row]
        for field in ("values", *wc.Codes.per_slot):
            assert torch.equal(getattr(codes, field)[0], getattr(made, field)[row][held]), field
        assert codes.tokens.tolist() == [65]
    with pytest.raises(ValueError, match="other weights or settings"):
        wc.load_codes(tmp_path / "new" / "codes" / names[0], zoo.perturb(learner.model))


def test_codes_of_several_loaders_lie_side_by_side(tmp_path):
    predicted = trainer(tmp_path, SaveCodes(tmp_path)).predict(module(zoo.leaves()), [loader(1), loader(2)])
    names = {path.name for path in tmp_path.glob("*.safetensors")}
    assert names == {
        "rank0-batch000000-row000.safetensors",
        *(f"rank0-loader1-batch000000-row{row:03d}.safetensors" for row in (0, 1)),
    }
    assert [len(batches) for batches in predicted] == [1, 1]
