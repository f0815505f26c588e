"""Training autoencoders, and language models whose codes also have to give back their tokens."""

import math

import lightning as L
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.training import AutoencoderModule, CopyDataModule, LanguageModelModule
from wavecomp.training.data import Sample
from wavecomp.training.data.samples import collate


def decoder(vocabulary=256):
    return wc.ChunkDecoder(
        chunk_length=zoo.CHUNK,
        network=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        head=nn.Linear(zoo.DIM, vocabulary),
        encoding=wc.PositionFrequencyEncoding(zoo.DIM),
    )


def autoencoder(compressor=None, vocabulary=256):
    network = wc.ChunkNetwork(
        chunk_length=zoo.CHUNK,
        encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        compressor=compressor or zoo.wavelet_compressor(),
    )
    reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)
    return wc.ChunkReduceAutoencoder(
        embedding=nn.Embedding(vocabulary, zoo.DIM),
        body=wc.ChunkReduce(chunk_networks=[network], reduce_network=reduce_network),
        decoder=decoder(vocabulary),
    )


def trainer(tmp_path, **arguments):
    settings = dict(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    return L.Trainer(**{**settings, **arguments})


def ragged(*lengths):
    return collate([Sample(torch.randint(256, (n,))) for n in lengths])


def silent(module):
    module.log = lambda name, value, **_: module.__dict__.setdefault("logged", {}).update({name: value})
    return module


def test_validation_measures_what_the_definitions_say(tmp_path):
    data = CopyDataModule(length=24, batch_size=3, validation_samples=7)
    module = AutoencoderModule(model=zoo.perturb(autoencoder()))
    (logged,) = trainer(tmp_path).validate(module, data, verbose=False)
    tokens = torch.stack([data.validation_set()[i].tokens for i in range(7)])
    with torch.no_grad():
        logits = module.model.eval()(tokens)
    bits = F.cross_entropy(logits.transpose(1, 2), tokens) / math.log(2)
    expected = {
        "val/loss": bits,
        "val/bits_per_byte": bits,
        "val/accuracy": (logits.argmax(-1) == tokens).float().mean(),
        "val/compression_ratio": 4.0,
        "val/codes_per_byte": 0.25,
    }
    assert set(logged) == set(expected)
    for name, value in expected.items():
        assert logged[name] == pytest.approx(float(value), abs=1e-5), name


def test_padding_counts_for_nothing():
    module = silent(AutoencoderModule(model=zoo.perturb(autoencoder())))
    with torch.no_grad():
        module.model.decoder.head.bias[0] += 100  # every token comes back as 0, as padding would
    batch = ragged(50, 20)
    batch["tokens"][0, :10] = 0
    rows = [batch["tokens"][0], batch["tokens"][1, :20]]
    with torch.no_grad():
        nats = [F.cross_entropy(module.model(row[None])[0], row, reduction="sum") for row in rows]
        right = [(module.model(row[None]).argmax(-1)[0] == row).sum() for row in rows]
        loss = module.training_step(batch, 0)
    assert float(loss) == pytest.approx(float(sum(nats)) / 70, abs=1e-5)
    assert float(module.logged["train/accuracy"]) == pytest.approx(float(sum(right)) / 70)
    assert float(module.logged["train/bits_per_byte"]) == pytest.approx(float(loss) / math.log(2))
    module.validation_step(batch, 0)
    assert float(module.val_metrics["bits_per_byte"].compute()) == pytest.approx(float(loss) / math.log(2), abs=1e-5)
    assert float(module.val_metrics["accuracy"].compute()) == pytest.approx(float(sum(right)) / 70)
    # codes of a short chunk: one of four tokens, rounded up
    assert float(module.val_metrics["codes_per_byte"].compute()) == pytest.approx((13 + 5) / 70)


def test_training_lowers_the_loss_and_the_threshold_moves(tmp_path):
    module = AutoencoderModule(model=autoencoder(zoo.leaves(), vocabulary=16), learning_rate=1e-2, warmup_steps=1)
    (controller,) = module.model.body.controllers().values()
    before = float(controller.log_threshold)
    data = CopyDataModule(symbols=16, length=32, batch_size=8, validation_samples=8)
    run = trainer(tmp_path, max_steps=150)
    run.fit(module, data)
    (logged,) = run.validate(module, data, verbose=False)
    assert logged["val/bits_per_byte"] < 3.3  # where chance is 4
    assert float(controller.log_threshold) != before
    codes = run.predict(module, data)
    assert all(isinstance(batch, wc.Codes) for batch in codes)


def test_activation_checkpointing_reaches_all_blocks_or_says_that_there_are_none(tmp_path):
    data = CopyDataModule(symbols=16, length=32, batch_size=2, validation_samples=2)
    module = AutoencoderModule(model=autoencoder(), warmup_steps=0, activation_checkpointing=True)
    trainer(tmp_path).fit(module, data)
    able = [m for m in module.modules() if isinstance(m, (wc.TransformerEncoder, wc.ReduceNetwork))]
    assert len(able) == 3 and all(m.activation_checkpointing for m in able)
    plain = autoencoder()
    plain.body.chunk_networks[0].encoder = nn.GELU()
    plain.body.reduce_network = wc.ReduceAdapter(network=nn.GELU(), causal=False)
    plain.decoder.network = nn.GELU()
    module = AutoencoderModule(model=plain, activation_checkpointing=True)
    with pytest.raises(
        ValueError, match="activation_checkpointing=True, but no part of the model can; allowed: with a"
    ):
        trainer(tmp_path).fit(module, data)


def test_what_a_compressor_owes_is_part_of_what_is_trained_on():
    pruner = wc.HardConcrete(dim=zoo.DIM, target_ratio=zoo.RATIO)
    module = silent(AutoencoderModule(model=autoencoder(zoo.wavelet_compressor(pruner)))).eval()
    batch = ragged(48, 48)
    with torch.no_grad():
        loss = module.training_step(batch, 0)
        owed = sum(module.model.encode(batch["tokens"]).losses.values())
    assert owed > 0
    lost = float(module.logged["train/bits_per_byte"]) * math.log(2)
    assert float(loss) == pytest.approx(lost + float(owed), abs=1e-5)


def test_models_that_do_not_fit_are_refused_before_any_work(tmp_path):
    data = CopyDataModule(symbols=32, length=16)
    with pytest.raises(ValueError, match="the data has tokens up to 31, the model's embedding allows 0 to 15"):
        trainer(tmp_path).fit(AutoencoderModule(model=autoencoder(vocabulary=16)), data)
    model = autoencoder()
    model.decoder.head = nn.Linear(zoo.DIM, 8)
    with pytest.raises(ValueError, match="the data has tokens up to 31, the model's head predicts 0 to 7"):
        AutoencoderModule(model=model).check_data(data)
    model.decoder.head = nn.Linear(7, 256)
    with pytest.raises(ValueError, match="the parts of the model do not fit together: .*16.*7"):
        AutoencoderModule(model=model).check_data(data)
    with pytest.raises(ValueError, match="learning_rate=0 is out of range"):
        AutoencoderModule(model=model, learning_rate=0)


def language_model_module(reconstruction=None, **settings):
    torch.manual_seed(0)
    model = zoo.perturb(zoo.language_model(**settings))
    return silent(LanguageModelModule(model=model, hidden_share=0, reconstruction=reconstruction)).eval()


@pytest.mark.parametrize("settings", [{}, {"chunk": 8, "second": 8}], ids=["one-stage", "two-stages"])
def test_codes_of_complete_chunks_are_asked_for_their_tokens(settings):
    module = language_model_module(zoo.perturb(decoder()), **settings)
    batch = ragged(61, 40, 15)
    body, lengths = module.model.body, batch["lengths"]
    with torch.no_grad():
        embedded = wc.Codes.from_tokens(module.model.embedding(batch["tokens"]), lengths)
        stages = body.stages(embedded)
        logits = module.reconstruction(body.expand(stages[-1], [embedded, *stages[:-1]]))
        nats = [
            F.cross_entropy(logits[row, :n], batch["tokens"][row, :n], reduction="sum") for row, n in ((0, 48), (1, 32))
        ]
        bits = float(sum(nats)) / 80 / math.log(2)
        loss = module.training_step(batch, 0)
    module.validation_step(batch, 0)
    assert float(module.logged["train/reconstruction_bits"]) == pytest.approx(bits, abs=1e-5)
    assert float(module.val_metrics["reconstruction_bits"].compute()) == pytest.approx(bits, abs=1e-5)
    assert float(loss) == pytest.approx(
        float(module.logged["train/bits_per_byte"] + 0.1 * module.logged["train/reconstruction_bits"]) * math.log(2),
        abs=1e-5,
    )


@pytest.mark.parametrize("settings", [{}, {"chunk": 8, "second": 8}], ids=["one-stage", "two-stages"])
def test_reconstruction_changes_nothing_else_and_costs_nothing_when_it_is_off(settings, monkeypatch):
    batch = ragged(61, 40, 15)
    on, off = language_model_module(decoder(), **settings), language_model_module(**settings)
    on.validation_step(batch, 0)
    monkeypatch.setattr(wc.ChunkReduce, "expand", None)
    off.validation_step(batch, 0)
    assert set(on.logged) - set(off.logged) == {"val/reconstruction_bits"}
    for name in off.logged:
        name = name.removeprefix("val/")
        assert torch.equal(on.val_metrics[name].compute(), off.val_metrics[name].compute()), name
    assert {name.split(".")[0] for name in off.state_dict()} == {"model"}


def test_what_is_asked_back_teaches_decoder_and_body():
    module = language_model_module(decoder())
    module.hidden_share = 1.0  # the predictions ask nothing of the codes
    loss = module.training_step(ragged(61, 61), 0)
    loss.backward()
    for part in (module.reconstruction, module.model.body.chunk_networks):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name
    short = module.training_step(ragged(15, 3), 0)
    assert torch.isfinite(short)


def test_a_weight_that_asks_nothing_is_refused():
    with pytest.raises(ValueError, match="reconstruction_weight=0 is out of range; allowed: above 0"):
        LanguageModelModule(model=zoo.language_model(), reconstruction_weight=0)
