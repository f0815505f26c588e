"""Two processes on one machine give what one gives; a rank that dies ends the job, and the run goes on from its last
checkpoint."""

import csv
import os
import re
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import processes
import pytest
import torch
import torch.distributed as dist
import yaml
import zoo
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp import cli
from wavecomp.training import (
    ChunkParallel,
    ChunkParallelModule,
    ChunkParallelStrategy,
    FullyShardedModule,
    LanguageModelModule,
    SampleDataModule,
)
from wavecomp.training.data.samples import Generated, Sample

TINY = zoo.TINY
RANKS = 2
PATIENCE = 120.0  # seconds, far beyond what anything here takes


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Ranks:
    """Processes of one gloo group, which run functions of this file on demand."""

    def __init__(self):
        port = free_port()
        self.pipes, self.processes = [], []
        for rank in range(RANKS):
            mine, theirs = processes.context.Pipe()
            self.pipes.append(mine)
            self.processes.append(processes.context.Process(target=serve, args=(rank, port, theirs), daemon=True))
            self.processes[-1].start()

    def __call__(self, function, *args, **settings):
        """What the function returns on each rank; an error of a rank is raised here."""
        for pipe in self.pipes:
            pipe.send((function, args, settings))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(PATIENCE), f"rank {rank} does not answer"
            answers.append(pipe.recv())
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def stop(self):
        for process in self.processes:
            process.kill()
            process.join(PATIENCE)


def serve(rank, port, pipe):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    timeout = timedelta(seconds=PATIENCE / 2)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS, timeout=timeout)
    while True:
        function, args, settings = pipe.recv()
        try:
            pipe.send(function(*args, **settings))
        except Exception as error:
            pipe.send(type(error)(str(error)))


@pytest.fixture(scope="module")
def ranks():
    running = Ranks()
    yield running
    running.stop()


def sparse():
    """An adaptive compressor that leaves about half of its slots empty."""
    compressor = zoo.leaves()
    compressor.controller.set_threshold(1.05)
    return compressor


def stage(chunk_length, compressor=None):
    return wc.ChunkNetwork(
        chunk_length=chunk_length,
        encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        compressor=compressor or zoo.wavelet_compressor(),
    )


BODIES = {
    "one stage": lambda: dict(chunk_networks=[stage(16)]),
    "two stages": lambda: dict(chunk_networks=[stage(16), stage(8)], overlap=8),
    "the last of two": lambda: dict(chunk_networks=[stage(16), stage(8)], keep="last"),
    "adaptive": lambda: dict(chunk_networks=[stage(16, zoo.leaves())]),
    "sparse": lambda: dict(chunk_networks=[stage(16, sparse())]),
    "gates": lambda: dict(chunk_networks=[stage(16, zoo.wavelet_compressor(wc.HardConcrete(dim=16, target_ratio=4)))]),
}


def language_model(name):
    torch.manual_seed(0)
    reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=8)
    model = wc.ChunkReduceLM(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(reduce_network=reduce_network, **BODIES[name]()),
        decoder=wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, period=16),
        head=nn.Linear(zoo.DIM, 256),
    )
    return zoo.perturb(model).double().eval()


def rows(length, lengths=None):
    """Tokens, lengths, and which tokens count."""
    tokens = torch.randint(256, (2, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([length, length] if lengths is None else lengths)
    valid = torch.arange(length) < lengths[:, None]
    return tokens, None if bool(valid.all()) else lengths, valid


def arrays(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def fields(codes):
    return arrays({name: getattr(codes, name) for name in ("values", *wc.Codes.per_slot, "tokens")})


def gradients(model):
    return arrays({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})


def whole(name, length, lengths):
    """Loss, gradients and codes of one process."""
    model = language_model(name)
    tokens, lengths, valid = rows(length, lengths)
    codes = model.context(tokens, lengths)
    nats = F.cross_entropy(model(tokens, lengths, codes=codes).transpose(1, 2), tokens, reduction="none")
    loss = nats[valid].sum() / valid.sum() + sum(codes.losses.values())
    loss.backward()
    return loss.item(), gradients(model), fields(codes)


def shared(name, length, lengths):
    """The same of one rank: its part of the loss, of the gradients, and all codes; and its share."""
    model = language_model(name)
    tokens, lengths, valid = rows(length, lengths)
    parallel = ChunkParallel(model)
    share = parallel.share(length)
    codes = parallel.context(tokens, lengths)
    logits = parallel.logits(tokens, lengths, codes=codes)
    own = slice(share.first, share.last)
    nats = F.cross_entropy(logits.transpose(1, 2), tokens[:, own], reduction="none")
    loss = nats[valid[:, own]].sum() / valid.sum() + sum(codes.losses.values())
    loss.backward()
    return loss.item(), gradients(model), fields(codes), share


SEQUENCES = [(200, None), (129, None), (33, None), (17, None), (150, [150, 70]), (97, [20, 97])]


@pytest.mark.parametrize("length, lengths", SEQUENCES)
@pytest.mark.parametrize("name", ["one stage", "two stages", "the last of two", "adaptive", "sparse"])
def test_two_ranks_give_the_loss_gradients_and_codes_of_one_process(name, length, lengths, ranks):
    loss, gradient, codes = whole(name, length, lengths)
    parts = ranks(shared, name, length, lengths)
    assert sum(part[0] for part in parts) == pytest.approx(loss, abs=1e-9)
    assert len(gradient) > 30 and all(part[1].keys() == gradient.keys() for part in parts)
    for parameter, expected in gradient.items():
        np.testing.assert_allclose(sum(part[1][parameter] for part in parts), expected, atol=1e-7, err_msg=parameter)
    for part in parts:
        for field, expected in codes.items():
            np.testing.assert_allclose(part[2][field], expected, atol=1e-9, err_msg=field)


def owed():
    """What the compressor of this rank owes."""
    module = ChunkParallelModule(model=language_model("gates"))
    module.parallel = ChunkParallel(module.model)
    tokens, lengths, _ = rows(113)
    codes, _ = module._context({"tokens": tokens, "lengths": lengths, "answers": None})
    return codes.losses["gates"].item()


def test_what_compressors_owe_is_a_mean_over_tokens(ranks):
    model, (tokens, *_) = language_model("gates"), rows(113)
    halves = [model.encode(part).losses["gates"].item() for part in (tokens[:, :64], tokens[:, 64:112])]
    assert halves[0] != pytest.approx(halves[1])
    assert np.mean(ranks(owed)) == pytest.approx((64 * halves[0] + 48 * halves[1]) / 112)


@pytest.mark.parametrize("name, middle", [("one stage", 112), ("two stages", 128)])
def test_shares_are_whole_chunks_of_the_last_stage(name, middle, ranks):
    for length, edge, encoded in ((210, middle, 208), (33, 32 if name == "two stages" else 16, 32), (16, 0, 0)):
        first, second = (part[3] for part in ranks(shared, name, length, None))
        assert first == (0, edge, edge) and second == (edge, encoded, length)


def counted(name, length):
    """Bytes of this rank that go through collectives, forward and backward, by kind of tensor; and which slots hold
    codes."""
    sent = {"values": 0, "metadata": 0, "gradients": 0}
    gather, scatter = dist.all_gather_into_tensor, dist.reduce_scatter_tensor

    def counting_gather(out, x, group=None):
        sent["values" if x.shape[-1] == zoo.DIM else "metadata"] += x.nbytes
        return gather(out, x, group=group)

    def counting_scatter(out, x, group=None):
        sent["gradients"] += out.nbytes
        return scatter(out, x, group=group)

    dist.all_gather_into_tensor, dist.reduce_scatter_tensor = counting_gather, counting_scatter
    try:
        _, _, codes, _ = shared(name, length, None)
    finally:
        dist.all_gather_into_tensor, dist.reduce_scatter_tensor = gather, scatter
    return sent, codes["mask"]


@pytest.mark.parametrize("name, ratio", [("one stage", 4), ("the last of two", 8)])
def test_only_codes_travel(name, ratio, ranks):
    parts = ranks(counted, name, 257)
    uncompressed = 2 * 256 * zoo.DIM * 8
    for kind in ("values", "gradients"):
        assert sum(sent[kind] for sent, _ in parts) == uncompressed / ratio, kind
    # 5 integers, 3 floats, one of them in double precision, and a boolean say where a code lies
    assert sum(sent["metadata"] for sent, _ in parts) == parts[0][1].size * (5 * 8 + 8 + 2 * 4 + 1)


def test_no_values_travel_but_those_of_codes(ranks):
    parts = ranks(counted, "sparse", 257)
    mask = parts[0][1]
    most = mask.reshape(2, RANKS, -1).sum(-1).max()  # in a row of a rank
    assert most < 0.8 * mask.shape[1] / RANKS
    for kind in ("values", "gradients"):
        assert sum(sent[kind] for sent, _ in parts) == RANKS * 2 * most * zoo.DIM * 8, kind


def bad_model(part):
    model = language_model("one stage")
    setattr(model, part, nn.Identity())
    ChunkParallel(model)


@pytest.mark.parametrize(
    "part, message",
    [("body", "model.body is a Identity; allowed: ChunkReduce"), ("decoder", "model.decoder Identity has no reach")],
)
def test_a_model_that_cannot_be_split_is_named(part, message, ranks):
    with pytest.raises(ValueError, match=message):
        ranks(bad_model, part)


class Noise(SampleDataModule):
    """Random rows, of which the second half is asked for, and is said by the first."""

    def train_sample(self, index):
        half = torch.randint(256, (40,), generator=torch.Generator().manual_seed(index))
        return Sample(half.repeat(2), answers=torch.arange(80) >= 40)

    def validation_set(self):
        return Generated(lambda index: self.train_sample(1000 + index), 8)


class SharedNoise(Noise):
    """The same rows for all ranks that share them."""

    def train_dataloader(self):
        reader = self.trainer.distributed_sampler_kwargs
        return self._loader(self.train_stream(reader["rank"], reader["num_replicas"]))


class ApartNoise(Noise):
    """Other rows for each rank, whatever the strategy says."""

    def train_dataloader(self):
        return self._loader(self.train_stream(dist.get_rank(), RANKS))


class Watch(L.Callback):
    """What came of each step, and the first token of each row that it learned from."""

    def __init__(self):
        self.figures, self.tokens = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.tokens.append(batch["tokens"][:, 0].tolist())
        logged = trainer.callback_metrics.items()
        self.figures.append({name: float(value) for name, value in logged if name.startswith("train/")})


class Training(NamedTuple):
    figures: list
    tokens: list
    validated: dict
    state: dict


KINDS = {
    "one process": lambda: (LanguageModelModule, "auto", Noise(batch_size=4)),
    "ddp": lambda: (LanguageModelModule, "ddp", Noise(batch_size=2)),
    "shared sequences": lambda: (ChunkParallelModule, ChunkParallelStrategy(), SharedNoise(batch_size=4)),
    "sharded parameters": lambda: (
        FullyShardedModule,
        ModelParallelStrategy(RANKS, 1, save_distributed_checkpoint=False),
        Noise(batch_size=2),
    ),
    "shared sequences, ddp": lambda: (ChunkParallelModule, "ddp", SharedNoise(batch_size=4)),
    "sharded parameters, ddp": lambda: (FullyShardedModule, "ddp", Noise(batch_size=2)),
    "shared sequences, apart": lambda: (ChunkParallelModule, ChunkParallelStrategy(), ApartNoise(batch_size=4)),
}


def trained(kind, folder, *, steps=3, hidden_share=0.0, resume=False):
    """A short training, on this rank or in one process."""
    model = language_model("adaptive").float().train()
    model.body.chunk_networks[0].compressor.controller.target_ratio = 3.0
    make, strategy, data = KINDS[kind]()
    devices = 1 if kind == "one process" else RANKS
    if devices > 1:
        os.environ.update(LOCAL_RANK=str(dist.get_rank()), WORLD_SIZE=str(RANKS))
    watch = Watch()
    run = L.Trainer(
        max_steps=steps, strategy=strategy, devices=devices, accelerator="cpu", callbacks=[watch], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
        default_root_dir=folder, num_sanity_val_steps=0, log_every_n_steps=1, val_check_interval=steps,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    # a rate that does not depend on how many steps there are
    module = make(model=model, warmup_steps=100, learning_rate=0.1, hidden_share=hidden_share)
    checkpoint = Path(folder) / f"{kind}.ckpt"
    run.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=True)
    run.save_checkpoint(checkpoint, weights_only=False)
    validated = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("val/")}
    state = arrays(torch.load(checkpoint, weights_only=True)["state_dict"])
    return Training(watch.figures, watch.tokens, validated, state)


def agree(mine, theirs, tolerance=1e-4):
    assert mine.keys() == theirs.keys() and mine
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], atol=tolerance, rtol=tolerance, err_msg=name)


def test_training_on_shared_sequences_is_that_of_one_process(ranks, tmp_path):
    # the answers are in the second half: one rank has none to learn from
    alone = trained("one process", tmp_path, hidden_share=0.3)
    assert any("controller.last" in name for name in alone.state)
    for part in ranks(trained, "shared sequences", tmp_path, hidden_share=0.3):
        assert part.tokens == alone.tokens
        for mine, theirs in zip(part.figures, alone.figures):
            agree(mine, theirs)
        agree(part.validated, alone.validated)
        agree(part.state, alone.state)


@pytest.mark.parametrize("kind", ["ddp", "sharded parameters"])
def test_training_on_half_of_the_rows_each_is_that_of_one_process(kind, ranks, tmp_path):
    alone = trained("one process", tmp_path)
    parts = ranks(trained, kind, tmp_path)
    for step, tokens in enumerate(alone.tokens):
        assert [part.tokens[step] for part in parts] == [tokens[::2], tokens[1::2]]
        for figure in ("train/bits_per_byte", "train/answer_bits"):
            mean = np.mean([part.figures[step][figure] for part in parts])
            assert mean == pytest.approx(alone.figures[step][figure], abs=1e-4), figure
    for part in parts:
        agree(part.validated, alone.validated)
        agree(part.state, alone.state)


@pytest.mark.parametrize("kind", ["ddp", "shared sequences", "sharded parameters"])
def test_ranks_resume_from_one_checkpoint(kind, ranks, tmp_path):
    (tmp_path / "halves").mkdir()
    whole_run = ranks(trained, kind, tmp_path, steps=4)
    ranks(trained, kind, tmp_path / "halves", steps=2)
    resumed = ranks(trained, kind, tmp_path / "halves", steps=4, resume=True)
    for whole_part, part in zip(whole_run, resumed):
        assert part.tokens == whole_part.tokens[2:] and len(part.tokens) == 2
        agree(part.state, whole_part.state)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("shared sequences, ddp", "trainer.strategy is DDPStrategy; ChunkParallelModule allows ChunkParallelStrategy"),
        ("sharded parameters, ddp", "trainer.strategy is DDPStrategy; FullyShardedModule allows ModelParallelStrategy"),
        ("shared sequences, apart", "ranks were given different batches, .* trainer.distributed_sampler_kwargs"),
    ],
)
def test_what_does_not_go_together_is_named(kind, message, ranks, tmp_path):
    with pytest.raises(ValueError, match=message):
        ranks(trained, kind, tmp_path)


def test_reconstruction_is_refused():
    with pytest.raises(ValueError, match="reconstruction does not go with chunk parallelism; allowed: None"):
        ChunkParallelModule(model=language_model("one stage"), reconstruction=nn.Identity())


def fit(folder, recipe, *more, interrupt=None):
    """``wavecomp fit`` on this rank; where asked, Ctrl-C comes to rank 1 alone at that step. Returns the exit code."""
    os.environ.update(LOCAL_RANK=str(dist.get_rank()), WORLD_SIZE=str(RANKS))
    step = LanguageModelModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == interrupt and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    LanguageModelModule.training_step = interrupted
    handler = signal.getsignal(signal.SIGINT)
    try:
        cli.main(["fit", "--config", str(TINY), "--config", recipe, "--trainer.default_root_dir", str(folder), *more])
    except SystemExit as stop:
        return stop.code
    finally:
        LanguageModelModule.training_step = step
        signal.signal(signal.SIGINT, handler)
    return 0


def logged_steps(folder):
    with open(folder / "metrics.csv") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/bits_per_byte"]]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ddp", "chunk-parallel", "fsdp"])
def test_recipes_stop_at_one_step_and_resume(recipe, ranks, tmp_path):
    assert ranks(fit, tmp_path, recipe, interrupt=4) == [130, 130]
    assert ranks(fit, tmp_path, recipe, "--ckpt_path", "last") == [0, 0]
    first, second = sorted(tmp_path.iterdir())
    assert [logged_steps(first), logged_steps(second)] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    names = {path.name for path in second.iterdir() if "tfevents" not in path.name} - {"hparams.yaml"}  # TensorBoard's
    assert names == {"config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"}
    assert yaml.safe_load((second / "config.yaml").read_text())["trainer"]["devices"] == RANKS
    assert isinstance(wc.load(second), wc.ChunkReduceLM)


def start_ranks(folder, recipe, *more):
    """``wavecomp fit`` without end on two ranks, as a cluster starts them."""
    port = free_port()
    command = ["fit", "--config", TINY, "--config", recipe, *more]
    settings = ["--trainer.default_root_dir", folder, "--trainer.max_steps", "1000000"]
    for rank in range(RANKS):
        place = {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        yield processes.start_command(*command, *settings, said=folder / f"rank{rank}.txt", **place)


def wait_for(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe, lost, how, error",
    [
        ("ddp", 0, signal.SIGKILL, "Connection (closed|reset) by peer"),
        ("ddp", 1, signal.SIGSTOP, "[Tt]imed out|timeout caused"),
        ("chunk-parallel", 1, signal.SIGKILL, "Connection (closed|reset) by peer"),
        ("fsdp", 1, signal.SIGKILL, "Connection (closed|reset) by peer"),
    ],
    ids=["dies", "hangs", "dies-chunk-parallel", "dies-fsdp"],
)
def test_a_lost_rank_ends_the_job_and_training_resumes(recipe, lost, how, error, ranks, tmp_path):
    started = list(start_ranks(tmp_path, recipe, "--trainer.strategy.init_args.timeout", "0:00:10"))
    checkpoint = tmp_path / "version_0" / "last.ckpt"
    try:
        wait_for(lambda: checkpoint.exists() or not all(process.is_alive() for process in started))
        os.kill(started[lost].pid, how)
        started[1 - lost].join(30)
        assert started[1 - lost].exitcode not in (None, 0)
    finally:
        for process in started:
            process.kill()
            process.join(PATIENCE)
    assert re.search(error, (tmp_path / f"rank{1 - lost}.txt").read_text())
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert ranks(fit, tmp_path, recipe, "--ckpt_path", "last", "--trainer.max_steps", str(step + 2)) == [0, 0]
    assert logged_steps(tmp_path / "version_1") == [step, step + 1]
