import math

import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.networks.attention import Memory, MemoryAttention, Reading, head_angles, window_attention, window_mask


@pytest.mark.parametrize("length, window", [(1, 4), (4, 4), (13, 4), (16, 4), (37, 8), (5, None)])
def test_window_attention_is_dense_attention_under_the_same_rule(length, window):
    q, k, v = (torch.randn(2, 3, length, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    i = torch.arange(length)
    dense = (i[None] <= i[:, None]) & (i[:, None] - i[None] < (window or length))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    out = window_attention(q, k, v, window_mask(length, window=window, device=q.device))
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    mine, truth = (torch.autograd.grad(x, (q, k, v), upstream, retain_graph=True) for x in (out, expected))
    for one, other in zip(mine, truth):
        torch.testing.assert_close(one, other)


def test_windows_of_codes_follow_end():
    end = torch.tensor([[4, 4, 8, 8, 12, 12, 16, 16]])
    mask = torch.ones(1, 8, dtype=torch.bool)
    mask[0, 3] = False
    blocks = window_mask(8, window=4, end=end, mask=mask, device=end.device)
    assert blocks.shape == (1, 2, 4, 8)
    # slot 0 sees its chunk; slot 5 sees slots 2 to 5 but the empty one; an empty slot sees at least itself
    assert blocks[0, 0, 0].nonzero().flatten().tolist() == [4, 5]
    assert blocks[0, 1, 1].nonzero().flatten().tolist() == [2, 4, 5]
    assert blocks[0, 0, 3, 7]


def test_attention_to_codes_sees_distances_at_token_resolution():
    attention = zoo.perturb(MemoryAttention(dim=zoo.DIM, heads=2)).double()
    x, values = torch.randn(1, 5, zoo.DIM).double(), torch.randn(1, 3, zoo.DIM).double()
    place, position, mask = torch.arange(5) + 40, torch.tensor([[3.5, 11.5, 19.5]]), torch.ones(1, 5, 3) > 0

    def out(move_tokens, move_codes):
        memory = Memory(values, head_angles(position + move_codes, zoo.DIM, 2), [Reading(mask)])
        return attention(x, memory, head_angles(place + move_tokens, zoo.DIM, 2))

    torch.testing.assert_close(out(7, 7), out(0, 0), rtol=0, atol=1e-5)
    assert (out(0, 1) - out(0, 0)).abs().max() > 1e-3
    hidden = attention(
        x, Memory(values, head_angles(position, zoo.DIM, 2), [Reading(~mask)]), head_angles(place, zoo.DIM, 2)
    )
    torch.testing.assert_close(hidden, hidden[:, :1].expand(-1, 5, -1))  # nothing but the sink is left


@pytest.mark.parametrize(
    "encoder",
    [
        nn.TransformerEncoder(nn.TransformerEncoderLayer(zoo.DIM, 2, 32, batch_first=True), 1),
        nn.Sequential(nn.Linear(zoo.DIM, zoo.DIM), nn.GELU()),
        None,
    ],
    ids=["TransformerEncoder", "Sequential", "None"],
)
def test_any_module_encodes_chunks(encoder):
    network = wc.ChunkNetwork(chunk_length=16, encoder=encoder, compressor=zoo.wavelet_compressor())
    codes = network(wc.Codes.from_tokens(torch.randn(2, 40, zoo.DIM), torch.tensor([40, 21])))
    assert codes.values.shape == (2, 12, zoo.DIM) and torch.isfinite(codes.values).all()


def test_an_encoder_that_takes_lengths_is_given_them():
    seen = []

    class Encoder(nn.Module):
        def forward(self, x, lengths=None):
            seen.append(lengths)
            return x

    network = wc.ChunkNetwork(chunk_length=16, encoder=Encoder(), compressor=zoo.wavelet_compressor())
    network(wc.Codes.from_tokens(torch.randn(1, 32, zoo.DIM)))
    network(wc.Codes.from_tokens(torch.randn(1, 32, zoo.DIM), torch.tensor([20])))
    assert seen[0] is None and seen[1].tolist() == [16, 4]


@pytest.mark.parametrize("how", ["compiled", "exchanged"])
def test_an_encoder_is_given_lengths_whenever_it_came_and_however_it_runs(how):
    encoder = wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1)
    tokens = wc.Codes.from_tokens(torch.randn(2, 40, zoo.DIM), torch.tensor([40, 21]))
    network = wc.ChunkNetwork(chunk_length=16, encoder=encoder, compressor=zoo.wavelet_compressor())
    expected = network(tokens).values
    network.encoder = None
    assert not torch.allclose(network(tokens).values, expected)
    network.encoder = torch.compile(encoder, backend="eager") if how == "compiled" else encoder
    torch.testing.assert_close(network(tokens).values, expected)


def test_a_text_of_nothing_has_no_logits():
    tokens = torch.zeros(2, 0, dtype=torch.int64)
    assert zoo.language_model()(tokens).shape == (2, 0, 256)
    assert zoo.language_model()(tokens, torch.tensor([0, 0])).shape == (2, 0, 256)


def test_input_pooling_comes_before_the_layers():
    pooling = wc.ChunkNetwork(chunk_length=4, compressor=wc.MeanPoolCompressor(count=1))
    network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, input_pooling=pooling)
    codes = network(wc.Codes.from_tokens(torch.randn(1, 16, zoo.DIM)))
    assert codes.values.shape == (1, 4, zoo.DIM) and float(codes.ratio) == 4.0


@pytest.mark.parametrize("length", [0, zoo.CHUNK])
def test_every_parameter_has_a_gradient_even_where_no_chunk_is_complete(length):
    model = zoo.language_model()
    model(torch.zeros(2, length + 1, dtype=torch.long)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_reduce_network_without_causality_reads_both_ways():
    network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)
    values = torch.randn(1, 6, zoo.DIM, requires_grad=True)
    out = network(wc.Codes.from_tokens(values)).values
    (gradient,) = torch.autograd.grad(out[0, 0].sum(), values)
    assert gradient[0, 5].any()


def test_empty_prompts_and_sampling():
    model = zoo.language_model()
    out = model.generate(torch.zeros(2, 0, dtype=torch.int64), max_new_tokens=20, temperature=0.7, top_k=3)
    assert out.shape == (2, 20) and 0 <= out.min() and out.max() < 256
    logits = model(out)
    chosen = logits.gather(-1, out[..., None])
    assert (logits > chosen).sum(-1).max() < 3


def test_what_lies_periods_away_looks_the_same_with_a_base_that_makes_them_short():
    # of 8 channels of a head 4 are turned: two with a period of 2 pi, two with one that the base makes 100
    decoder = wc.LocalDecoder(dim=16, heads=2, layers=1, window=4, base=(100 / math.tau) ** 2)
    near, far = decoder.angles(torch.tensor([7])), decoder.angles(torch.tensor([100_007]))
    torch.testing.assert_close(far.cos[..., 1], near.cos[..., 1])
    torch.testing.assert_close(far.sin[..., 1], near.sin[..., 1])
    wide = wc.LocalDecoder(dim=16, heads=2, layers=1, window=4)
    assert not torch.allclose(wide.angles(torch.tensor([100_007])).cos, far.cos, atol=0.1)


def test_saved_codes_stand_in_for_the_past():
    model = zoo.language_model()
    tokens = torch.randint(256, (2, 50))
    torch.testing.assert_close(model(tokens, codes=model.context(tokens)), model(tokens))
    torch.testing.assert_close(model(tokens, codes=model.encode(tokens)), model(tokens))
    assert (model(tokens, codes="hidden") - model(tokens))[:, 16:].abs().max() > 1e-4
    assert float(model.encode(tokens[:, :48]).ratio) == 4.0


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: wc.ChunkNetwork(chunk_length=8, compressor=wc.MeanPoolCompressor(count=9)),
            "count=9 asks for more codes than the 8 tokens",
        ),
        (
            lambda: wc.ChunkNetwork(
                chunk_length=8,
                compressor=wc.WaveletCompressor(transform=wc.DWT1d("haar", level=4), pruner=wc.KeepLowpass(2)),
            ),
            "level=4 is too deep for chunk_length=8",
        ),
        (lambda: wc.ChunkNetwork(chunk_length=0, compressor=wc.MeanPoolCompressor(count=1)), "chunk_length=0"),
        (
            lambda: wc.ChunkNetwork(
                chunk_length=8, encoder=nn.Linear(zoo.DIM, 7), compressor=wc.MeanPoolCompressor(count=1)
            )(wc.Codes.from_tokens(torch.randn(1, 8, zoo.DIM))),
            r"encoder Linear returned shape \(1, 8, 7\), expected \(1, 8, 16\)",
        ),
        (
            lambda: wc.ChunkNetwork(
                chunk_length=8,
                encoder=nn.GRU(zoo.DIM, zoo.DIM, batch_first=True),
                compressor=wc.MeanPoolCompressor(count=1),
            )(wc.Codes.from_tokens(torch.randn(1, 8, zoo.DIM))),
            r"encoder GRU returned a tuple, expected a tensor of shape \(1, 8, 16\); SequenceAdapter takes",
        ),
        (lambda: wc.TransformerBlock(dim=10, heads=4), "heads=4 does not go with dim=10"),
        (lambda: wc.ReduceNetwork(dim=8, heads=2, layers=1, window=0), "window=0 is too small"),
        (lambda: wc.TransformerEncoder(dim=8, heads=2, layers=-1), "layers=-1 is negative; allowed: 0 and above"),
        (lambda: wc.TransformerEncoder(dim=8, heads=2, layers=1, convolution=-1), "convolution=-1 is negative"),
        (
            lambda: wc.ReduceNetwork(dim=8, heads=2, layers=1, causal=False),
            "window=512 looks back only; with",
        ),
        (lambda: wc.ChunkReduce(chunk_networks=[], reduce_network=nn.Identity()), "chunk_networks=.. is empty"),
        (lambda: wc.LocalDecoder(dim=8, heads=2, layers=1, window=0), "window=0 is too small"),
        (lambda: wc.LocalDecoder(dim=8, heads=2, layers=1, window=4, base=1.0), "base=1.0 is out of range"),
        (lambda: wc.ReduceNetwork(dim=8, heads=2, layers=1, base=0.5), "base=0.5 is out of range"),
        (lambda: wc.ReduceNetwork(dim=8, heads=2, layers=1, base=float("nan")), "base=nan is out of range"),
        (lambda: wc.LocalDecoder(dim=8, heads=2, layers=2, window=4, memory_layers=[2]), r"memory_layers=\[2\]"),
        (lambda: zoo.language_model()(torch.zeros(3, dtype=torch.int64)), r"tokens has shape \(3,\)"),
        (
            lambda: zoo.language_model()(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3])),
            r"lengths has shape \(1,\), expected \(2,\)",
        ),
        (
            lambda: zoo.language_model()(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 4])),
            "lengths holds 4; allowed: 0 to 3",
        ),
        (
            lambda: zoo.language_model().context(torch.zeros(2, 40, dtype=torch.int64), torch.tensor([40, 41])),
            "lengths holds 41; allowed: 0 to 40",
        ),
        (lambda: zoo.language_model()(torch.zeros(1, 3, dtype=torch.int64), codes="none"), "codes='none' is unknown"),
        (lambda: generate(max_new_tokens=-1), "max_new_tokens=-1 is negative"),
        (lambda: generate(max_new_tokens=1, temperature=-1.0), "temperature=-1.0 is out of range"),
        (lambda: generate(max_new_tokens=1, top_k=0), "top_k=0 is too small"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def generate(**arguments):
    return zoo.language_model().generate(torch.zeros(1, 1, dtype=torch.int64), **arguments)


def test_a_pooling_that_does_not_say_it_is_causal_is_not():
    assert wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1).causal
    assert not wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, input_pooling=nn.Identity()).causal
    with pytest.raises(TypeError, match="body Identity has no causal"):
        wc.ChunkReduceLM(embedding=nn.Identity(), body=nn.Identity(), decoder=nn.Identity(), head=nn.Identity())


def test_what_returns_no_tensor_is_named():
    class Listing(nn.Module):
        def forward(self, x):
            return [x]

    codes = wc.Codes.from_tokens(torch.randn(2, 10, 8))
    with pytest.raises(
        ValueError, match=r"network GRU returned a tuple, expected .* \(2, 10, 8\); SequenceAdapter takes"
    ):
        wc.ReduceAdapter(network=nn.GRU(8, 8, batch_first=True), causal=True)(codes)
    with pytest.raises(ValueError, match=r"module Listing returned a list, expected a tensor of shape \(2, 10, 8\)"):
        wc.SequenceAdapter(Listing())(codes.values)


def test_a_model_refuses_what_is_not_causal():
    compressor = wc.MeanPoolCompressor(count=zoo.COUNT)
    compressor.causal = False
    with pytest.raises(ValueError, match="holds a MeanPoolCompressor, which is not causal"):
        zoo.language_model(compressor)
    with pytest.raises(ValueError, match="holds a GlobalTopK, which is not causal"):
        zoo.language_model(zoo.wavelet_compressor(wc.GlobalTopK(target_ratio=4)))
    compressor = zoo.wavelet_compressor(wc.TopK(zoo.COUNT))
    compressor.pruner = wc.GlobalTopK(target_ratio=4)  # put there later, it is asked all the same
    with pytest.raises(ValueError, match="holds a GlobalTopK, which is not causal"):
        zoo.language_model(compressor)
    for make in (wc.MeanPoolCompressor, wc.DCTCompressor):  # marks that are made by looking at all codes
        looking = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)
        with pytest.raises(ValueError, match="holds a ReduceNetwork, which is not causal"):
            zoo.language_model(make(count=zoo.COUNT, encoding=looking))
    compressor = zoo.wavelet_compressor()
    compressor.band_weight.causal = False
    with pytest.raises(ValueError, match="holds a BandWeight, which is not causal"):
        zoo.language_model(compressor)
    with pytest.raises(ValueError, match="holds a ReduceNetwork, which is not causal"):
        wc.ChunkReduceLM(
            embedding=nn.Embedding(4, zoo.DIM),
            body=wc.ChunkReduce(
                chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=zoo.wavelet_compressor())],
                reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False),
            ),
            decoder=nn.Identity(),
            head=nn.Identity(),
        )


def test_a_model_refuses_what_is_put_there_later_and_not_causal():
    model, tokens = zoo.language_model(), torch.randint(256, (1, 40))
    model(tokens)
    model.body.reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)
    for call in (model, model.encode):
        with pytest.raises(ValueError, match="body holds a ReduceNetwork, which is not causal"):
            call(tokens)


def test_a_class_that_says_that_it_is_causal_asks_its_parts_all_the_same():
    class Wrapped(wc.Compressor):
        causal = True

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def capacity(self, chunk_length):
            return self.inner.capacity(chunk_length)

        def forward(self, chunks):
            return self.inner(chunks)

    class Looks(Wrapped):
        causal = False

    assert Wrapped(zoo.wavelet_compressor()).causal and zoo.language_model(Wrapped(zoo.wavelet_compressor()))
    assert not Looks(zoo.wavelet_compressor()).causal
    with pytest.raises(ValueError, match="holds a GlobalTopK, which is not causal"):
        zoo.language_model(Wrapped(zoo.wavelet_compressor(wc.GlobalTopK(target_ratio=4))))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_an_encoder_in_which_rows_read_one_another_is_refused(norm):
    module = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), norm(8), nn.GELU())
    message = f"holds a {norm.__name__}, which reads all rows .*; allowed: RMSNorm, LayerNorm, GroupNorm"
    with pytest.raises(ValueError, match="module " + message):
        wc.SequenceAdapter(module, channels_first=True)
    with pytest.raises(ValueError, match="encoder " + message):
        wc.ChunkNetwork(chunk_length=8, encoder=module, compressor=wc.MeanPoolCompressor(count=2))
    with pytest.raises(ValueError, match="network " + message):
        wc.ReduceAdapter(network=module, causal=True)
    wc.SequenceAdapter(nn.Sequential(module[0], nn.GroupNorm(2, 8), module[2]), channels_first=True)


def test_codes_of_other_rows_are_refused():
    model = zoo.language_model()
    tokens = torch.randint(256, (2, 48))
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"codes are of {rows} rows, tokens of 2; allowed: as many"):
            model(tokens, codes=model.context(tokens[:1].expand(rows, -1)))


def test_marks_of_places_begin_quieter_than_tokens():
    decoder = wc.LocalDecoder(dim=64, heads=4, layers=1, window=8, period=32)
    tokens = nn.Embedding(256, 64)
    assert 0.05 < float(decoder.place.weight.std() / tokens.weight.std()) < 0.2


def test_what_an_encoder_makes_of_padding_is_not_read():
    class Unit(nn.Module):
        def forward(self, x):
            return x / x.norm(dim=-1, keepdim=True)  # no number where there is nothing

    network = wc.ChunkNetwork(chunk_length=16, encoder=Unit(), compressor=wc.MeanPoolCompressor(count=4))
    codes = network(wc.Codes.from_tokens(torch.randn(2, 20, 8), torch.tensor([20, 7])))
    assert torch.isfinite(codes.values).all()


def test_an_adapter_is_built_by_keyword_and_tells_an_encoder_what_is_padding():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    adapter = wc.SequenceAdapter(module=layer, padding_mask="src_key_padding_mask").eval()
    network = wc.ChunkNetwork(chunk_length=16, encoder=adapter, compressor=wc.NoCompression())
    values = torch.randn(2, 20, 8)
    codes = network(wc.Codes.from_tokens(values, torch.tensor([20, 7])))
    torch.testing.assert_close(codes.values[1, :7], layer(values[1:, :7])[0], rtol=1e-4, atol=1e-5)
    compiled = wc.ReduceAdapter(network=torch.compile(adapter, backend="eager"), causal=False)
    tokens = wc.Codes.from_tokens(values, torch.tensor([20, 7]))
    plain = wc.ReduceAdapter(network=adapter, causal=False)(tokens)
    torch.testing.assert_close(compiled(tokens).values, plain.values)
