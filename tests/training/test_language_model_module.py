import itertools
import math

import lightning as L
import pytest
import torch
import zoo
from torch.nn import functional as F
from torch.utils.data import DataLoader

from wavecomp.training import BytesPerSecond, CopyDataModule, LanguageModelModule
from wavecomp.training.data import Sample
from wavecomp.training.data.samples import collate


def trainer(**arguments):
    settings = dict(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", num_sanity_val_steps=0,
    )  # fmt: skip
    return L.Trainer(**{**settings, **arguments})


def test_validation_measures_what_the_definitions_say(tmp_path):
    data = CopyDataModule(length=24, batch_size=3, validation_samples=7)
    module = LanguageModelModule(model=zoo.perturb(zoo.language_model()))
    (logged,) = trainer(default_root_dir=tmp_path).validate(module, data, verbose=False)
    tokens = torch.stack([data.validation_set()[i].tokens for i in range(7)])
    module.model.eval()
    with torch.no_grad():
        bits, hidden = (
            F.cross_entropy(module.model(tokens, codes=codes).transpose(1, 2), tokens, reduction="none") / math.log(2)
            for codes in (None, "hidden")
        )
        right = module.model(tokens).argmax(-1) == tokens
    expected = {
        "val/bits_per_byte": bits.mean(),
        "val/loss": bits[:, 24:].mean(),
        "val/context_gain": (hidden - bits)[:, 24:].mean(),
        "val/compression_ratio": 4.0,
        "val/answer_bits": bits[:, 24:].mean(),
        "val/answer_bits_hidden": hidden[:, 24:].mean(),
        "val/answer_accuracy": right[:, 24:].float().mean(),
    }
    assert set(logged) == set(expected)
    for name, value in expected.items():
        assert logged[name] == pytest.approx(float(value), abs=1e-5), name


def test_padding_counts_for_nothing():
    module = LanguageModelModule(model=zoo.perturb(zoo.language_model()))
    rows = [torch.randint(256, (n,)) for n in (50, 20)]
    module.log = lambda *args, **kwargs: None
    module.validation_step(collate([Sample(row) for row in rows]), 0)
    together = float(module.val_metrics["bits_per_byte"].compute())
    nats = [F.cross_entropy(module.model(row[None])[0], row, reduction="sum") for row in rows]
    assert together == pytest.approx(float(sum(nats)) / 70 / math.log(2), abs=1e-5)


def test_training_lowers_the_loss_and_hides_its_share_of_rows(tmp_path):
    module = LanguageModelModule(model=zoo.language_model(vocabulary=16), hidden_share=0.25, warmup_steps=1)
    codes = module.model.context(torch.randint(16, (3, 40)))

    shares = []
    for step in range(8):
        module._batches_before = lambda step=step: step
        shares.append(module._hidden_rows(codes)[:, 0])
    assert torch.cat(shares).sum() == 6
    module = LanguageModelModule(model=zoo.language_model(vocabulary=16), warmup_steps=1)
    data = CopyDataModule(symbols=16, length=32, batch_size=8, validation_samples=8)
    run = trainer(max_steps=30, default_root_dir=tmp_path)
    run.validate(module, data, verbose=False)
    before = float(run.callback_metrics["val/bits_per_byte"])
    run.fit(module, data)
    run.validate(module, data, verbose=False)
    assert float(run.callback_metrics["val/bits_per_byte"]) < before


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_hidden_rows_learn_without_their_codes(share):
    module = LanguageModelModule(model=zoo.perturb(zoo.language_model()), hidden_share=share)
    module.log = lambda *args, **kwargs: None
    module.training_step(collate([Sample(torch.randint(256, (40,))) for _ in range(2)]), 0).backward()
    learned = [p.grad is not None and bool(p.grad.any()) for p in module.model.body.parameters()]
    assert all(learned) if share == 0 else not any(learned)


def test_rate_warms_up_and_falls():
    module = LanguageModelModule(model=zoo.language_model(), warmup_steps=10, final_share=0.1)
    rates = [module.rate(step, 100) for step in range(101)]
    assert rates[:10] == [(i + 1) / 10 for i in range(10)] and rates[10] == 1
    assert all(a >= b for a, b in itertools.pairwise(rates[10:])) and rates[100] == pytest.approx(0.1)
    assert module.rate(200, 100) == pytest.approx(0.1)


def test_only_matrices_decay(tmp_path):
    module = LanguageModelModule(model=zoo.language_model(vocabulary=16), weight_decay=0.1)
    run = trainer(default_root_dir=tmp_path)
    run.fit(module, CopyDataModule(length=16, batch_size=2, validation_samples=2))
    matrices, others = run.optimizers[0].param_groups
    assert matrices["weight_decay"] == 0.1 and all(p.ndim >= 2 for p in matrices["params"])
    assert others["weight_decay"] == 0 and all(p.ndim < 2 for p in others["params"])
    assert len(matrices["params"]) + len(others["params"]) == len(list(module.parameters()))


def test_a_vocabulary_that_the_model_does_not_know_is_refused(tmp_path):
    module = LanguageModelModule(model=zoo.language_model(vocabulary=16))
    with pytest.raises(ValueError, match="the data has tokens up to 31, the model's embedding allows 0 to 15"):
        trainer(default_root_dir=tmp_path).fit(module, CopyDataModule(symbols=32, length=16))


def test_a_stage_whose_chunks_are_longer_than_the_samples_is_refused(tmp_path):
    module = LanguageModelModule(model=zoo.language_model(), warmup_steps=0)
    span = module.model.body.spans[-1]
    with pytest.raises(
        ValueError, match=rf"chunk_networks\[0\] reads chunks of {span} tokens, the longest .* has {span}:"
    ):
        trainer(default_root_dir=tmp_path, max_steps=1).fit(module, CopyDataModule(length=span // 2))
    trainer(default_root_dir=tmp_path, max_steps=1).fit(module, CopyDataModule(length=span // 2 + 1))


def test_a_run_without_an_end_is_refused(tmp_path):
    module = LanguageModelModule(model=zoo.language_model())
    with pytest.raises(ValueError, match="max_steps=-1"):
        trainer(max_steps=-1, default_root_dir=tmp_path).fit(module, CopyDataModule(length=16))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0}, "learning_rate=0 is out of range"),
        ({"learning_rate": math.nan}, "learning_rate=nan is out of range; allowed: above 0, finite"),
        ({"weight_decay": -1}, "weight_decay=-1 is negative"),
        ({"warmup_steps": -1}, "warmup_steps=-1 is negative"),
        ({"final_share": 2}, "final_share=2 is out of range; allowed: 0 to 1"),
        ({"hidden_share": -0.5}, "hidden_share=-0.5 is out of range"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LanguageModelModule(model=zoo.language_model(), **arguments)


def test_any_loader_of_tokens_will_do(tmp_path):
    loader = DataLoader([{"tokens": torch.randint(256, (40,))} for _ in range(8)], batch_size=4)
    training = trainer(default_root_dir=tmp_path, callbacks=[BytesPerSecond()])
    module = LanguageModelModule(model=zoo.language_model())
    training.fit(module, loader, loader)
    metrics = training.callback_metrics
    assert metrics["val/loss"].isfinite() and metrics["train/bytes_per_second"] > 0
    assert "val/answer_bits" not in metrics
    assert len(training.predict(module, loader)) == 2
