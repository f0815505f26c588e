"""Stacked stages: the recent past stays fine, the distant past becomes coarse, and steps equal the whole."""

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.networks import decoder
from wavecomp.networks.decoder import readings
from wavecomp.pace import NEVER, Pace


def stage(chunk_length, compressor=None):
    return wc.ChunkNetwork(
        chunk_length=chunk_length,
        encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        compressor=compressor or zoo.wavelet_compressor(),
    )


BANKS = {
    "one": lambda: ["haar"] * 3,
    "several": lambda: [wc.OrthogonalFilterBank("db2"), wc.NeuralLiftingFilterBank(dim=zoo.DIM, hidden=2), "db2"],
}
"""The wavelets of the stages: the same one in all, or one of another kind in each."""


def body(lengths=(16, 8), *, compressor=None, banks="one", window=8, **settings):
    wavelets = (zoo.wavelet_compressor(wavelet=bank) for bank in BANKS[banks]())
    networks = [stage(length, own) for length, own in zip(lengths, wavelets)]
    if compressor is not None:
        networks[0] = stage(lengths[0], compressor)
    reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=window)
    return zoo.perturb(wc.ChunkReduce(chunk_networks=networks, reduce_network=reduce_network, **settings))


def tokens(length=200, batch=2):
    return wc.Codes.from_tokens(torch.randn(batch, length, zoo.DIM, dtype=torch.float64))


def test_finer_codes_are_seen_until_coarser_ones_stand_in_for_them():
    codes = body((16, 8, 8)).double()(tokens())
    assert codes.pace == (Pace(16, 4, stay=16), Pace(32, 4, stay=32), Pace(64, 4))
    levels = [codes.level[0, codes.visible(torch.tensor([t]))[0, 0]].tolist() for t in (15, 16, 31, 32, 63, 64, 95, 96)]
    # two approximations and as many details of 32 tokens lie over one another, so that eight codes stand for 64
    fine, middle, coarse = [2] * 4, [4] * 4, [5] * 4
    assert levels == [[], fine, fine, middle, middle + fine, coarse, coarse + fine, coarse + middle]
    assert (codes.end.diff() >= 0).all() and (codes.until > codes.end).sum() < codes.mask.sum()
    seen = codes.visible(torch.arange(200))
    assert not seen[:, :16].any() and seen[:, 16:].any(-1).all()


def test_finer_codes_may_stay_beside_coarser_ones():
    codes = body(overlap=16).double()(tokens(64))
    seen = codes.visible(torch.tensor([31, 32, 47, 48]))[0]
    assert [codes.level[0, row].tolist() for row in seen] == [
        [2] * 4,
        [2] * 8 + [4] * 4,
        [2] * 8 + [4] * 4,
        [4] * 4 + [2] * 4,
    ]


def test_each_stage_may_have_a_wavelet_of_its_own():
    """And chunks of another length; rows of a ragged batch are what they are alone."""
    network = body((16, 8, 12), banks="several").double()
    kinds = {type(one.compressor.transform.filter_banks[0]) for one in network.chunk_networks}
    assert len(kinds) == 3
    values, lengths = tokens(260).values, torch.tensor([260, 150])
    codes = network(wc.Codes.from_tokens(values, lengths))
    assert network.spans == (16, 32, 96) and codes.end[0].unique()[:-1].tolist() == [*range(16, 257, 16)]
    alone = network(wc.Codes.from_tokens(values[1:, :150]))
    seen = [one.values[row][one.visible(torch.tensor([150]))[row, 0]] for one, row in ((codes, 1), (alone, 0))]
    torch.testing.assert_close(*seen)


def test_the_last_stage_alone():
    codes = body(keep="last").double()(tokens(128))
    assert float(codes.ratio) == 8.0 and codes.end.unique().tolist() == [32, 64, 96, 128]
    assert codes.until.unique().tolist() == [NEVER]


@pytest.mark.parametrize("overlap", [2**62, NEVER - 60, NEVER])
def test_fine_codes_that_overlap_for_ever_stay(overlap):
    codes = body(overlap=overlap).double()(tokens(64))
    places = torch.tensor([16, 32, 63])
    assert torch.equal(codes.visible(places), codes.mask[:, None] & (codes.end[:, None] <= places[:, None]))


@pytest.mark.parametrize("lengths", [(16,), (16, 8), (16, 8, 8), (16, 12, 8)])
@pytest.mark.parametrize("overlap", [0, 20])
def test_where_codes_lie_that_some_tokens_may_use_is_known_without_looking(lengths, overlap):
    values = tokens(400).values
    codes = body(lengths, overlap=overlap).double()(wc.Codes.from_tokens(values, torch.tensor([400, 210])))
    for first, last in [(0, 0), (0, 15), (0, 16), (40, 40), (96, 130), (0, 399), (300, 399), (399, 399)]:
        some = torch.arange(first, last + 1)
        seen, slots = codes.visible(some), codes.slots_for(first, last)
        where = torch.arange(slots) if isinstance(slots, int) else slots
        assert len(where.unique()) == len(where)
        assert torch.equal(codes.visible(some, slots), seen[..., where]) and seen.sum() == seen[..., where].sum(), first


def test_codes_that_are_not_as_they_were_made_are_all_looked_at():
    codes = body((16, 8)).double()(tokens(384))
    whole = codes.values.shape[1]
    few = codes.slots_for(300, 384)
    # 7 chunks of the first stage end at 288 to 384, and all 12 of the second are seen
    assert isinstance(few, torch.Tensor) and len(few) == (7 + 12) * 4 < whole
    assert codes.replace(until=torch.full_like(codes.until, NEVER)).slots_for(300, 384) == whole
    assert codes.replace(end=codes.end.flip(1)).slots_for(0, 16) == whole > codes.slots_for(0, 16)
    assert codes.part(10, whole).slots_for(300, 384) == whole - 10
    assert codes.part(0, 50).slots_for(300, 384) == 50


def test_a_stage_after_one_with_a_varying_number_of_codes():
    first = zoo.leaves()
    network = body((zoo.CHUNK,), compressor=first)
    length = 4 * first.capacity(zoo.CHUNK)
    network.chunk_networks.append(stage(length, wc.MeanPoolCompressor(count=4)))
    network = network.double()
    values = torch.randn(2, 8, zoo.CHUNK, zoo.DIM, dtype=torch.float64)
    values[:, ::2] = values[:, ::2, :1]  # every other chunk says nothing new
    codes = network(wc.Codes.from_tokens(values.flatten(1, 2)))
    kept = codes.statistics["chunk_networks.0.kept"]
    places = codes.statistics["chunk_networks.1.places"]
    assert torch.equal(places, kept.unflatten(1, (-1, 4)).sum(-1)) and len(kept.unique()) > 1


@pytest.mark.parametrize("window", [None, 4, 8, 100])
@pytest.mark.parametrize("lengths", [(16,), (16, 8)])
def test_steps_of_a_reduce_network_equal_the_whole(window, lengths):
    network = body(lengths, window=window).double()
    codes = tokens(160)
    reduce_network, network.reduce_network = network.reduce_network, torch.nn.Identity()
    made = network(codes)
    whole = reduce_network(made)
    ends = made.end[0].unique().tolist()
    state, outs, first = None, [], 0
    for group in (ends[:1], ends[1:4], ends[4:]):
        count = int((made.end[0] <= group[-1]).sum()) - first
        part = made.replace(
            values=made.values[:, first : first + count],
            **{name: getattr(made, name)[:, first : first + count] for name in wc.Codes.per_slot},
        )
        out, state = reduce_network.step(part, state)
        outs.append(out.values)
        first += count
    torch.testing.assert_close(torch.cat(outs, dim=1), whole.values)
    if window == 4:
        assert state.codes[0].length < 4


def test_a_reduce_network_without_steps_is_named():
    network = body((16,))
    network.reduce_network = wc.ReduceAdapter(network=torch.nn.Identity(), causal=False)
    with pytest.raises(ValueError, match="not causal"):
        network.step(tokens(16))
    with pytest.raises(ValueError, match="causal=False reads the whole sequence"):
        network.reduce_network.step(tokens(16))
    network.reduce_network = torch.nn.Identity()
    network.reduce_network.causal = True
    with pytest.raises(ValueError, match="reduce_network Identity has no step; allowed: ReduceNetwork, ReduceAdapter"):
        network.step(tokens(16))


@pytest.mark.parametrize("foreign, banks", [(False, "one"), (False, "several"), (True, "one")])
@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("steps", [[200], [1] * 70 + [130], [7, 40, 0, 100, 53]])
def test_steps_equal_the_whole(keep, steps, foreign, banks):
    network = body((16, 8, 8), banks=banks, keep=keep, overlap=8)
    if foreign:
        gru = wc.SequenceAdapter(torch.nn.GRU(zoo.DIM, zoo.DIM, batch_first=True))
        network.reduce_network = wc.ReduceAdapter(network=gru, causal=True)
    network = network.double()
    codes = tokens(sum(steps))
    whole = network(codes)
    whole = whole.part(0, int((whole.end[0] < NEVER).sum()))
    state, parts, first = None, [], 0
    for count in steps:
        part, state = network.step(codes.part(first, first + count), state)
        first += count
        parts.append(part)
    made = wc.Codes.join(parts)
    torch.testing.assert_close(made.values, whole.values)
    for name in wc.Codes.per_slot:
        assert torch.equal(getattr(made, name), getattr(whole, name)), name
    span = 16 if keep == "all" else 64
    assert sum(int(part.tokens[0]) for part in parts) == sum(steps) // span * span
    assert [codes.values.shape[1] for codes in state.pending] == [200 % 16, 0, 0]


def test_a_step_makes_the_statistics_of_what_it_read():
    network = body().double()
    part, state = network.step(tokens(40))
    assert part.statistics["chunk_networks.0.kept"].shape == (2, 2)
    assert part.statistics["chunk_networks.1.kept"].shape == (2, 1)
    part, _ = network.step(wc.Codes.from_tokens(torch.randn(2, 3, zoo.DIM).double(), start=40), state)
    assert part.values.shape == (2, 0, zoo.DIM) and not part.statistics and part.tokens.tolist() == [0, 0]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: body((16, 6)),
            r"chunk_networks\[1\] has chunk_length=6, and each chunk of the stage before becomes 4",
        ),
        (lambda: body(keep="first"), "keep='first' is unknown; allowed: 'all' or 'last'"),
        (lambda: body(overlap=-1), "overlap=-1 is negative"),
        (
            lambda: wc.ReduceNetwork(dim=8, heads=2, layers=1, window=None, causal=False).step(tokens(4)),
            "step is for causal networks",
        ),
        (
            lambda: wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, input_pooling=stage(16)).step(tokens(20)),
            "a step brings 20 slots, input_pooling has chunk_length=16",
        ),
        (lambda: tokens(8).replaced_after(0), "span=0"),
        (
            lambda: above(Halves(capacity=3))(tokens(8)),
            r"chunk_networks\[0\] Halves returned 4 slots, expected 6: capacity=3",
        ),
        (lambda: wc.Codes.merge([tokens(4), tokens(4)]).replaced_after(2), "codes of pace"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def model(lengths, **settings):
    return zoo.perturb(
        wc.ChunkReduceLM(
            embedding=nn.Embedding(256, zoo.DIM),
            body=body(lengths, **settings),
            decoder=wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, period=16),
            head=nn.Linear(zoo.DIM, 256),
        )
    ).double()


class Halves(nn.Module):
    """A Chunk-Network of one's own that keeps every other code, and says no more than it has to."""

    causal, chunk_length = True, 4

    def __init__(self, capacity=2):
        super().__init__()
        self.capacity = capacity

    def forward(self, codes):
        fields = {name: getattr(codes, name)[:, 1::2] for name in ("values", *wc.Codes.per_slot)}
        fields["end"] = codes.cut(4).end.repeat_interleave(2, dim=1)
        return wc.Codes(**fields, tokens=codes.tokens)


def above(*chunk_networks, keep="all"):
    return wc.ChunkReduce(
        chunk_networks=chunk_networks,
        reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=6),
        keep=keep,
    )


@pytest.mark.parametrize("keep", ["all", "last"])
def test_a_chunk_network_that_says_nothing_of_its_pace_goes_on_with_that_of_its_chunks(keep):
    pool = wc.ChunkNetwork(chunk_length=8, compressor=wc.MeanPoolCompressor(count=2))
    language_model = zoo.language_model().double().eval()
    language_model.body = above(Halves(), pool, keep=keep).double()
    language_model.decoder = wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, period=4).double()
    zoo.perturb(language_model, std=0.3)
    out = language_model.generate(torch.randint(256, (2, 13)), max_new_tokens=40, temperature=0)
    assert torch.equal(out[:, 13:], language_model(out).argmax(-1)[:, 13:])


@pytest.mark.parametrize("overlap, banks", [(0, "one"), (0, "several"), (20, "one")])
@pytest.mark.parametrize("lengths", [(16,), (16, 8), (16, 8, 8)])
def test_no_stage_leaks_the_future_and_every_stage_is_read(lengths, overlap, banks):
    language_model = model(lengths, overlap=overlap, banks=banks)
    embedded = torch.randn(1, 150, zoo.DIM, dtype=torch.float64, requires_grad=True)
    language_model.embedding = zoo.Given(embedded)
    logits = language_model(torch.zeros(1, 150, dtype=torch.int64))
    for token in (15, 16, 31, 32, 33, 63, 64, 96, 127, 128, 140):
        (gradient,) = torch.autograd.grad(logits[0, token].sum(), embedded, retain_graph=True)
        assert not gradient[0, token:].any(), token
        seen = gradient[0].abs().sum(-1) > 0
        assert seen[:token].all(), (token, seen)


def test_the_end_of_a_long_text_is_read_without_its_beginning():
    language_model = model((16, 8))
    tokens = torch.randint(256, (2, 300))
    whole = language_model(tokens)
    codes = language_model.context(tokens)
    reach = language_model.decoder.reach
    assert reach == 1 + 3 + 2 * 7
    tail = language_model(tokens[:, 200:], codes=codes, start=200)
    torch.testing.assert_close(tail[:, reach:], whole[:, 200 + reach :])
    assert (tail[:, reach - 1] - whole[:, 200 + reach - 1]).abs().max() > 1e-6
    with pytest.raises(ValueError, match="start=200 skips tokens that codes are made of; give codes"):
        language_model(tokens[:, 200:], start=200)


@pytest.mark.parametrize("settings", [{}, {"support_bias": True, "count_scale": True}])
def test_long_texts_are_read_in_blocks(settings, monkeypatch):
    """Whose places look neither at later codes nor at those that were replaced before."""
    language_model = model((16, 8))
    language_model.decoder = zoo.perturb(wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, **settings)).double()
    tokens, lengths = torch.randint(256, (2, 170)), torch.tensor([170, 95])
    embedded, codes = language_model.embedding(tokens), language_model.context(tokens, lengths)
    found = readings(codes, 0, 170, block=32)
    assert [reading.mask.shape[2] for reading in found] == [4, 12, 16, 20, 24, 24]
    whole = language_model.decoder(embedded, codes)
    monkeypatch.setattr(decoder, "readings", lambda *given: readings(*given, block=32))
    blocks = language_model.decoder(embedded, codes)
    torch.testing.assert_close(blocks, whole)
    parameters = [*language_model.parameters()]
    mine, truth = (
        torch.autograd.grad(out.square().sum(), parameters, retain_graph=True, allow_unused=True)
        for out in (blocks, whole)
    )
    torch.testing.assert_close(mine, truth)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_codes_of_a_stream_are_read_as_those_of_the_whole(block):
    """Also where its last piece brought codes of the first stage alone."""
    language_model = model((16, 8)).eval()
    tokens = torch.randint(256, (2, 273))
    codes = wc.StreamingEncoder(language_model, block=block).feed(tokens[:, :272])
    torch.testing.assert_close(language_model(tokens, codes=codes), language_model(tokens))


@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("lengths", [(16,), (16, 8)])
def test_codes_of_the_end_of_a_stream_are_read_as_those_that_they_are(keep, lengths, monkeypatch):
    """Of a second piece, of pieces without codes, and of a stream that begins later."""
    language_model = model(lengths, keep=keep).eval()
    tokens = torch.randint(256, (1, 400))
    monkeypatch.setattr(decoder, "readings", lambda *given: readings(*given, block=64))
    encoder = wc.StreamingEncoder(language_model, block=16)
    encoder.feed(tokens[:, :128])
    further = encoder.feed(tokens[:, 128:])
    later = wc.StreamingEncoder(language_model, start=128)
    pieces = wc.Codes.join([later.feed(piece) for piece in tokens[:, 128:].split([5, 67, 200], dim=1)])
    small = wc.StreamingEncoder(language_model)
    for at in range(0, 384, 16):  # at some edges the second stage makes none
        piece = small.feed(tokens[:, at : at + 16])
        logits = language_model(tokens[:, at:], codes=piece, start=at)
        torch.testing.assert_close(logits, language_model(tokens[:, at:], codes=piece.replace(pace=()), start=at))
    for codes in (further, pieces, wc.StreamingEncoder(language_model, start=128).feed(tokens[:, 128:])):
        all_looked_at = codes.replace(pace=())
        logits = language_model(tokens[:, 128:], codes=codes, start=128)
        torch.testing.assert_close(logits, language_model(tokens[:, 128:], codes=all_looked_at, start=128))


CAUSAL = {
    "GRU": lambda: wc.SequenceAdapter(nn.GRU(zoo.DIM, zoo.DIM, batch_first=True)),
    "Conv1d": lambda: wc.SequenceAdapter(
        nn.Sequential(nn.ConstantPad1d((2, 0), 0), nn.Conv1d(zoo.DIM, zoo.DIM, 3)), channels_first=True
    ),
    "TransformerEncoder": lambda: wc.SequenceAdapter(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(zoo.DIM, 2, 32, dropout=0.0, batch_first=True), 1),
        causal_mask="mask",
    ),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_foreign_modules_plug_in_as_encoder_and_as_reduce_network(name):
    module = CAUSAL[name]()
    chunk_network = wc.ChunkNetwork(chunk_length=16, encoder=module, compressor=zoo.wavelet_compressor())
    reduce_network = wc.ReduceAdapter(network=CAUSAL[name](), causal=True)
    network = wc.ChunkReduce(chunk_networks=[chunk_network, stage(8)], reduce_network=reduce_network).double()
    values = torch.randn(2, 96, zoo.DIM, dtype=torch.float64, requires_grad=True)
    codes = network(wc.Codes.from_tokens(values, torch.tensor([96, 50])))
    assert not codes.values[~codes.mask].any()
    for slot in (0, 9, 20):
        (gradient,) = torch.autograd.grad(codes.values[0, slot, 0], values, retain_graph=True)
        end = int(codes.end[0, slot])
        assert not gradient[0, end:].any() and gradient[0, :end].any() and not gradient[1].any()
    alone = network(wc.Codes.from_tokens(values[1:, :50], torch.tensor([50])))
    count = int(alone.visible(torch.tensor([50]), None)[0, 0].nonzero().max()) + 1
    torch.testing.assert_close(alone.values[0, :count], codes.values[1, :count])


def hugging_face_layers():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=zoo.DIM, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    return wc.SequenceAdapter(transformers.BertModel(config, add_pooling_layer=False).encoder).double().eval()


def test_the_layers_of_a_hugging_face_model_are_an_encoder():
    network = wc.ChunkNetwork(chunk_length=16, encoder=hugging_face_layers(), compressor=zoo.wavelet_compressor())
    codes = wc.Codes.from_tokens(torch.randn(2, 96, zoo.DIM, dtype=torch.float64))
    made, first = network.double()(codes), network(codes.part(0, 48))
    torch.testing.assert_close(made.values[:, : first.values.shape[1]], first.values)
    alone = network(wc.Codes.from_tokens(codes.values[1:]))
    torch.testing.assert_close(made.values[1:], alone.values)


class Named(nn.GRU):
    """A class of one's own that does what its parent does."""


TIME_FIRST = {
    "Named": lambda: Named(zoo.DIM, zoo.DIM),
    "scripted": lambda: torch.jit.script(nn.GRU(zoo.DIM, zoo.DIM)),
    "GRU": lambda: nn.GRU(zoo.DIM, zoo.DIM),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(zoo.DIM, 2, 32),
    "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(zoo.DIM, 2, 32), 1),
    "Sequential": lambda: nn.Sequential(nn.Linear(zoo.DIM, zoo.DIM), nn.TransformerEncoderLayer(zoo.DIM, 2, 32)),
}


@pytest.mark.parametrize("name", TIME_FIRST)
def test_modules_that_would_take_rows_for_time_are_refused(name):
    """Shapes would fit, and each place would read others of later chunks."""
    takers = {
        "encoder": lambda it: wc.ChunkNetwork(chunk_length=16, encoder=it, compressor=zoo.wavelet_compressor()),
        "module": wc.SequenceAdapter,
        "network": lambda it: wc.ReduceAdapter(network=it, causal=True),
    }
    takers["network of a decoder"] = lambda it: wc.ChunkDecoder(chunk_length=16, network=it, head=nn.Identity())
    for argument, take in takers.items():
        with pytest.raises(
            ValueError, match=rf"^{argument.split()[0]} holds a \w+ with batch_first=False, .* turns the axes$"
        ):
            take(TIME_FIRST[name]())
    adapter = wc.SequenceAdapter(nn.Identity())
    with pytest.raises(ValueError, match="batch_first=False"):
        adapter.module = TIME_FIRST[name]()


def test_a_class_of_ones_own_may_turn_its_axes_itself():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(zoo.DIM, zoo.DIM)

        def forward(self, x):
            return self.gru(x.transpose(0, 1))[0].transpose(0, 1)

    class Turn(nn.Module):
        def forward(self, x):
            return x.transpose(0, 1)

    layer = nn.TransformerEncoderLayer(zoo.DIM, 2, 32, dropout=0.0)
    codes = wc.Codes.from_tokens(torch.randn(2, 32, zoo.DIM))
    for encoder in (Turned(), nn.Sequential(Turn(), layer, Turn()), torch.jit.script(nn.Linear(zoo.DIM, zoo.DIM))):
        network = wc.ChunkNetwork(chunk_length=16, encoder=encoder, compressor=zoo.wavelet_compressor())
        torch.testing.assert_close(network(codes).values[1:], network(wc.Codes.from_tokens(codes.values[1:])).values)


class Shorter(nn.Module):
    """One place fewer than it was given."""

    causal = True

    def __init__(self, embedding=None):
        super().__init__()
        self.embedding = embedding

    def forward(self, x, codes=None):
        return (x if self.embedding is None else self.embedding(x))[:, :-1]


class Pair(nn.Module):
    """Two things in place of one."""

    def forward(self, x):
        return x, x


class Bare(wc.Compressor):
    """Values in place of Codes."""

    def capacity(self, chunk_length):
        return 4

    def forward(self, codes):
        return codes.values


def test_parts_that_return_something_else_are_named():
    tokens, compressor = torch.randint(256, (2, 40)), zoo.wavelet_compressor()
    plain = model((16,))
    for name, part in (("embedding", Shorter(plain.embedding)), ("decoder", Shorter())):
        parts = {key: getattr(plain, key) for key in ("embedding", "body", "decoder", "head")}
        broken = wc.ChunkReduceLM(**parts | {name: part})
        with pytest.raises(ValueError, match=rf"^{name} Shorter returned shape \(2, 39, 16\), expected \(2, 40, dim\)"):
            broken(tokens)
    parts = {key: getattr(plain, key) for key in ("embedding", "body", "decoder", "head")}
    with pytest.raises(ValueError, match=r"^embedding Pair returned a tuple, expected \(2, 40, dim\)"):
        wc.ChunkReduceLM(**parts | {"embedding": Pair()})(tokens)
    bare = Bare()
    bare.chunk_length = 16
    with pytest.raises(ValueError, match="^body Bare returned a Tensor, expected Codes"):
        wc.ChunkReduceLM(**parts | {"body": bare})(tokens)
    codes = wc.Codes.from_tokens(torch.randn(2, 32, zoo.DIM))
    with pytest.raises(ValueError, match="^compressor Bare returned a Tensor, expected Codes"):
        wc.ChunkNetwork(chunk_length=16, compressor=Bare())(codes)
    network = wc.ChunkNetwork(chunk_length=16, compressor=compressor)
    with pytest.raises(ValueError, match="^reduce_network Bare returned a Tensor, expected Codes"):
        wc.ChunkReduce(chunk_networks=[network], reduce_network=Bare())(codes)


def test_wrong_shapes_of_foreign_modules_are_named():
    with pytest.raises(ValueError, match=r"module Linear returned shape \(2, 8, 3\), expected \(2, 8, 16\)"):
        wc.SequenceAdapter(nn.Linear(zoo.DIM, 3))(torch.randn(2, 8, zoo.DIM))
    with pytest.raises(ValueError, match=r"network Linear returned shape \(2, 8, 3\), expected \(2, 8, 16\)"):
        wc.ReduceAdapter(network=nn.Linear(zoo.DIM, 3), causal=True)(wc.Codes.from_tokens(torch.randn(2, 8, zoo.DIM)))


def test_a_wavelet_stage_after_one_with_a_varying_number_of_codes():
    first = body((zoo.CHUNK,), compressor=zoo.leaves()).chunk_networks[0]
    length = 2 * first.capacity
    wavelet = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(length))
    second = wc.ChunkNetwork(chunk_length=length, compressor=wavelet).double()
    values = torch.randn(2, 8, zoo.CHUNK, zoo.DIM, dtype=torch.float64)
    values[:, ::3] = values[:, ::3, :1]
    fine = first.double()(wc.Codes.from_tokens(values.flatten(1, 2)))
    coarse = second(fine)
    short = fine.cut(length).lengths
    assert ((short > 0) & (short < length)).sum(-1).max() > 1  # several short chunks in a row
    for chunk in range(4):
        alone = second(fine.part(chunk * length, (chunk + 1) * length))
        part = coarse.part(chunk * length, (chunk + 1) * length)
        torch.testing.assert_close(alone.values, part.values)
        assert torch.equal(alone.mask, part.mask) and torch.equal(alone.end, part.end)
    back = wavelet.expand(coarse, fine.cut(length))
    expected = nn.functional.rms_norm(fine.cut(length).values, (zoo.DIM,))
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=0)


def test_a_foreign_reduce_network_takes_a_text_without_codes():
    gru = wc.SequenceAdapter(nn.GRU(zoo.DIM, zoo.DIM, batch_first=True))
    network = wc.ReduceAdapter(network=gru, causal=True).double()
    empty = tokens(4).part(0, 0)
    made = network(empty)
    assert made.values.shape == empty.values.shape
    made.values.sum().backward()  # distributed training waits for all of them
    assert all(p.grad is not None for p in network.parameters())


def test_a_foreign_network_that_is_told_of_empty_slots_answers_alike_in_any_company():
    layer = nn.TransformerEncoderLayer(zoo.DIM, 2, 32, batch_first=True, dropout=0.0)
    adapter = wc.SequenceAdapter(layer, padding_mask="src_key_padding_mask")
    network = wc.ReduceAdapter(network=adapter, causal=False)
    x = torch.randn(3, 12, zoo.DIM)
    together = network(wc.Codes.from_tokens(x, torch.tensor([5, 12, 0])))
    alone = network(wc.Codes.from_tokens(x[:1, :5]))
    torch.testing.assert_close(together.values[:1, :5], alone.values)
    assert torch.isfinite(together.values).all()
    adapter.padding_mask = None
    assert not torch.allclose(network(wc.Codes.from_tokens(x, torch.tensor([5, 12, 0]))).values[:1, :5], alone.values)
