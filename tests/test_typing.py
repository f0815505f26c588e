"""What a type checker knows of the public names, in the strictest program."""

import sys

import pytest

PROGRAM = """
import torch
import wavecomp as wc

wavelet = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
network = wc.ChunkNetwork(chunk_length=16, encoder=torch.nn.GELU(), compressor=wavelet)
body = wc.ChunkReduce(chunk_networks=[network], reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1))
tokens = wc.Codes.from_tokens(torch.randn(1, 40, 8))
reveal_type(network(tokens))
reveal_type(body(tokens).ratio)
reveal_type(wavelet(tokens.cut(16)).to("cpu").replace(mask=tokens.mask))
model = wc.ChunkReduceClassifier(embedding=torch.nn.Embedding(256, 8), body=body, head=torch.nn.Linear(8, 2))
reveal_type(model(torch.zeros(1, 40, dtype=torch.int64)))
reveal_type(wc.ChunkReduceClassifier.from_pretrained("folder"))
reveal_type(wc.load("folder"))
reveal_type(wc.load_codes("codes.safetensors"))
reveal_type(wc.DWT1d("haar", level=2)(torch.randn(1, 16, 8)))
reveal_type(wc.training.RatioMonitor(steps=3))
reveal_type(wc.plots.plot_filter_bank(wc.OrthogonalFilterBank("db2")))


class Mine(wc.Module):
    def __init__(self, *, dim: int) -> None:
        super().__init__()


reveal_type(Mine(dim=3))
wc.DWT1d("haar", lvel=2)
"""
REVEALED = [
    "wavecomp.codes.Codes",
    "torch._tensor.Tensor",
    "wavecomp.codes.Codes",
    "torch._tensor.Tensor",
    "wavecomp.networks.classifier.ChunkReduceClassifier",
    "torch.nn.modules.module.Module",
    "wavecomp.codes.Codes",
    "wavecomp.bands.Bands",
    "wavecomp.training.callbacks.ratio.RatioMonitor",
    "matplotlib.figure.Figure",
    "user.Mine",
]


@pytest.mark.slow
def test_a_strict_program_knows_what_it_is_given(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(PROGRAM)
    arguments = ["--strict", "--python-executable", sys.executable, "--cache-dir", str(tmp_path / "cache")]
    out, error, _ = api.run([*arguments, str(tmp_path / "user.py")])
    lines = out.splitlines()
    assert [line.split('"')[1] for line in lines if "Revealed type" in line] == REVEALED, out + error
    errors = [line for line in lines if ": error: " in line]
    assert len(errors) == 1 and 'Unexpected keyword argument "lvel" for "DWT1d"' in errors[0], out
