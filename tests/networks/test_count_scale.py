"""Attention to codes that is as sharp over many as over few."""

import torch
import zoo

import wavecomp as wc
from wavecomp.networks.attention import Memory, MemoryAttention, Reading, head_angles, split_heads
from wavecomp.pace import NEVER
from wavecomp.positions import rotate


def memory_of(values, seen):
    """Codes at place 0, of which each place sees so many first ones."""
    slots = values.shape[1]
    readings = [Reading((torch.arange(slots) < seen[:, None])[None])]
    position = torch.zeros(1, slots)
    return Memory(values, head_angles(position, zoo.DIM, 2), readings, None, seen[None])


def test_scores_grow_with_the_logarithm_of_what_a_place_sees():
    attention = zoo.perturb(MemoryAttention(dim=zoo.DIM, heads=2, count_scale=True)).double()
    x, values = torch.randn(1, 3, zoo.DIM).double(), torch.randn(1, 9, zoo.DIM).double()
    seen = torch.tensor([0, 4, 9])
    memory, place = memory_of(values, seen), head_angles(torch.arange(3), zoo.DIM, 2)
    out = attention(x, memory, place)
    q = rotate(split_heads(attention.q(x), 2), place)
    k, v = attention._with_sink(attention.keys_values(values, memory.rotary))
    for row, count in enumerate(seen.tolist()):
        factor = attention.count_scale[:, None] * torch.tensor(1.0 + count).log() / (zoo.DIM // 2) ** 0.5
        scores = factor * (q[0, :, row, None] * k[0, :, : count + 1]).sum(-1)
        read = (scores.softmax(-1)[..., None] * v[0, :, : count + 1]).sum(1).flatten()
        torch.testing.assert_close(out[0, row], attention.out(read))


def test_a_code_that_stands_out_among_few_stands_out_among_many():
    """Without the scale the share of one code among ever more falls to nothing."""
    shares = {}
    for asked in (False, True):
        attention = MemoryAttention(dim=zoo.DIM, heads=2, count_scale=asked)
        with torch.no_grad():
            for linear in (attention.q, attention.kv, attention.out):
                for parameter in linear.parameters():
                    parameter.zero_()
            attention.q.bias[zoo.DIM // 4 :: zoo.DIM // 2] = 1  # a channel of each head that no angle turns
            for head in range(2):
                attention.kv.weight[head * zoo.DIM // 2 + zoo.DIM // 4, 0] = 1
            attention.kv.weight[zoo.DIM :] = torch.eye(zoo.DIM)
            attention.out.weight.copy_(torch.eye(zoo.DIM))
        found = []
        for slots in (64, 64 * 64):
            values = torch.zeros(1, slots, zoo.DIM)
            values[0, 7, 0] = 5 * zoo.DIM**0.5
            memory = memory_of(values, torch.tensor([slots]))
            read = attention(torch.zeros(1, 1, zoo.DIM), memory, head_angles(torch.zeros(1), zoo.DIM, 2))
            found.append(float(read[0, 0, 0].detach() / values[0, 7, 0]))
        shares[asked] = found
    near, far = shares[False]
    assert far < 0.5 * near
    near, far = shares[True]
    assert far > 0.95 * near > 0.9


def test_codes_seen_are_those_that_are_visible():
    """In ragged rows, with empty slots, and codes that others stand in for after a while."""
    body = zoo.language_model(zoo.leaves(), chunk=16).body
    codes = body(wc.Codes.from_tokens(torch.randn(3, 150, zoo.DIM), torch.tensor([150, 97, 5])))
    stays = torch.randint(1, 60, codes.end.shape)
    codes = codes.replace(until=torch.where(codes.end < NEVER, codes.end.clamp(max=999) + stays, NEVER))
    place = torch.arange(160)
    visible = codes.visible(place).sum(-1)
    assert visible.amax() > 10 and (visible.diff() < 0).any() and not codes.mask.all()
    torch.testing.assert_close(codes.seen(place), visible)
    assert not codes.hidden().seen(place).any()


def test_a_decoder_compiles_without_a_graph_break():
    decoder = wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=1, window=4, count_scale=True)
    codes = zoo.language_model(chunk=16).body(wc.Codes.from_tokens(torch.randn(2, 48, zoo.DIM)))
    codes, tokens = codes.replace(values=codes.values.detach()), torch.randn(2, 60, zoo.DIM)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: decoder(tokens, codes), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), decoder(tokens, codes), rtol=1e-4, atol=1e-5)
    compiled().sum().backward()
    assert decoder.blocks[0].memory_attention.count_scale.grad.abs().min() > 0
