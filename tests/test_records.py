import pytest
import torch
from torch.utils import _pytree as pytree

import wavecomp as wc


def codes():
    return wc.Codes.from_tokens(torch.randn(2, 5, 3), torch.tensor([5, 3]))


def test_pytree_round_trip_keeps_every_field():
    before = codes().replace(losses={"ratio": torch.tensor(1.0)})
    leaves, tree = pytree.tree_flatten(before)
    after = pytree.tree_unflatten(leaves, tree)
    assert len(leaves) == 12 and torch.equal(after.values, before.values) and after.losses == before.losses
    assert after.dense == before.dense
    doubled = pytree.tree_map(lambda x: x * 2, before)
    assert torch.equal(doubled.end, before.end * 2)


def test_to_moves_everything_and_casts_only_floating_point():
    moved = codes().to("meta", torch.float64)
    assert moved.values.device.type == "meta" and moved.values.dtype == torch.float64
    assert moved.end.dtype == torch.int64 and moved.mask.dtype == torch.bool and moved.tokens.device.type == "meta"
    layout = wc.DWT1d("haar", level=1).layout(4).to(torch.float64)
    assert layout.names == ("cA1", "cD1") and layout.position.dtype == torch.float32  # where it lies stays as it was


def test_a_dtype_leaves_measures_as_exact_as_they_were():
    before = wc.Codes.from_tokens(torch.randn(1, 8, 3), start=1_000_001)
    for codes in (before.to(torch.bfloat16), before.cut(4).to(torch.bfloat16)):
        assert codes.values.dtype == torch.bfloat16
        assert codes.position.flatten().tolist() == list(range(1_000_001, 1_000_009))
    assert before.to(torch.bfloat16).frequency.dtype == torch.float32
    with pytest.raises(TypeError, match="Codes.to: dtype=torch.int64; allowed: floating point"):
        before.to(torch.int64)
    assert before.to("cpu").dense and before.to("cpu").pace == before.pace


def test_records_are_frozen_and_checked():
    with pytest.raises(AttributeError):
        codes().values = torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"Codes: end has shape \(2, 4\), expected \(2, 5\)"):
        codes().replace(end=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"Codes: values has shape \(2, 5\), expected \(batch, slots, dim\)"):
        codes().replace(values=torch.zeros(2, 5))
    bands = wc.DWT1d("haar", level=1)(torch.randn(1, 2, 4, 3))
    with pytest.raises(ValueError, match="the layout names 4 coefficients, values have 5"):
        bands.replace(values=torch.zeros(1, 2, 5, 3))
    chunks = codes().cut(2)
    with pytest.raises(ValueError, match=r"Chunks: end has shape \(2, 2\), expected \(2, 3\)"):
        chunks.replace(end=torch.zeros(2, 2))


def test_a_record_tells_shapes_and_not_thousands_of_numbers():
    told = repr(codes().replace(statistics={"kept": torch.zeros(2, 1)}))
    assert told.startswith("Codes(values=float32(2, 5, 3), mask=bool(2, 5), position=") and "\n" not in told
    assert "statistics={'kept': float32(2, 1)}" in told
    assert "values=float32(2, 5, 3) on meta" in repr(codes().to("meta"))
    assert "names=('cA1', 'cD1')" in repr(wc.DWT1d("haar", level=1).layout(4))
