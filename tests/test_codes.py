import pytest
import torch

import wavecomp as wc
from wavecomp.pace import NEVER


def test_tokens_are_codes_of_themselves():
    codes = wc.Codes.from_tokens(torch.randn(2, 5, 3), torch.tensor([5, 3]), start=10)
    assert codes.position[0].tolist() == [10, 11, 12, 13, 14]
    assert codes.end[0].tolist() == [11, 12, 13, 14, 15]
    assert codes.until.unique().tolist() == [NEVER] and codes.level.unique().tolist() == [0]
    assert codes.mask.sum(-1).tolist() == [5, 3] and codes.tokens.tolist() == [5, 3]
    assert float(codes.ratio) == 1.0


def test_padding_is_not_read():
    values = torch.full((1, 4, 2), torch.nan)
    values[:, :2] = 1
    codes = wc.Codes.from_tokens(values, torch.tensor([2]))
    assert codes.values.sum() == 4 and codes.cut(3).values.sum() == 4


def test_the_rule_of_end():
    codes = wc.Codes.from_tokens(torch.randn(1, 3, 2))
    codes = codes.replace(until=torch.tensor([[2, NEVER, NEVER]]))
    visible = codes.visible(torch.arange(5))[0]
    assert visible.int().tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 1, 1]]
    assert not codes.hidden().visible(torch.arange(5)).any()
    assert torch.isinf(codes.hidden().ratio)


def test_cut_marks_short_chunks():
    chunks = wc.Codes.from_tokens(torch.randn(2, 7, 2), torch.tensor([7, 4])).cut(4)
    assert chunks.lengths.tolist() == [[4, 3], [4, 0]]
    assert chunks.end.tolist() == [[4, NEVER], [4, NEVER]]
    assert chunks.mask.sum().item() == 11 and not chunks.dense
    assert wc.Codes.from_tokens(torch.randn(2, 8, 2)).cut(4).dense
    with pytest.raises(ValueError, match="chunk_length=0 is too small"):
        wc.Codes.from_tokens(torch.randn(2, 8, 2)).cut(0)


def test_holes_go_to_the_end_of_their_chunk():
    codes = wc.Codes.from_tokens(torch.arange(1.0, 7).view(1, 6, 1))
    mask = torch.tensor([[True, False, True, True, False, True]])
    chunks = codes.replace(mask=mask, values=codes.values * mask[..., None]).cut(2)
    assert chunks.lengths.tolist() == [[1, 2, 1]]
    assert chunks.values[0, :, :, 0].tolist() == [[1, 0], [3, 4], [6, 0]]
    assert chunks.end[0].tolist() == [2, 4, 6]  # known without a look at what the slots hold


def test_a_million_tokens_on_positions_are_as_exact_as_at_the_beginning():
    """Also those of long filters, whose centres lie between tokens."""
    compressor = wc.WaveletCompressor(transform=wc.DWT1d("db4", level=3), pruner=wc.KeepLowpass(8))
    network, values = wc.ChunkNetwork(chunk_length=64, compressor=compressor), torch.randn(1, 128, 16)
    far = 64 * 15_625
    near, there = (network(wc.Codes.from_tokens(values, start=start)).position.double() for start in (0, far))
    assert (near % 0.25).any() and (there - near - far).abs().max() < 1e-6


def test_pack_lays_rows_one_after_another():
    codes = wc.Codes.from_tokens(torch.arange(8.0).view(2, 4, 1), torch.tensor([3, 2]))
    values, starts = codes.pack()
    assert values[:, 0].tolist() == [0, 1, 2, 4, 5] and starts.tolist() == [0, 3, 5] and starts.dtype == torch.int32


def test_a_second_stage_measures_in_tokens():
    first = wc.ChunkNetwork(
        chunk_length=8, compressor=wc.WaveletCompressor(transform=wc.DWT1d("haar", level=1), pruner=wc.KeepLowpass(4))
    )
    codes = first(first(wc.Codes.from_tokens(torch.randn(1, 32, 4))))
    assert codes.position[0].tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert codes.support.unique().tolist() == [4.0] and codes.end[0].tolist() == [16] * 4 + [32] * 4
    assert codes.tokens.tolist() == [32] and float(codes.ratio) == 4.0
    assert codes.frequency.unique().tolist() == [1 / 16] and codes.level.unique().tolist() == [2]


def test_losses_of_stages_add_up():
    chunks = wc.Codes.from_tokens(torch.randn(1, 8, 2)).replace(losses={"rate": torch.tensor(1.0)}).cut(4)
    slots = torch.zeros(1, 2, 1)
    codes = chunks.codes(
        torch.zeros(1, 2, 1, 2),
        mask=slots == 0,
        position=slots,
        support=slots + 4,
        frequency=slots + 0.1,
        level=slots.long(),
        index=slots.long(),
        losses={"rate": torch.tensor(2.0), "other": torch.tensor(5.0)},
    )
    assert {name: float(value) for name, value in codes.losses.items()} == {"rate": 3.0, "other": 5.0}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wc.Codes.from_tokens(torch.randn(2, 5)), r"embeddings has shape \(2, 5\)"),
        (
            lambda: wc.Codes.from_tokens(torch.randn(2, 5, 1), torch.tensor([5])),
            r"lengths has shape \(1,\), expected \(2,\)",
        ),
        (lambda: wc.Codes.from_tokens(torch.randn(1, 5, 1), torch.tensor([6])), "lengths holds 6; allowed: 0 to 5"),
        (lambda: wc.Codes.from_tokens(torch.randn(1, 5, 1), torch.tensor([-1])), "lengths holds -1; allowed: 0 to 5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
