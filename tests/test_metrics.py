import math

import pytest
import torch

import wavecomp as wc
from wavecomp.metrics import BitsPerByte, CompressionRatio, ContextGain, ExactMean


def test_bits_per_byte_is_a_mean_over_bytes_not_over_batches():
    metric = BitsPerByte()
    metric.update(torch.full((1, 3), math.log(2)))
    metric.update(torch.full((2, 8), 3 * math.log(2)), torch.arange(8).expand(2, 8) < torch.tensor([[8], [1]]))
    assert float(metric.compute()) == pytest.approx((3 * 1 + 9 * 3) / 12)


def test_masked_bytes_may_be_anything():
    metric = BitsPerByte()
    metric.update(torch.tensor([[math.log(2), torch.nan]]), torch.tensor([[True, False]]))
    assert float(metric.compute()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1\), nats \(1, 2\)"):
        metric.update(torch.zeros(1, 2), torch.ones(1, 1) > 0)


def test_tokens_of_several_bytes_count_as_many():
    nats, size = torch.full((1, 3), 6 * math.log(2)), torch.tensor([[1, 2, 9]])
    metric, gain = BitsPerByte(), ContextGain()
    metric.update(nats, size < 9, size)
    gain.update(nats, 2 * nats, size < 9, size)
    assert float(metric.compute()) == pytest.approx(12 / 3) and float(gain.compute()) == pytest.approx(12 / 3)


def test_context_gain_is_hidden_minus_seen_and_resets():
    metric = ContextGain()
    for _ in range(2):
        metric.update(torch.full((1, 4), math.log(2)), torch.full((1, 4), 3 * math.log(2)))
        assert float(metric.compute()) == pytest.approx(2.0)
        metric.reset()
    metric.update(torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(metric.compute()) == 0.0


def test_metrics_called_step_by_step_remember_all_steps():
    metric = ContextGain()
    for gain in (1, 3):
        step = metric(torch.zeros(1, 2), torch.full((1, 2), gain * math.log(2)))
        assert float(step) == pytest.approx(gain)
    assert float(metric.compute()) == pytest.approx(2.0)


def test_ratio_is_sum_over_sum():
    metric = CompressionRatio()
    network = wc.ChunkNetwork(chunk_length=8, compressor=wc.MeanPoolCompressor(count=2))
    metric.update(network(wc.Codes.from_tokens(torch.randn(1, 80, 4))))
    metric.update(wc.Codes.from_tokens(torch.randn(1, 20, 4)))
    assert float(metric.compute()) == pytest.approx(100 / 40)


@pytest.mark.parametrize("metric", [BitsPerByte(), ContextGain()])
def test_no_batch_is_lost_beside_a_large_sum(metric):
    def update(nats):
        metric.update(*((torch.zeros(1, 1), nats) if isinstance(metric, ContextGain) else (nats,)))

    update(torch.full((1, 1), 2.0**24))
    for _ in range(1000):
        update(torch.ones(1, 1))
    assert float(metric.compute()) * 1001 * math.log(2) == pytest.approx(2**24 + 1000, abs=2)
    update(torch.full((1, 1), math.inf))
    assert float(metric.compute()) == math.inf


def test_sizes_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"bytes: size has shape \(2, 1\), expected \(2, 4\)"):
        BitsPerByte().update(torch.ones(2, 4), size=torch.ones(2, 1))


def test_a_gain_of_other_places_is_named():
    with pytest.raises(ValueError, match=r"hidden has shape \(2, 1\), expected \(2, 4\)"):
        ContextGain().update(torch.ones(2, 4), torch.ones(2, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_sums_keep_their_type_where_a_model_is_cast(dtype):
    metrics = torch.nn.ModuleList([BitsPerByte(), ContextGain(), ExactMean()]).to(dtype)
    bits, gain, mean = metrics
    for _ in range(20):
        bits.update(torch.full((16, 1024), 8 * math.log(2)))
        gain.update(torch.zeros(16, 1024), torch.full((16, 1024), 8 * math.log(2)))
        mean.update(torch.full((600,), 0.25))
    for metric, value in ((bits, 8.0), (gain, 8.0), (mean, 0.25)):
        assert float(metric.compute()) == pytest.approx(value, rel=1e-4) and metric.compute().dtype == torch.float32
        metric.reset()
    bits.update(torch.ones(1, 1))
    assert bits.nats.dtype == torch.float32
    assert bits.set_dtype(torch.float64).nats.dtype == torch.float64
