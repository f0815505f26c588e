"""Generation reads each token once, and says what the full forward pass says."""

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.networks.generation import Sampler, StepReader, WholeReader, nucleus, reader
from wavecomp.pace import NEVER

STAGES = {"one-stage": (16,), "two-stages": (16, 16), "three-stages": (16, 16, 8)}
COMPRESSORS = {"fixed": lambda: zoo.wavelet_compressor(wc.KeepLowpass(8)), "adaptive": zoo.leaves}


def model(
    lengths=(16,), compressor=zoo.leaves, *, reduce_network=None, support_bias=False, count_scale=False, **settings
):
    compressors = [compressor(), *(wc.MeanPoolCompressor(count=4) for _ in lengths[1:])]
    body = wc.ChunkReduce(
        chunk_networks=[
            wc.ChunkNetwork(
                chunk_length=length,
                encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
                compressor=one,
            )
            for length, one in zip(lengths, compressors)
        ],
        reduce_network=reduce_network or wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=12, base=50.0),
        **settings,
    )
    asked = dict(support_bias=support_bias, count_scale=count_scale, base=50.0)
    decoder = wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=3, window=7, memory_layers=[0, 2], period=16, **asked)
    language_model = wc.ChunkReduceLM(
        embedding=nn.Embedding(256, zoo.DIM), body=body, decoder=decoder, head=nn.Linear(zoo.DIM, 256)
    )
    return zoo.perturb(language_model, std=0.2).eval()


def text(length, rows=2):
    """Noise, and stretches that say nothing new, so that an adaptive compressor has something to adapt to."""
    tokens = torch.randint(256, (rows, length))
    return torch.where(torch.arange(length) // 16 % 3 == 1, tokens[:, :1], tokens)


@torch.no_grad()
def logits_step_by_step(language_model, tokens, prompt):
    one = StepReader(language_model)
    logits = [one.read(tokens[:, :prompt])]
    logits += [one.read(tokens[:, at : at + 1]) for at in range(prompt, tokens.shape[1] - 1)]
    return torch.stack(logits, dim=1), one


@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("stages", STAGES)
def test_each_byte_equals_the_full_forward_pass(stages, compressor, overlap):
    language_model = model(STAGES[stages], COMPRESSORS[compressor], overlap=overlap)
    tokens = text(150)
    with torch.no_grad():
        whole = language_model(tokens)
    for prompt in (0, 5, 16, 90, 128):
        stop = 150 if prompt in (0, 128) else prompt + 20
        logits, _ = logits_step_by_step(language_model, tokens[:, :stop], prompt)
        torch.testing.assert_close(logits, whole[:, prompt:stop], rtol=0, atol=1e-5)
    hidden = language_model(tokens, codes="hidden")
    assert (hidden - whole)[:, 20:].abs().max() > 1e-2


@pytest.mark.parametrize(
    "settings",
    [
        {"support_bias": True},
        {"keep": "last"},
        {"overlap": 20, "support_bias": True},
        {"count_scale": True},
        {"overlap": 20, "count_scale": True},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_each_byte_equals_the_full_forward_pass_with(settings):
    language_model = model((16, 16), **settings)
    tokens = text(100, rows=3)
    logits, _ = logits_step_by_step(language_model, tokens, 70)
    torch.testing.assert_close(logits, language_model(tokens)[:, 70:], rtol=0, atol=1e-5)


def test_half_precision_stays_close():
    language_model = model(support_bias=True)
    tokens = text(60)
    exact = language_model(tokens)[:, 40:]
    logits, _ = logits_step_by_step(language_model.bfloat16(), tokens, 40)
    assert (logits.float() - exact).abs().mean() < 0.1 * exact.std()


def test_several_tokens_are_read_at_once():
    language_model, tokens = model((16, 16)), text(150)
    one = StepReader(language_model)
    parts = [tokens[:, :3], tokens[:, 3:60], tokens[:, 60:61], tokens[:, 61:149]]
    logits = torch.stack([one.read(part) for part in parts], dim=1)
    torch.testing.assert_close(logits, language_model(tokens)[:, [3, 60, 61, 149]], rtol=0, atol=1e-5)


def test_what_no_later_token_sees_is_forgotten():
    language_model, tokens = model((16, 16, 8), COMPRESSORS["fixed"]), text(400, rows=1)
    _, one = logits_step_by_step(language_model, tokens, 390)
    codes = language_model.context(tokens)
    seen = codes.visible(torch.tensor([399])).sum()
    assert one.memory.until.length == 1 + seen  # the sink, and no more
    assert seen < codes.mask.sum() / 3
    keys, values = one.memory.keys_values[2]
    assert keys.length == values.length == one.memory.until.length
    assert list(one.memory.keys_values) == [0, 2] and one.memory.all_seen


def test_slots_without_a_code_cost_nothing():
    language_model, tokens = model(), text(200, rows=1)
    _, one = logits_step_by_step(language_model, tokens, 190)
    codes = language_model.context(tokens)
    assert one.memory.until.length == 1 + codes.mask.sum() < codes.mask.shape[1]


def test_the_decoder_reads_no_more_of_a_prompt_than_its_reach(monkeypatch):
    language_model, tokens = model(), text(300)
    decoder, lengths = language_model.decoder, []
    step = decoder.step
    monkeypatch.setattr(
        decoder, "step", lambda x, *given, **more: lengths.append(x.shape[1]) or step(x, *given, **more)
    )
    language_model.generate(tokens, max_new_tokens=3)
    assert sum(lengths[:-2]) == decoder.reach == 1 + 3 + 3 * 6 and lengths[-2:] == [1, 1]


@pytest.mark.parametrize("length", [0, 3, 16, 50])
def test_rows_of_different_lengths_give_what_each_gives_alone(length):
    language_model = model((16, 16))
    lengths = torch.tensor([40, 0, 33, 40, 16, 1]).clamp(max=length)
    prompt = text(length, rows=6)
    prompt[torch.arange(length) >= lengths[:, None]] = -100
    out = language_model.generate(prompt, lengths, max_new_tokens=20, temperature=0)
    assert out.shape == (6, length + 20)
    for row, own in enumerate(lengths.tolist()):
        alone = language_model.generate(prompt[row : row + 1, :own], max_new_tokens=20, temperature=0)[0]
        assert torch.equal(out[row, : own + 20], alone) and not out[row, own + 20 :].any()


class NoSteps(nn.Module):
    """A Reduce-Network of its user's."""

    causal = True

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, codes):
        return self.network(codes)


@pytest.mark.parametrize("steps", [True, False])
def test_foreign_parts_are_read_in_steps_or_as_a_whole(steps):
    gru = wc.ReduceAdapter(network=wc.SequenceAdapter(nn.GRU(zoo.DIM, zoo.DIM, batch_first=True)), causal=True)
    language_model = model(reduce_network=gru if steps else NoSteps(gru))
    assert isinstance(reader(language_model), StepReader if steps else WholeReader)
    prompt = text(20)
    out = language_model.generate(prompt, max_new_tokens=20, temperature=0)
    assert torch.equal(out[:, 20:], language_model(out).argmax(-1)[:, 20:])


def test_streamed_tokens_are_those_of_generate_as_they_come(monkeypatch):
    language_model, prompt = model(), text(20)
    arguments = dict(max_new_tokens=12, temperature=1.5, top_p=0.9)
    out = language_model.generate(prompt, generator=torch.Generator().manual_seed(3), **arguments)
    other = language_model.generate(prompt, generator=torch.Generator().manual_seed(4), **arguments)
    reads = []
    read = StepReader.read
    monkeypatch.setattr(StepReader, "read", lambda self, tokens: reads.append(1) or read(self, tokens))
    steps = language_model.stream(prompt, generator=torch.Generator().manual_seed(3), **arguments)
    assert not reads
    first = next(steps)
    assert len(reads) == 1 and not first.requires_grad and torch.is_grad_enabled()
    assert torch.equal(torch.stack([first, *steps], dim=1), out[:, 20:]) and not torch.equal(out, other)
    assert len(reads) == 12


def test_sampling_of_one_is_the_likeliest_and_any_temperature_is_finite():
    ties = torch.tensor([[1.0, 3.0, 3.0, 3.0]]).expand(200, 4)
    assert len(set(Sampler(top_k=1)(ties).tolist())) == 1
    assert set(Sampler(top_k=2)(ties).tolist()) < {1, 2, 3}
    assert Sampler(temperature=1e-40)(torch.tensor([[1.0, 3.0, 2.0]])).tolist() == [1]


def test_sampling_draws_as_asked():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20000, -1)
    share = lambda **settings: torch.bincount(Sampler(**settings)(logits), minlength=4) / 20000  # noqa: E731
    close = lambda mine, wanted: torch.testing.assert_close(mine, torch.tensor(wanted), rtol=0, atol=0.02)  # noqa: E731
    close(share(), [0.5, 0.3, 0.15, 0.05])
    close(share(top_k=2), [0.625, 0.375, 0, 0])
    close(share(top_p=0.8), [0.625, 0.375, 0, 0])
    close(share(top_p=0.81), [0.5263, 0.3158, 0.1579, 0])
    close(share(temperature=0.5), [0.6849, 0.2466, 0.0616, 0.0068])
    assert share(temperature=0).tolist() == share(top_k=1).tolist() == share(top_p=1e-9).tolist() == [1, 0, 0, 0]
    assert share(top_k=99, top_p=1.0).gt(0).all()


def test_a_nucleus_is_the_smallest_that_reaches_its_share():
    chances = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    assert (nucleus(chances, 0.6) > 0).tolist() == [[False, True, True], [True, False, False]]
    torch.testing.assert_close(nucleus(chances, 1.0), chances)


@pytest.mark.parametrize(
    "stages, settings",
    [
        ((16,), {}),
        ((16, 16), {}),
        ((16, 16), {"overlap": 5}),
        ((16,), {"count_scale": True, "support_bias": True}),
    ],
)
def test_a_text_is_gone_on_from_its_codes_alone(stages, settings):
    """Within a chunk what is said equals the forward pass on the same codes; behind it further codes come in."""
    language_model, tokens = model(stages, **settings), text(64, rows=2)
    codes = language_model.encode(tokens)
    prompt = text(5)
    read = torch.cat([prompt, text(7)], dim=1)
    one = reader(language_model, codes)
    logits = torch.stack([one.read(prompt), *(one.read(read[:, at : at + 1]) for at in range(5, 12))], dim=1)
    following = torch.nn.functional.pad(read, (0, 1))
    whole = language_model(following, codes=codes, start=64)
    torch.testing.assert_close(logits, whole[:, 5:], rtol=0, atol=1e-5)
    hidden = language_model(following, codes=codes.hidden(), start=64)
    assert (hidden - whole).abs().max() > 1e-2
    for count in (7, 40):
        made = language_model.generate(prompt, max_new_tokens=count, temperature=0, codes=codes)
        assert made.shape == (2, 5 + count)
    assert one.memory.until.length == 1 + int(codes.visible(torch.tensor([64])).sum(-1).amax())
    one.read(text(40))
    assert one.encoder.tokens == 64 + 48 and not torch.equal(one.memory.until.tensor[:, 1:], codes.until)


@pytest.mark.parametrize("stages", STAGES)
def test_pieces_of_a_stream_are_gone_on_from_as_the_whole_is(stages):
    language_model = model(STAGES[stages])
    text, prompt = torch.randint(256, (2, 256)), torch.randint(256, (2, 5))
    encoder = wc.StreamingEncoder(language_model)
    pieces = wc.Codes.join([encoder.feed(piece) for piece in text.split(48, dim=1)])
    wrong = pieces.replace(tokens=torch.tensor([16, 32]))  # fewer than were read to make them
    whole = StepReader(language_model, language_model.encode(text)).read(prompt)
    for codes in (pieces, wrong):
        torch.testing.assert_close(StepReader(language_model, codes).read(prompt), whole, rtol=0, atol=1e-5)


def test_codes_of_a_text_that_ended_inside_a_chunk_of_a_later_stage():
    """Finer codes that no coarser ones came to stand in for are read on, from the next whole chunk on."""
    language_model = model((16, 16), COMPRESSORS["fixed"])
    codes = language_model.encode(text(48, rows=1))  # chunks of 16, and of 32
    one = reader(language_model, codes)
    one.read(text(3, rows=1))
    assert one.start == 64 and one.memory.until.length == 1 + 4 + 8
    assert (one.memory.until.tensor == NEVER).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: model().generate(text(4), max_new_tokens=-1), "max_new_tokens=-1 is negative"),
        (lambda: model().stream(text(4), max_new_tokens=1, temperature=-1), "temperature=-1 is out of range"),
        (
            lambda: model().stream(text(4), max_new_tokens=1, temperature=float("nan")),
            "temperature=nan is out of range",
        ),
        (lambda: model().stream(text(4), max_new_tokens=1, top_k=0), "top_k=0 is too small"),
        (lambda: model().stream(text(4), max_new_tokens=1, top_p=0.0), "top_p=0.0 is out of range"),
        (lambda: model().stream(text(4), max_new_tokens=1, top_p=1.5), "top_p=1.5 is out of range"),
        (lambda: model().generate(text(4)[0], max_new_tokens=1), r"prompt has shape \(4,\)"),
        (lambda: model().generate(text(4), torch.tensor([4, 5]), max_new_tokens=1), "lengths holds 5; allowed: 0 to 4"),
        (lambda: model().generate(text(4), torch.tensor([4]), max_new_tokens=1), r"lengths has shape \(1,\)"),
        (
            lambda: model().generate(text(4), max_new_tokens=1, codes=model().encode(text(16, rows=1))),
            "codes of 1 rows do not go with a prompt of 2; allowed: as many, and no lengths",
        ),
        (
            lambda: model().stream(text(4), torch.tensor([4, 2]), max_new_tokens=1, codes=model().encode(text(16))),
            "codes of 2 rows do not go with a prompt of 2 and lengths",
        ),
        (
            lambda: model(reduce_network=NoSteps(nn.Identity())).stream(
                text(4), max_new_tokens=1, codes=model().encode(text(16))
            ),
            "codes go with a LocalDecoder and a Reduce-Network that has step; the model has LocalDecoder and NoSteps",
        ),
        (lambda: model().generate(text(4).to(torch.uint8), max_new_tokens=1), "prompt is of torch.uint8; allowed:"),
        (lambda: wc.StreamingEncoder(model(), start=8), "start=8 lies inside a chunk; allowed: multiples of 16"),
    ],
)
def test_bad_input_is_named_at_once(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_compiled_decoder_is_read_in_steps():
    language_model = model()
    language_model.decoder = torch.compile(language_model.decoder, backend="eager")
    assert isinstance(reader(language_model), StepReader)


def test_codes_of_another_precision_are_read_in_that_of_the_model():
    language_model = model()
    codes = language_model.encode(text(48))
    prompt = text(5)
    half = language_model.bfloat16()
    assert half.generate(prompt, max_new_tokens=2, codes=codes).shape == (2, 7)
    assert half(prompt, codes=codes).dtype == torch.bfloat16


def test_no_rows_give_no_rows():
    for length in (4, 40):
        prompt = torch.zeros(0, length, dtype=torch.int64)
        for lengths in (None, torch.zeros(0, dtype=torch.int64)):
            assert model().generate(prompt, lengths, max_new_tokens=3).shape == (0, length + 3)


@pytest.mark.parametrize("length", [2, 4, 8])
def test_a_pooling_that_a_chunk_does_not_fill_generates_as_well(length):
    model = zoo.language_model()
    slots = model.body.chunk_networks[0].capacity
    pooling = wc.ChunkNetwork(chunk_length=length, compressor=wc.MeanPoolCompressor(count=1))
    model.body.reduce_network.input_pooling = pooling
    model.eval()
    tokens = torch.randint(256, (2, 5))
    made = model.generate(tokens, max_new_tokens=3 * zoo.CHUNK, temperature=0)
    for place in range(5, made.shape[1]):
        logits = model(torch.cat([made[:, :place], made[:, :1]], dim=1))[:, -1]
        assert torch.equal(logits.argmax(-1), made[:, place]), (place, slots)


@pytest.mark.parametrize("temperature", [1e-46, float("inf")])
def test_any_temperature_leaves_what_is_impossible_impossible(temperature):
    logits = torch.tensor([[0.0, 1.0, -torch.inf]]).expand(64, -1)
    drawn = Sampler(temperature=temperature)(logits)
    assert set(drawn.tolist()) == ({1} if temperature < 1 else {0, 1})
