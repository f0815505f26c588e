"""FlexAttention equals attention under a mask; blocks computed again equal those remembered; half precision trains."""

import sys

import pytest
import torch
import zoo
from torch.nn import functional as F
from torch.nn.attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

import wavecomp as wc
from wavecomp.networks.attention import support_attention, window_attention, window_mask
from wavecomp.networks.flex import BLOCK, blocked_attention, memory_blocks, window_blocks
from wavecomp.pace import NEVER, Pace
from wavecomp.training import CopyDataModule, LanguageModelModule

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.fixture
def gradients_on_the_cpu(monkeypatch):
    """torch has them, for its own tests, behind this check."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


def timed(length, batch=2):
    """Codes in fours, every fifth slot empty, replaced after a while, of rows that end at different places."""
    end = (torch.arange(length) // 4 + 1).mul(4).repeat(batch, 1)
    until = end + 40
    for row in range(batch):
        end[row, length - 4 * row :] = NEVER
        until[row, length - 4 * row :] = NEVER
    return {"end": end, "until": until, "mask": torch.arange(length).add(1).remainder(5).ne(0).repeat(batch, 1)}


def allowed(mask):
    """``(batch or 1, queries, keys)`` of a block mask."""
    batch = mask.kv_num_blocks.shape[0]
    rows, queries, keys = (torch.arange(n) for n in (batch, *mask.seq_lengths))
    return mask.mask_mod(rows[:, None, None], torch.tensor(0), queries[:, None], keys).expand(batch, -1, -1)


def unfolded(mask, length):
    """``(batch or 1, length, length)`` of a mask in blocks and the ones before them."""
    batch, blocks, block, keys = mask.shape
    dense = torch.zeros(batch, blocks, block, (blocks + 1) * block, dtype=torch.bool)
    for index in range(blocks):
        first = index * block if blocks > 1 else block
        dense[:, index, :, first : first + keys] = mask[:, index]
    return dense.flatten(1, 2)[:, :length, block : block + length]


def looked_at(mask):
    """Blocks that are looked at, and those whose rule is not asked: ``(batch or 1, query blocks, key blocks)``."""
    columns = -(-mask.seq_lengths[1] // BLOCK)
    tables = (mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices)
    partial, full = (flex_attention._ordered_to_dense(*table, columns)[:, 0].bool() for table in tables)
    assert not (partial & full).any()
    return partial | full, full


def in_blocks(dense):
    """Whether some of a block is allowed, and whether all of it is."""
    padded = F.pad(dense, (0, -dense.shape[2] % BLOCK, 0, -dense.shape[1] % BLOCK))
    blocks = padded.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3).flatten(-2)
    return blocks.any(-1), blocks.all(-1)


@pytest.mark.parametrize("length, window", [(1, 4), (13, 4), (300, 64), (300, None), (513, 200), (700, 128)])
@pytest.mark.parametrize("codes", [False, True])
def test_a_block_mask_of_a_window_allows_what_the_mask_does_and_looks_nowhere_else(length, window, codes):
    settings = timed(length) if codes else {}
    truth = unfolded(window_mask(length, window=window, device=CPU, **settings), length)
    mask = window_blocks(length, window=window, device=CPU, **settings)
    assert torch.equal(allowed(mask), truth)
    some, full = in_blocks(truth)
    looked, unasked = looked_at(mask)
    assert torch.equal(looked, some) and not (unasked & ~full).any()
    if window is None and not codes:
        assert torch.equal(unasked, full) and full.any()


def memory_codes(slots, batch=2):
    codes = wc.Codes.from_tokens(torch.randn(batch, slots, zoo.DIM, dtype=torch.float64))
    return codes.replace(**timed(slots, batch), position=2.0 * codes.position, pace=(Pace(4, 4),))


@pytest.mark.parametrize("length, slots, start", [(30, 20, 0), (300, 150, 7), (400, 400, 0), (5, 0, 0)])
def test_a_block_mask_of_codes_allows_what_is_visible_and_the_sink(length, slots, start):
    codes, place = memory_codes(slots), start + torch.arange(length)
    mask = memory_blocks(place, end=codes.end, until=codes.until, mask=codes.mask)
    truth = F.pad(codes.visible(place), (1, 0), value=True)
    assert torch.equal(allowed(mask), truth)
    some, full = in_blocks(truth)
    looked, unasked = looked_at(mask)
    assert not (some & ~looked).any() and not (unasked & ~full).any()
    assert looked.sum() <= some.sum() + 2 * len(looked)  # the least and the greatest of a block tell nearly all


def test_codes_that_all_see_are_not_asked_about():
    codes = wc.Codes.from_tokens(torch.randn(1, 256, 4))
    mask = memory_blocks(torch.arange(256, 640), end=codes.end, until=codes.until, mask=codes.mask)
    looked, unasked = looked_at(mask)
    assert looked.sum() == 9 and unasked[0, :, :2].all()


class Largest(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.size = max(self.size, x.numel())
        return out


def test_no_block_mask_is_made_of_a_mask_of_all_pairs():
    codes, length = wc.Codes.from_tokens(torch.zeros(1, 8192, 1)), 65536
    with Largest() as largest:
        memory_blocks(torch.arange(length), end=codes.end, until=codes.until, mask=codes.mask)
        window_blocks(length, window=64, device=CPU)
        window_blocks(8192, window=512, end=codes.end, until=codes.until, mask=codes.mask, device=CPU)
    assert largest.size <= 4 * length * length / BLOCK**2


@pytest.mark.parametrize("length, window, codes", [(1, 4, False), (13, 4, False), (37, 8, True), (150, None, True)])
@pytest.mark.parametrize("biased", [False, True])
def test_flex_attention_in_a_window_equals_that_under_a_mask(length, window, codes, biased, gradients_on_the_cpu):
    q, k, v = (torch.randn(2, 2, length, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    settings = timed(length) if codes else {}
    scale = torch.tensor([1.0, -0.7], dtype=torch.float64, requires_grad=True) if biased else None
    bias = {"log_support": torch.rand(2, length, dtype=torch.float64), "scale": scale}
    dense, blocks = (make(length, window=window, device=CPU, **settings) for make in (window_mask, window_blocks))
    expected = support_attention(window_attention, q, k, v, dense, **bias)
    out = support_attention(blocked_attention, q, k, v, blocks, **bias)
    torch.testing.assert_close(out, expected)
    same_gradients(out, expected, [q, k, v, *([scale] if biased else [])])


def same_gradients(out, expected, wanted):
    upstream = torch.randn_like(out)
    for one, other in zip(*(torch.autograd.grad(x, wanted, upstream) for x in (out, expected))):
        torch.testing.assert_close(one, other)


def decoder(backend, **settings):
    torch.manual_seed(0)
    network = wc.LocalDecoder(
        dim=zoo.DIM, heads=2, layers=2, window=8, memory_layers=[1], backend=backend, period=16, **settings
    )
    return zoo.perturb(network).double()


@pytest.mark.parametrize("slots, start, support_bias", [(0, 0, False), (200, 31, True)])
def test_a_decoder_reads_codes_and_its_sink_alike_with_both_backends(slots, start, support_bias, gradients_on_the_cpu):
    codes = memory_codes(slots)
    codes = codes.replace(values=codes.values.requires_grad_(), support=1.0 + codes.position)
    tokens = torch.randn(2, 150, zoo.DIM, dtype=torch.float64, requires_grad=True)
    networks = [decoder(backend, support_bias=support_bias, count_scale=support_bias) for backend in ("flex", "sdpa")]
    flex, sdpa = (network(tokens, codes, start=start) for network in networks)
    torch.testing.assert_close(flex, sdpa)
    upstream, found = torch.randn_like(flex), []
    for network, out in zip(networks, (flex, sdpa)):
        wanted = [tokens, codes.values, *network.parameters()]
        found.append(torch.autograd.grad(out, wanted, upstream, allow_unused=True))
    for one, other in zip(*found):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    read = dict(zip(dict(networks[0].named_parameters()), found[0][2:]))
    assert read["blocks.1.memory_attention.sink"][1].abs().min() > 0 and (found[0][1].abs().sum() > 0) == (slots > 0)


def language_model(backend, **settings):
    """Two stages, the finer replaced by the coarser, ragged codes in the first."""
    torch.manual_seed(0)
    model = zoo.language_model(zoo.wavelet_compressor(wc.TopK(4)), chunk=16, second=8)
    model.body.reduce_network = wc.ReduceNetwork(
        dim=zoo.DIM, heads=2, layers=1, window=4, support_bias=True, backend=backend, **settings
    )
    model.decoder = wc.LocalDecoder(
        dim=zoo.DIM,
        heads=2,
        layers=2,
        window=8,
        period=16,
        support_bias=True,
        count_scale=True,
        backend=backend,
        **settings,
    )
    return zoo.perturb(model)


def both(tokens, lengths, device="cpu", dtype=torch.float64):
    """Logits and all gradients of a model with each backend."""
    upstream = torch.randn(*tokens.shape, 256, dtype=dtype, device=device)
    upstream[torch.arange(tokens.shape[1], device=device) >= lengths[:, None]] = 0
    for backend in ("flex", "sdpa"):
        model = language_model(backend).to(device, dtype)
        logits = model(tokens, lengths)
        logits.backward(upstream)
        yield logits.where(upstream != 0, 0), {name: p.grad for name, p in model.named_parameters()}


def test_ragged_rows_in_two_stages_are_the_same_with_both_backends(gradients_on_the_cpu):
    tokens, lengths = torch.randint(256, (3, 150)), torch.tensor([150, 97, 5])
    (flex, mine), (sdpa, truth) = both(tokens, lengths)
    torch.testing.assert_close(flex, sdpa)
    assert mine.keys() == truth.keys() and any(name.endswith("support_scale") for name in mine)
    for name, gradient in truth.items():
        torch.testing.assert_close(mine[name], gradient, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("length", [150, 1000])
def test_flex_attention_on_the_gpu_equals_that_under_a_mask(length, monkeypatch):
    monkeypatch.setattr(zoo, "DIM", 64)  # heads of 32: kernels want 16 at least
    tokens = torch.randint(256, (3, length), device="cuda")
    lengths = torch.tensor([length, 97, 5], device="cuda")
    (flex, mine), (sdpa, truth) = both(tokens, lengths, "cuda", torch.float32)
    torch.testing.assert_close(flex, sdpa, rtol=1e-2, atol=1e-2)
    for name, gradient in truth.items():
        assert (mine[name] - gradient).norm() <= 2e-2 * gradient.norm() + 1e-6, name


def test_what_reads_on_the_cpu_without_gradients_runs_there():
    tokens = torch.randint(256, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(language_model("flex")(tokens), language_model("sdpa")(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch, length", [(2, 0), (0, 40)])
def test_empty_batches_and_sequences_pass_through_flex_attention(batch, length):
    tokens = torch.zeros(batch, length, dtype=torch.int64)
    assert language_model("flex")(tokens).shape == (batch, length, 256)


def test_where_flex_attention_cannot_run_is_said():
    with pytest.raises(ValueError, match="backend='flex' does not run here.*backward on CPU.*Allowed: backend='sdpa'"):
        language_model("flex")(torch.randint(256, (1, 40)))


@pytest.mark.parametrize(
    "make",
    [
        lambda **backend: wc.ReduceNetwork(dim=8, heads=2, layers=1, **backend),
        lambda **backend: wc.LocalDecoder(dim=8, heads=2, layers=1, window=4, **backend),
    ],
)
def test_an_unknown_backend_is_named(make):
    with pytest.raises(ValueError, match="backend='xformers' is unknown; allowed: 'sdpa' or 'flex'"):
        make(backend="xformers")


def test_the_gpu_overlay_chooses_the_backend_and_nothing_else(capsys, monkeypatch):
    import yaml

    from wavecomp import cli

    def config(*overlays):
        monkeypatch.setattr(sys, "argv", ["wavecomp"])
        with pytest.raises(SystemExit):
            cli.main(["fit", "--config", "quickstart", *overlays, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    plain, gpu = config(), config("--config", "gpu")
    assert (gpu["trainer"].pop("accelerator"), gpu["trainer"].pop("precision")) == ("gpu", "bf16-mixed")
    model = gpu["model"]["init_args"]["model"]["init_args"]
    for network in (model["body"]["init_args"]["reduce_network"], model["decoder"]):
        assert network["init_args"]["backend"] == "flex"
        network["init_args"]["backend"] = "sdpa"
    plain["trainer"].pop("accelerator"), plain["trainer"].pop("precision")
    assert gpu == plain


def checkpointed(checkpoint):
    model = language_model("sdpa", activation_checkpointing=checkpoint)
    model.body.chunk_networks[0].encoder.activation_checkpointing = checkpoint
    return model.double()


class Remembered:
    """Bytes of what is kept for the backward pass, by where it lies."""

    def __init__(self):
        self.sizes = {}

    def __call__(self, x):
        storage = x.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return x


def test_blocks_computed_again_have_the_same_gradients_and_remember_less():
    tokens, lengths = torch.randint(256, (2, 150)), torch.tensor([150, 97])
    found, held = [], []
    for checkpoint in (False, True):
        model, seen = checkpointed(checkpoint), Remembered()
        with torch.autograd.graph.saved_tensors_hooks(seen, lambda x: x):
            logits = model(tokens, lengths)
        held.append(sum(seen.sizes.values()))
        logits.square().mean().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    for one, other in zip(*found):
        assert torch.equal(one, other)
    assert held[1] < 0.5 * held[0]


def test_blocks_are_computed_again_only_for_gradients():
    model, calls = checkpointed(True), []
    for network in (model.body.chunk_networks[0].encoder, model.body.reduce_network, model.decoder):
        for block in network.blocks:
            block.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(torch.randint(256, (1, 40)))
    assert len(calls) == 4
    model(torch.randint(256, (1, 40))).sum().backward()
    assert len(calls) == 4 + 2 * 4


def test_computed_again_under_autocast_the_gradients_are_the_same():
    tokens, found = torch.randint(256, (2, 100)), []
    for checkpoint in (False, True):
        model = checkpointed(checkpoint).float()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens).square().mean()
        loss.backward()
        found.append([p.grad for p in model.parameters()])
    for one, other in zip(*found):
        assert torch.equal(one, other)


def test_a_tiny_model_trains_in_bf16_mixed_on_the_cpu():
    import lightning as L

    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        module = LanguageModelModule(model=zoo.language_model(), learning_rate=1e-2, warmup_steps=1)
        trainer = L.Trainer(
            accelerator="cpu",
            precision=precision,
            max_steps=3,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        seen = []
        monitor = L.pytorch.callbacks.LambdaCallback(
            on_train_batch_end=lambda trainer, module, outputs, *_, seen=seen: seen.append(outputs["loss"])
        )
        trainer.callbacks.append(monitor)
        trainer.fit(module, datamodule=CopyDataModule(symbols=16, length=32, batch_size=4, validation_samples=4))
        assert all(p.dtype == torch.float32 for p in module.parameters())
        losses[precision] = torch.stack(seen)
    full, half = losses.values()
    assert torch.isfinite(half).all() and len(half) == 3
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)
    assert not torch.equal(half, full) and half[-1] < half[0]
