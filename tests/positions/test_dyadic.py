import pytest
import torch
import zoo

import wavecomp as wc
from wavecomp.positions import DyadicPositionCode
from wavecomp.positions.dyadic import quantise, straight_through


def haar_codes(count=16, chunks=3, transform=None):
    """All coefficients of every chunk: averages and details of several levels."""
    compressor = wc.WaveletCompressor(transform=transform or wc.DWT1d("haar", level=3), pruner=wc.KeepLowpass(count))
    return compressor(wc.Codes.from_tokens(torch.randn(2, chunks * count, zoo.DIM)).cut(count))


def two_stages():
    first = wc.ChunkNetwork(chunk_length=16, compressor=wc.MeanPoolCompressor(count=4))
    second = wc.ChunkNetwork(
        chunk_length=8,
        compressor=wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(8)),
    )
    return second(first(wc.Codes.from_tokens(torch.randn(1, 128, zoo.DIM))))


SEQUENCES = {
    "haar": (lambda: haar_codes(), 16),
    "odd-length": (lambda: haar_codes(21), 21),
    # long filters: centres lie far from the blocks that their indices name, and some coincide
    "db4": (lambda: haar_codes(64, transform=wc.DWT1d("db4", level=4)), 64),
    "packets": (lambda: haar_codes(32, transform=wc.WaveletPackets1d("haar", level=3)), 32),
    "two-dimensional": (lambda: haar_codes(32, transform=wc.DWT2d("haar", level=2)), 32),
    "groups-of-6": (
        lambda: wc.MeanPoolCompressor(count=11)(wc.Codes.from_tokens(torch.randn(1, 200, zoo.DIM)).cut(64)),
        64,
    ),
    "two-stages": (two_stages, 32),
    "tokens": (lambda: wc.Codes.from_tokens(torch.randn(1, 32, zoo.DIM)), 32),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_codes_have_paths_of_their_own(name):
    make, chunk_length = SEQUENCES[name]
    codes = make()
    paths = DyadicPositionCode(zoo.DIM, chunk_length=chunk_length).path(codes)
    for row, mask in zip(paths, codes.mask):
        assert len(set(map(tuple, row[mask].tolist()))) == int(mask.sum())


def test_a_path_leads_from_the_whole_chunk_down_to_the_block_of_the_code():
    codes = haar_codes()
    parts = DyadicPositionCode(zoo.DIM, chunk_length=16).parts(codes)
    layout = wc.DWT1d("haar", level=3).layout(16)
    for slot in range(codes.values.shape[1]):
        within, chunk = slot % 16, slot // 16
        level, place = int(layout.level[within]), int(layout.index[within])
        bits = [(place >> k) & 1 for k in range(3 - level, -1, -1)]
        assert parts["place"][0, slot].tolist() == bits + [-1] * level
        detail = int(layout.band[within] > 0)
        assert parts["frequency"][0, slot].tolist() == [detail] + [0] * (level - 1) + [-1] * (4 - level)
        number = [(chunk >> k) & 1 for k in range(chunk.bit_length())]
        assert parts["chunk"][0, slot].tolist() == number + [-1] * (parts["chunk"].shape[-1] - len(number))
        number = [(within >> k) & 1 for k in range(within.bit_length())]
        assert parts["index"][0, slot].tolist() == number + [-1] * (5 - len(number))


def test_a_path_names_packets_by_their_frequency():
    codes = haar_codes(32, transform=wc.WaveletPackets1d("haar", level=3))
    frequency = DyadicPositionCode(zoo.DIM, chunk_length=32).parts(codes)["frequency"][0, :32]
    assert (frequency[:, :3] @ torch.tensor([1, 2, 4])).tolist() == [band for band in range(8) for _ in range(4)]
    assert (frequency[:, 3:] == -1).all()


@pytest.mark.parametrize("length", range(2, 129))
def test_frequencies_on_the_edge_of_a_band_are_not_rounded_below_it(length):
    codes = wc.DCTCompressor(count=length)(wc.Codes.from_tokens(torch.randn(1, length, zoo.DIM)).cut(length))
    encoding = DyadicPositionCode(zoo.DIM, chunk_length=length)
    frequency = encoding.parts(codes)["frequency"][0, :length]
    told = (frequency.clamp(min=0) << torch.arange(encoding.levels)).sum(-1)
    assert told.tolist() == [band % 2 ** int(level) for band, level in enumerate(codes.level[0])]


def test_second_stages_are_told_in_tokens():
    parts = DyadicPositionCode(zoo.DIM, chunk_length=32).parts(codes := two_stages())
    # two averages of 16 tokens, their details, and four details of 8 tokens
    assert codes.level[0, :8].tolist() == [4, 4, 4, 4, 3, 3, 3, 3]
    assert parts["place"][0, [1, 5, 6]].tolist() == [[1, -1, -1, -1, -1], [0, 1, -1, -1, -1], [1, 0, -1, -1, -1]]


def marks(encoding, codes):
    return encoding(codes.replace(values=torch.zeros_like(codes.values))).values


@pytest.mark.parametrize("bits", [1, 3, 8, None])
def test_a_mark_depends_on_the_path_of_its_code_alone(bits):
    codes = haar_codes()
    encoding = zoo.perturb(DyadicPositionCode(zoo.DIM, chunk_length=16, bits=bits)).double()
    whole = marks(encoding, codes.to(torch.float64))
    assert torch.equal(whole[0], whole[1])  # equal codes
    assert torch.cdist(whole[0], whole[0]).fill_diagonal_(1).min() > 1e-3  # different ones
    order = torch.randperm(whole.shape[1])
    shuffled = codes.to(torch.float64).replace(
        values=torch.randn(codes.values.shape, dtype=torch.float64).requires_grad_(),
        **{name: getattr(codes, name)[:, order] for name in codes.per_slot},
    )
    out = encoding(shuffled).values
    torch.testing.assert_close(out - shuffled.values, whole[:, order], rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(out.sum(), shuffled.values)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_empty_slots_stay_zero():
    some = wc.Codes.from_tokens(torch.randn(1, 4, 8), torch.tensor([2]))
    assert not zoo.perturb(DyadicPositionCode(8, chunk_length=4))(some).values[:, 2:].any()
    assert DyadicPositionCode(8, chunk_length=1)(some.replace(mask=some.mask)).values.isfinite().all()
    assert DyadicPositionCode(8, chunk_length=4)(wc.Codes.from_tokens(torch.randn(1, 0, 8))).values.shape == (1, 0, 8)


def in_chunk(number):
    return wc.Codes.from_tokens(torch.zeros(1, len(number), zoo.DIM)).replace(
        chunk=torch.tensor([number]),
        index=torch.zeros(1, len(number), dtype=torch.int64),
        position=torch.zeros(1, len(number)),
    )


def test_far_chunks_are_bounded_by_the_vectors():
    encoding = zoo.perturb(DyadicPositionCode(zoo.DIM, chunk_length=16, bits=None, depth=3), std=1.0)
    far = in_chunk([0, 7, 8, 9, 15, 16, 127, 2**20 + 1, 2**40 + 5, 2**62 + 3, 2**62 - 1])
    out = marks(encoding, far)[0]
    largest = encoding.vectors.norm(dim=-1).amax(-1)
    assert torch.isfinite(out).all()
    assert ((out - out[0]).norm(dim=-1) <= largest[:4].sum()).all()
    # what lies above the bits of their own stays within one pair of vectors
    seven = in_chunk([7, *(7 + (high << 3) for high in (1, 2, 3, 2**20 - 1, 2**50))])
    beyond = marks(encoding, seven)[0]
    assert ((beyond - beyond[0]).norm(dim=-1) <= largest[3] + 1e-5).all()
    assert torch.cdist(beyond[1:5], beyond[1:5]).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("bits", [1, 4, None])
def test_chunk_bits_that_training_never_saw_add_nothing(bits):
    encoding = DyadicPositionCode(zoo.DIM, chunk_length=16, bits=bits)
    optimizer = torch.optim.AdamW(encoding.parameters(), lr=1e-2, weight_decay=0.1)
    trained, wanted = in_chunk(list(range(8))), torch.randn(1, 8, zoo.DIM)
    for _ in range(30):
        optimizer.zero_grad()
        (marks(encoding, trained) - wanted).square().mean().backward()
        optimizer.step()
    assert encoding.vectors[:3].abs().amax((1, 2)).min() > 0.05
    assert not encoding.vectors[3:9].any()
    near, far = marks(encoding, trained)[0], marks(encoding, in_chunk(list(range(128))))[0]
    torch.testing.assert_close(far[:8], near)
    # sixteen times as long: chunks with a leading one that was seen repeat what was learned
    torch.testing.assert_close(far.view(16, 8, -1)[1:, 4:], near[4:].expand(15, -1, -1))
    assert far.norm(dim=-1).max() < 2 * near.norm(dim=-1).max()


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_stored_vector_has_few_levels_and_is_what_is_used(bits):
    encoding = zoo.perturb(DyadicPositionCode(300, chunk_length=16, bits=bits))
    integers, scales = encoding.packed()
    assert integers.dtype == torch.int8 and integers.shape == encoding.vectors.shape
    assert scales.shape == (*encoding.vectors.shape[:2], 1)
    used = straight_through(encoding.vectors, bits)
    assert torch.equal(used, integers * scales)
    for vector in used.flatten(0, 1):
        assert len(vector.unique()) <= 2**bits
    error = (used - encoding.vectors).abs()
    if bits == 1:
        torch.testing.assert_close(used.abs(), encoding.vectors.abs().mean(-1, keepdim=True).expand_as(used))
    else:
        assert (error <= scales / 2 * (1 + 1e-5)).all()
        torch.testing.assert_close(used.abs().amax(-1), encoding.vectors.abs().amax(-1))
    pairs = encoding.vectors.shape[0]
    assert encoding.bytes_stored == pairs * 2 * 300 * bits // 8 + 4 * pairs * 2


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_the_gradient_of_the_quantiser_is_that_of_the_identity(bits):
    codes, upstream = haar_codes(), torch.randn(2, 48, zoo.DIM)
    gradients = []
    for width in (bits, None):
        encoding = DyadicPositionCode(zoo.DIM, chunk_length=16, bits=width)
        (encoding(codes).values * upstream).sum().backward()
        gradients.append(encoding.vectors.grad)
    assert torch.equal(*gradients) and gradients[0].any()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((straight_through(x, bits) * 3).sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 3))


def test_vectors_of_zero_are_stored_as_zero():
    for bits in (1, 2, 8):
        integers, scales = quantise(torch.zeros(2, 4), bits)
        assert not (integers * scales).any() and torch.isfinite(scales).all()


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_close(dtype, bound):
    codes, encoding = haar_codes(), zoo.perturb(DyadicPositionCode(zoo.DIM, chunk_length=16))
    exact = encoding(codes).values
    with torch.autocast("cpu", dtype):
        mixed = encoding(codes).values
    half = encoding.to(dtype)(codes.replace(values=codes.values.to(dtype))).values
    assert half.dtype == dtype and mixed.dtype == torch.float32
    for other in (mixed, half):
        assert (other.float() - exact).abs().max() <= bound * exact.abs().max()


def test_it_compiles_without_a_graph_break():
    codes, encoding = haar_codes(), zoo.perturb(DyadicPositionCode(zoo.DIM, chunk_length=16, bits=4))
    torch._dynamo.reset()
    compiled = torch.compile(encoding, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(codes).values, encoding(codes).values)
    compiled(codes).values.sum().backward()
    assert encoding.vectors.grad.any()


def test_a_causal_model_takes_it():
    pool = wc.MeanPoolCompressor(count=4, encoding=DyadicPositionCode(zoo.DIM, chunk_length=zoo.CHUNK, bits=2))
    model = zoo.perturb(zoo.language_model(pool)).double()
    tokens = torch.randint(256, (2, 53))
    full = model(tokens)
    for length in (1, 16, 17, 40):
        torch.testing.assert_close(model(tokens[:, :length]), full[:, :length], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": 0}, "bits=0 cannot be stored; allowed: 1 to 8, or None"),
        ({"bits": 9}, "bits=9 cannot be stored"),
        ({"dim": 0}, "dim=0, chunk_length=16, depth=8; allowed: 1 and above"),
        ({"chunk_length": 0}, "chunk_length=0"),
        ({"depth": 0}, "depth=0"),
        ({"depth": 33}, "depth=33; allowed: 1 and above, depth to 32"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DyadicPositionCode(**{"dim": 8, "chunk_length": 16, **arguments})


def test_full_precision_is_not_packed():
    encoding = DyadicPositionCode(8, chunk_length=16, bits=None)
    assert encoding.bytes_stored == 4 * encoding.vectors.numel()
    with pytest.raises(ValueError, match="bits=None stores no integers"):
        encoding.packed()
