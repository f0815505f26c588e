"""The ratio controller within training: after the optimiser's step, from all counts, and in the checkpoint."""

import itertools
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import zoo
from torch.utils.data import DataLoader

import wavecomp as wc
from wavecomp.training import LanguageModelModule
from wavecomp.training.data.samples import Sample, collate


def loader(count=12, length=65):
    generator = torch.Generator().manual_seed(0)
    samples = [Sample(torch.randint(256, (length,), generator=generator)) for _ in range(count)]
    return DataLoader(samples, batch_size=2, collate_fn=collate)


def module(seed=0):
    torch.manual_seed(seed)
    return LanguageModelModule(model=zoo.language_model(zoo.leaves()), warmup_steps=2)


def fit(module, tmp_path, steps=6, accumulate=1, **more):
    seen, ratios = [], []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            (controller,) = pl_module.model.body.controllers().values()
            seen.append(float(controller.log_threshold))

        def on_train_batch_end(self, trainer, *_):
            ratios.append(float(trainer.callback_metrics["train/compression_ratio"]))

    trainer = L.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        callbacks=[Watch()],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, loader(), **more)
    trainer.ratios = ratios
    return seen, trainer


def test_the_threshold_moves_after_every_step_towards_the_target(tmp_path):
    learner = module()
    (controller,) = learner.model.body.controllers().values()
    before = float(controller.log_threshold)
    controller.target_ratio = 4.0
    seen, trainer = fit(learner, tmp_path)
    assert seen[0] == pytest.approx(before) and len(set(seen)) == 6
    # noise splits everywhere: too many codes were there, and the threshold rose for as long as they were
    moves = [after > before for before, after in itertools.pairwise(seen)]
    crossed = next((step for step, ratio in enumerate(trainer.ratios) if ratio > 4), 6)
    assert crossed >= 3 and all(moves[:crossed])


def test_gradients_that_accumulate_move_it_once(tmp_path):
    seen, _ = fit(module(), tmp_path, steps=3, accumulate=2)
    assert len(seen) == 6
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4] == seen[5]


def test_the_last_batch_of_an_epoch_is_a_step_of_its_own(tmp_path):
    learner = module()
    (controller,) = learner.model.body.controllers().values()
    batches = len(loader())
    _, trainer = fit(learner, tmp_path, steps=2 * -(-batches // 5), accumulate=5)
    assert batches % 5 and trainer.global_step == 2 * -(-batches // 5)
    assert int(controller.updates) == trainer.global_step


def test_filters_do_not_decay():
    compressor = zoo.wavelet_compressor(transform=wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=2))
    learner = LanguageModelModule(model=zoo.language_model(compressor))
    learner.trainer = SimpleNamespace(estimated_stepping_batches=10)
    decaying, others = learner.configure_optimizers()["optimizer"].param_groups
    filters = set(compressor.transform.filter_banks.parameters())
    assert filters and filters <= set(others["params"]) and not filters & set(decaying["params"])
    assert decaying["weight_decay"] > 0 == others["weight_decay"]
    assert len(decaying["params"]) + len(others["params"]) == len(list(learner.parameters()))


def test_a_run_that_resumes_has_the_controller_where_it_was(tmp_path):
    whole, _ = fit(module(), tmp_path, steps=6)
    first = module()
    seen, trainer = fit(first, tmp_path, steps=3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = module(seed=1)
    more, _ = fit(resumed, tmp_path, steps=6, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    # the schedule ends elsewhere, so the networks differ a little; the state does not start anew
    (controller,) = resumed.model.body.controllers().values()
    assert seen == pytest.approx(whole[:3], abs=1e-3)
    assert more[0] == pytest.approx(whole[3], abs=1e-3) and more[0] != pytest.approx(whole[0], abs=1e-3)
    assert float(controller.speed) != 0


def test_two_stages_are_controlled_by_their_own_counts():
    first, second = zoo.leaves(), zoo.wavelet_compressor(wc.Shrinkage(target_ratio=2))
    body = wc.ChunkReduce(
        chunk_networks=[
            wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=first),
            wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=second),
        ],
        reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1),
        keep="last",
    )
    assert list(body.controllers()) == ["chunk_networks.0", "chunk_networks.1"]
    codes = body(wc.Codes.from_tokens(torch.randn(2, 256, zoo.DIM)))
    statistics = codes.statistics
    assert statistics["chunk_networks.0.places"].sum() == 512
    # the second stage counts what the first one kept, in whole slots of its own chunks
    assert statistics["chunk_networks.1.places"].sum() == statistics["chunk_networks.0.kept"].sum()
    assert statistics["chunk_networks.1.kept"].sum() == codes.mask.sum()


def test_a_ratio_that_nothing_would_hold_is_named():
    pooling = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=zoo.wavelet_compressor(wc.Shrinkage(target_ratio=1)))
    model = zoo.language_model(zoo.leaves())
    model.body.reduce_network.input_pooling = pooling
    message = r"model.body.reduce_network.input_pooling.compressor.pruner.controller has target_ratio=1, which nothing"
    with pytest.raises(ValueError, match=message):
        LanguageModelModule(model=model)


def settled(drift, noise, seed=0, steps=400, until=400):
    """How far the threshold in evaluation is from the one that would be right after the last step.

    The log threshold that gives the target moves by ``drift`` per step up to one of them, and what batches hold differs
    by ``noise``; a ratio moves by three times what the threshold does.
    """
    generator = torch.Generator().manual_seed(seed)
    controller = wc.RatioController(target_ratio=8.0)
    for step in range(steps):
        off = float(controller.last) - drift * min(step, until)
        codes = 1000 * torch.exp(-3 * torch.tensor(off)) * (1 + noise * torch.randn((), generator=generator))
        controller.update(tokens=torch.tensor(8000.0), codes=codes)
    return float(controller.eval().log_threshold) - drift * min(steps - 1, until)


@pytest.mark.parametrize("drift", [0.0, 3e-4, -3e-4])
def test_in_evaluation_the_threshold_neither_lags_nor_jitters(drift):
    """Two per cent of a ratio are 0.0067 of the logarithm of the threshold; the mean alone would lag by 0.01."""
    assert abs(settled(drift, 0.0)) < 0.0025
    found = torch.tensor([settled(drift, 0.15, seed) for seed in range(6)])
    assert found.mean().abs() < 0.0067 and found.std() < 0.0067


@pytest.mark.parametrize("drift", [1e-3, -1e-3])
def test_in_evaluation_the_threshold_follows_a_drift_that_turns(drift):
    """A line through the last two fifths of all steps would be 0.018 beyond it."""
    found = torch.tensor([settled(drift, 0.07, seed, until=320) for seed in range(12)])
    assert found.mean().abs() < 0.009 and found.std() < 0.01


def errors(codes_at, steps=400):
    """Relative errors of codes, step by step; ``codes_at(log_threshold, step)`` of those that the target allows."""
    controller = wc.RatioController(target_ratio=8.0)
    found = []
    for step in range(steps):
        share = codes_at(float(controller.last), step)
        controller.update(tokens=torch.tensor(8000.0), codes=torch.tensor(1000 * share))
        found.append(share - 1)
    return torch.tensor(found)


@pytest.mark.parametrize("drift", [2e-3, -2e-3])
@pytest.mark.parametrize("slope", [1, 3, 10])
def test_a_drift_is_followed_and_not_trailed(slope, drift):
    """A controller that moves the threshold by its error alone would be off by 2 per cent or more all the while."""
    found = errors(lambda log, step: math.exp(-slope * (log - drift * step)))
    assert found[-40:].mean().abs() < 0.002


@pytest.mark.parametrize("width", [0.02, 0.001])
def test_a_ratio_that_jumps_is_held_on_average(width):
    """Codes of nearly equal loudness: within so much of the logarithm of the threshold all of them go."""
    found = errors(lambda log, step: 0.1 + 1.9 / (1 + math.exp((log - 0.5 - 3e-4 * step) / width)))
    assert found[-40:].mean().abs() < 0.02 and found[-40:].std() < 0.2


def test_a_step_without_tokens_or_codes_moves_nothing():
    controller = wc.RatioController(target_ratio=8.0)
    controller.update(tokens=torch.tensor(800), codes=torch.tensor(400))
    before = {name: value.clone() for name, value in controller.state_dict().items()}
    for tokens, codes in ((0, 0), (800, 0)):
        controller.update(tokens=torch.tensor(tokens), codes=torch.tensor(codes))
    assert before["speed"] != 0
    assert all(torch.equal(value, before[name]) for name, value in controller.state_dict().items())


def test_a_threshold_that_is_set_is_the_one_in_evaluation():
    controller = wc.RatioController(target_ratio=8.0).eval()
    controller.set_threshold(0.3)
    assert float(controller.threshold) == pytest.approx(0.3)
    for _ in range(50):
        controller.update(tokens=torch.tensor(800), codes=torch.tensor(100))
    assert float(controller.threshold) == pytest.approx(0.3)


def test_a_new_run_begins_with_the_threshold_of_evaluation_that_there_was():
    controller = wc.RatioController(target_ratio=8.0).eval()
    for step in range(200):
        controller.update(tokens=torch.tensor(8000), codes=torch.tensor(1000 + 5 * step + 200 * (step % 2)))
    before = float(controller.threshold)
    controller.restart()
    assert float(controller.threshold) == pytest.approx(before, rel=1e-5)


def test_a_controller_keeps_single_precision_however_a_model_is_cast():
    controller = wc.RatioController(target_ratio=8.0, start=0.3)
    for cast in (lambda m: m.half(), lambda m: m.type(torch.float16), lambda m: m.to(torch.bfloat16)):
        state = cast(controller).state_dict()
        assert {value.dtype for value in state.values()} == {torch.float32}
        assert float(controller.threshold) == pytest.approx(0.3)
