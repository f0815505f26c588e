"""A run that was stopped goes on as if nothing had been, and its checkpoints are whole."""

import os
import signal
import threading

import lightning as L
import pytest
import torch
import zoo
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

import wavecomp as wc
from wavecomp.training import CopyDataModule, LanguageModelModule, LastCheckpoint, SafeStop
from wavecomp.training.checkpoints import WholeFiles


class Noting(LanguageModelModule):
    """Notes the ratio of each step, and asks for an end at some steps."""

    def __init__(self, ends=(), **settings):
        super().__init__(**settings)
        self.ends = set(ends)
        self.ratios = []

    def training_step(self, batch, batch_idx):
        if self.global_step in self.ends:
            self.ends.remove(self.global_step)
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)

    def log_step(self, codes, figures):
        self.ratios.append(float(codes.ratio))
        super().log_step(codes, figures)


def trainer(folder, *callbacks, **settings):
    settings = {"max_steps": 8, "limit_val_batches": 0, "enable_checkpointing": bool(callbacks)} | settings
    return L.Trainer(
        default_root_dir=folder, logger=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", num_sanity_val_steps=0, callbacks=list(callbacks), **settings,
    )  # fmt: skip


def data():
    return CopyDataModule(length=24, batch_size=2, validation_samples=4)


@pytest.mark.parametrize(
    "make", [lambda: wc.ElasticRatio(least=4, most=16), lambda: wc.HardConcrete(dim=zoo.DIM, target_ratio=4)]
)
def test_what_is_drawn_in_training_goes_on_where_it_was(make, tmp_path):
    def module():
        torch.manual_seed(0)  # as the command line does at every start
        return Noting(model=zoo.language_model(zoo.wavelet_compressor(make())), warmup_steps=1)

    whole = module()
    trainer(tmp_path).fit(whole, data())
    first = module()
    ran = trainer(tmp_path, max_steps=4)
    ran.fit(first, data())
    ran.save_checkpoint(tmp_path / "half.ckpt")
    second = module()
    trainer(tmp_path).fit(second, data(), ckpt_path=tmp_path / "half.ckpt")
    assert first.ratios + second.ratios == whole.ratios and len(set(whole.ratios)) > 2
    # a new run of a model that was loaded draws as new runs do
    loaded = Noting.load_from_checkpoint(
        tmp_path / "half.ckpt", model=zoo.language_model(zoo.wavelet_compressor(make()))
    )
    torch.manual_seed(7)
    trainer(tmp_path, max_steps=1).fit(loaded, data())
    assert loaded._random is None


def test_no_checkpoint_holds_half_of_an_accumulated_gradient(tmp_path):
    found = []

    class Last(LastCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            super()._save_checkpoint(trainer, filepath)
            found.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)

        def save_now(self, trainer):
            found.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)
            return super().save_now(trainer)

    settings = {"accumulate_grad_batches": 2, "val_check_interval": 3, "check_val_every_n_epoch": None}
    ran = trainer(tmp_path, Last(tmp_path), max_steps=7, limit_val_batches=1, **settings)
    ran.fit(LanguageModelModule(model=zoo.language_model(), warmup_steps=1), data())
    assert found == [4, 6, 10, 12]  # validation was after 3, 6, 9 and 12


def test_a_checkpoint_is_replaced_when_the_next_one_is_whole(tmp_path, monkeypatch):
    files = WholeFiles()
    files.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    with monkeypatch.context() as patch:

        def stopped(self, checkpoint, path, storage_options=None):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        patch.setattr(TorchCheckpointIO, "save_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            files.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 1}
    files.save_checkpoint({"step": 3}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 3}


def test_a_stop_serves_one_run_after_another(tmp_path):
    last = LastCheckpoint(tmp_path)
    stop = SafeStop(last)
    handler = signal.getsignal(signal.SIGINT)
    module = Noting(model=zoo.language_model(), warmup_steps=1, ends=[2])
    with pytest.raises(SystemExit):
        trainer(tmp_path, last, stop).fit(module, data())
    assert len(module.ratios) == 3
    signal.signal(signal.SIGINT, handler)
    trainer(tmp_path, last, stop).fit(module, data())
    assert len(module.ratios) == 3 + 8
    assert signal.getsignal(signal.SIGINT) == handler


def test_training_in_a_thread_needs_no_signals(tmp_path):
    last = LastCheckpoint(tmp_path)
    module = Noting(model=zoo.language_model(), warmup_steps=1)
    ran = trainer(tmp_path, last, SafeStop(last), max_steps=2)
    thread = threading.Thread(target=ran.fit, args=(module, data()))
    thread.start()
    thread.join()
    assert len(module.ratios) == 2


def test_the_first_try_leaves_no_trace(tmp_path):
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.dropout = nn.Dropout()

        def forward(self, x):
            if self.training:
                self.calls += 1
            return self.dropout(x)

    model = zoo.language_model()
    model.body.chunk_networks[0].encoder = Counted()
    model.decoder.eval()
    module = LanguageModelModule(model=model)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    module.check(256)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.body.training and not model.decoder.training


def test_a_body_needs_what_the_model_says_and_no_more(tmp_path):
    class Body(nn.Module):
        causal, chunk_length = True, 8

        def __init__(self):
            super().__init__()
            self.inner = zoo.language_model(chunk=8).body

        def forward(self, codes):
            return self.inner(codes)

    model = zoo.language_model()
    model.body = Body()
    module = Noting(model=model, warmup_steps=1)
    trainer(tmp_path, max_steps=1, limit_val_batches=1, val_check_interval=1).fit(module, data())
    assert len(module.ratios) == 1
    prompt = torch.randint(256, (1, 20))
    out = model.eval().generate(prompt, max_new_tokens=3, temperature=0)
    assert torch.equal(out[:, 20:], model(out)[:, 20:].argmax(-1))
    with pytest.raises(ValueError, match="the model has LocalDecoder and Body"):
        model.generate(prompt, max_new_tokens=3, codes=model.encode(prompt))
