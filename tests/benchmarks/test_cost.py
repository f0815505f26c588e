"""The cost of compression is measured against steps that differ in nothing else."""

import pytest
import torch
from reading_tables import rows

import wavecomp as wc
from wavecomp.benchmarks import cost, models
from wavecomp.benchmarks.measure import Options


def test_it_runs_and_has_a_share_for_all_but_the_stride():
    runs = cost.run(Options(small=True, repeats=2))
    assert [run["compressor"] for run in runs] == list(cost.models())
    assert all(len(run["seconds"]) == 2 and min(run["seconds"]) > 0 for run in runs)
    assert [run["compressor"] for run in runs if run["alone"] is None] == [cost.STRIDE]
    assert len(rows(cost.table(runs))) == len(runs) == 8


def test_the_stride_makes_as_many_codes_under_the_same_marks_and_passes_gradients():
    full, least, *_ = cost.models().values()
    tokens = models.random_bytes(2, 300)
    with torch.no_grad():
        own = full.body.chunk_networks[0](wc.Codes.from_tokens(full.embedding(tokens)))
    embedded = least.embedding(tokens).detach().requires_grad_()
    codes = least.body.chunk_networks[0](wc.Codes.from_tokens(embedded))
    for name in wc.Codes.per_slot:
        assert torch.equal(getattr(codes, name), getattr(own, name)), name
    codes.values[:, :8].sum().backward()
    assert (embedded.grad[:, :64] != 0).any() and not embedded.grad[:, 64:].any()


def test_models_differ_in_their_compressor_alone():
    found = cost.models()
    assert {type(model.body.chunk_networks[0].compressor) for model in found.values()} == {
        wc.WaveletCompressor,
        wc.MeanPoolCompressor,
        wc.DyadicLeaves,
        wc.PartialSynthesis,
        cost.Stride,
    }
    others = [
        {name: value.shape for name, value in model.state_dict().items() if ".compressor." not in name}
        for model in found.values()
    ]
    assert len(others) == 8 and all(other == others[0] for other in others)
    predicted = found[cost.PREDICTED].body.chunk_networks[0].compressor
    models.step_of(found[cost.PREDICTED])(torch.randint(256, (1, 256)))
    assert all(p.grad is not None for p in predicted.predictor.parameters())
    found[cost.PREDICTED].zero_grad()
    cost._alone(found[cost.PREDICTED], torch.randint(256, (1, 256)))()
    assert all(p.grad is not None for p in predicted.predictor.parameters())
    lattice = found["learned db4 lattice"].body.chunk_networks[0].compressor
    assert lattice.transform.level == 3 and any(p.requires_grad for p in lattice.transform.parameters())


def test_shares_are_taken_pair_by_pair():
    def entry(name, seconds, alone):
        return {"compressor": name, "seconds": seconds, "alone": alone, "seed": 0}

    runs = [entry("haar", [1.0, 2.0, 4.0], [0.1, 0.4, 0.4]), entry(cost.STRIDE, [0.9, 1.5, 3.6], None)]
    assert rows(cost.table(runs)) == [
        ["haar", "2,000.0", "10.0% (10.0% to 20.0%)", "10.0% (10.0% to 25.0%)"],
        ["stride", "1,500.0", "", ""],
    ]


@pytest.mark.parametrize("stages, spans", [(models.quickstart, (64,)), (models.two_stages, (64, 256))])
def test_the_second_stage_comes_on_top_of_the_recipe(stages, spans):
    model = stages().eval()
    assert model.body.spans == spans and model.decoder.dim == 128
    assert model(torch.randint(256, (1, 600))).shape == (1, 600, 256)
