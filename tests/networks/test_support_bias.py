import pytest
import torch
import zoo
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.networks.attention import (
    Memory,
    MemoryAttention,
    Reading,
    Window,
    WindowAttention,
    head_angles,
    support_attention,
    window_attention,
    window_mask,
)

NAMES = ("position", "support", "frequency", "level", "chunk", "index", "end", "until", "mask")


def set_scales(module, value):
    with torch.no_grad():
        scales = [p for name, p in module.named_parameters() if name.endswith("support_scale")]
        for scale in scales:
            scale.fill_(value)
    assert scales
    return module


def codes_with_supports(*supports, values=None):
    """Codes that all exist from token 2 on."""
    if values is None:
        values = torch.randn(1, len(supports), zoo.DIM, dtype=torch.float64)
    codes = wc.Codes.from_tokens(values)
    return codes.replace(support=torch.tensor([supports], dtype=torch.float64), end=torch.full_like(codes.end, 2))


def twice(codes, slot):
    """The same codes, with one of support 2 as two of support 1."""
    order = [i for i in range(codes.values.shape[1]) for _ in range(2 if i == slot else 1)]
    fields = {name: getattr(codes, name)[:, order] for name in NAMES}
    fields["support"] = torch.where(torch.tensor(order) == slot, 1, fields["support"])
    return codes.replace(values=codes.values[:, order], **fields), order


@pytest.mark.parametrize("length, window", [(5, None), (13, 4), (16, 4)])
@pytest.mark.parametrize("width", [4, 8, 12])
def test_the_bias_is_that_of_a_dense_mask(length, window, width):
    q, k, v = (torch.randn(2, 3, length, width, dtype=torch.float64, requires_grad=True) for _ in range(3))
    scale = torch.tensor([0.0, 1.0, -0.7], dtype=torch.float64, requires_grad=True)
    log_support = torch.rand(2, length, dtype=torch.float64) * 4
    i = torch.arange(length)
    dense = (i[None] <= i[:, None]) & (i[:, None] - i[None] < (window or length))
    bias = scale[:, None, None] * log_support[:, None, None]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(~dense, -torch.inf))
    mask = window_mask(length, window=window, device=q.device)
    out = support_attention(window_attention, q, k, v, mask, log_support=log_support, scale=scale)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    mine, truth = (torch.autograd.grad(x, (q, k, v, scale), upstream, retain_graph=True) for x in (out, expected))
    for one, other in zip(mine, truth):
        torch.testing.assert_close(one, other)


def test_at_scale_1_a_code_of_two_tokens_counts_as_two_in_memory_attention():
    attention = set_scales(zoo.perturb(MemoryAttention(dim=zoo.DIM, heads=2, support_bias=True)).double(), 1)
    x, values = torch.randn(1, 5, zoo.DIM).double(), torch.randn(1, 3, zoo.DIM).double()
    place, position = head_angles(torch.arange(5) + 9, zoo.DIM, 2), torch.tensor([[0.5, 3.5, 7.0]])

    def out(order, supports):
        readings = [Reading(torch.ones(1, 5, len(order)) > 0)]
        memory = Memory(
            values[:, order], head_angles(position[:, order], zoo.DIM, 2), readings, torch.tensor([supports]).log()
        )
        return attention(x, memory, place)

    two = out([0, 1, 2], [1.0, 2.0, 4.0])
    torch.testing.assert_close(two, out([0, 1, 1, 2], [1.0, 1.0, 1.0, 4.0]))
    torch.testing.assert_close(two, out([0, 1, 1, 2, 2, 2, 2], [1.0] * 7))
    set_scales(attention, 0)
    assert (two - out([0, 1, 2], [1.0, 2.0, 4.0])).abs().max() > 1e-4


def test_the_sink_counts_as_one_token():
    attention = set_scales(MemoryAttention(dim=zoo.DIM, heads=2, support_bias=True), 1)
    torch.nn.init.eye_(attention.out.weight)
    for parameter in attention.kv.parameters():
        torch.nn.init.zeros_(parameter)  # all scores are equal, and only the sink holds something
    torch.nn.init.ones_(attention.sink[1].detach())
    place = head_angles(torch.arange(2), zoo.DIM, 2)
    memory = Memory(
        torch.randn(1, 2, zoo.DIM), place, [Reading(torch.ones(1, 2, 2) > 0)], torch.tensor([[1.0, 3.0]]).log()
    )
    out = attention(torch.randn(1, 2, zoo.DIM), memory, place)
    torch.testing.assert_close(out, torch.full_like(out, 1 / (1 + 1 + 3)))


def test_at_scale_1_a_code_of_two_tokens_counts_as_two_in_window_attention():
    attention = set_scales(zoo.perturb(WindowAttention(dim=zoo.DIM, heads=2, support_bias=True)).double(), 1)
    x = torch.randn(1, 3, zoo.DIM).double()
    position = torch.tensor([[0.5, 3.5, 7.0]])

    def out(order, supports):
        rotary = head_angles(position[:, order], zoo.DIM, 2)
        mask = torch.ones(1, 1, len(order), len(order)) > 0
        return attention(x[:, order], Window(rotary, mask, torch.tensor([supports]).log()))

    torch.testing.assert_close(out([0, 1, 2], [1.0, 2.0, 1.0])[:, [0, 1, 1, 2]], out([0, 1, 1, 2], [1.0] * 4))


def test_at_scale_1_a_code_of_two_tokens_counts_as_two_in_both_networks():
    one = codes_with_supports(1, 2, 1, 4)
    other, order = twice(one, 1)
    reduce = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=None, support_bias=True)
    reduce = set_scales(zoo.perturb(reduce).double(), 1)
    torch.testing.assert_close(reduce(one).values[:, order], reduce(other).values)
    decoder = wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=4, support_bias=True)
    decoder = set_scales(zoo.perturb(decoder).double(), 1)
    tokens = torch.randn(1, 9, zoo.DIM).double()
    torch.testing.assert_close(decoder(tokens, one), decoder(tokens, other))
    for network in (reduce, decoder):
        set_scales(network, 0)
    assert (reduce(one).values[:, order] - reduce(other).values).abs().max() > 1e-4
    assert (decoder(tokens, one) - decoder(tokens, other)).abs().max() > 1e-4


def networks(support_bias):
    torch.manual_seed(0)
    return (
        wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=4, support_bias=support_bias),
        wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=3, window=4, memory_layers=[0, 2], support_bias=support_bias),
    )


def test_scales_start_at_0_and_change_nothing():
    codes = codes_with_supports(1, 2, 4, 8, 2, 1, 1).to(torch.float32)
    tokens = torch.randn(1, 9, zoo.DIM)
    for (plain, biased), run in zip(
        zip(networks(False), networks(True)), (lambda n: n(codes).values, lambda n: n(tokens, codes))
    ):
        added = set(biased.state_dict()) - set(plain.state_dict())
        assert added and all(name.endswith("support_scale") for name in added)
        assert set(plain.state_dict()) == set(biased.state_dict()) - added
        biased.load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(run(biased), run(plain))


def test_only_attention_to_codes_is_biased():
    reduce, decoder = networks(True)
    assert [name for name, _ in reduce.named_parameters() if "support" in name] == [
        "blocks.0.attention.support_scale",
        "blocks.1.attention.support_scale",
    ]
    assert [name for name, _ in decoder.named_parameters() if "support" in name] == [
        "blocks.0.memory_attention.support_scale",
        "blocks.2.memory_attention.support_scale",
    ]


def test_gradients_reach_the_scales():
    codes = codes_with_supports(1, 2, 4, 8).to(torch.float32)
    for network, out in zip(networks(True), (lambda n: n(codes).values, lambda n: n(torch.randn(1, 9, 16), codes))):
        zoo.perturb(network)
        (out(network) * torch.randn_like(out(network))).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            if "support_scale" in name:
                assert parameter.grad.abs().min() > 0, name


def test_empty_slots_without_support_stay_finite():
    codes = codes_with_supports(1, 0, 2, 0).to(torch.float32)
    codes = codes.replace(mask=torch.tensor([[True, False, True, False]]), values=codes.values * codes.mask[..., None])
    for network, out in zip(networks(True), (lambda n: n(codes).values, lambda n: n(torch.randn(1, 9, 16), codes))):
        set_scales(zoo.perturb(network), 1)
        result = out(network)
        result.sum().backward()
        assert torch.isfinite(result).all()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def biased_model(**arguments):
    model = zoo.language_model(zoo.wavelet_compressor(wc.TopK(4)), **arguments)
    model.body.reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=4, support_bias=True)
    model.decoder = wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, period=zoo.CHUNK, support_bias=True)
    return zoo.perturb(model)


def test_a_biased_model_is_causal_whatever_lies_behind_it():
    model = biased_model().double()
    tokens, lengths = torch.randint(256, (2, 53)), torch.tensor([53, 30])
    full = model(tokens)
    for length in (1, 16, 17, 40):
        torch.testing.assert_close(model(tokens[:, :length]), full[:, :length], rtol=0, atol=1e-10)
    together = model(tokens, lengths)
    torch.testing.assert_close(together[1, :30], model(tokens[1:, :30])[0], rtol=0, atol=1e-10)


def test_a_biased_model_in_half_precision_stays_close():
    model, tokens = biased_model(), torch.randint(256, (2, 40))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens)
    for half in (mixed, model.to(torch.bfloat16)(tokens)):
        assert (half.float() - exact).abs().mean() < 0.1 * exact.std()


def test_a_biased_network_compiles_without_a_graph_break():
    codes, tokens = codes_with_supports(1, 2, 4, 8, 2, 1, 1).to(torch.float32), torch.randn(1, 9, zoo.DIM)
    reduce, decoder = networks(True)
    set_scales(reduce, 0.5), set_scales(decoder, 0.5)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: decoder(tokens, reduce(codes)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), decoder(tokens, reduce(codes)), rtol=1e-4, atol=1e-5)
    compiled().sum().backward()
