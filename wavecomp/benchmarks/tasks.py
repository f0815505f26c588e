"""What compressors and transforms are compared by: a small model, trained on one task. All but what is compared is one.

copy      16 random symbols, then the same again, in bits per symbol of the second half (chance 4.00)
recall    keys with values, asked for by content, in bits per digit (chance 3.32)
rate      an autoencoder of text: bits per byte of the reconstruction
uneven    the same of text in which one sentence stands in every other 64 bytes
text      a language model of text: bits per byte; text-16k the same in rows of 16,384 bytes
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

import wavecomp as wc
from wavecomp.benchmarks.makers import Maker
from wavecomp.benchmarks.measure import Run
from wavecomp.benchmarks.mixed import MixedTextDataModule
from wavecomp.benchmarks.models import byte_model, chunk_reduce, with_second_stage
from wavecomp.training import (
    AutoencoderModule,
    CompressionModule,
    CopyDataModule,
    LanguageModelModule,
    RecallDataModule,
    SampleDataModule,
    TextDataModule,
)
from wavecomp.training.brief import seed_everything, train
from wavecomp.training.data.text import PYTHON_STDLIB

DIM, CHUNK, HEADS = 64, 32, 4
ROWS, LEARNING_RATE = 8, 2e-3  # copying takes steps more than it takes rows
TEXT_LENGTH, LONG_TEXT = 1024, 16384
KEYS, RECALL_LENGTH = 6, 160
READ_BACK = ("rate", "uneven")
"""Tasks of autoencoders."""


def trained(
    task: str,
    make: Callable[[], nn.Module],
    *,
    seed: int,
    steps: int,
    source: str | None,
    besides: Callable[[nn.Module, SampleDataModule], Run] | None = None,
) -> Run:
    """Train a model for some steps and validate it.

    Args:
        make: the model, after the seed is set.
        source: text to train on; the sources of Python's standard library unless given.
        besides: what else is measured of the trained model, maybe on its data.

    Returns:
        Its parameters, bits of what is asked for, context gain and ratio, where it has one.
    """
    seed_everything(seed)
    data = data_of(task, seed, source)
    module = module_of(task, make(), steps=steps)
    found = train(module, data, steps=steps)
    more = {} if besides is None else besides(module.model.eval(), data)
    return more | {
        "parameters": parameters(module.model),
        "bits": found["val/loss"],
        "gain": found.get("val/context_gain"),
        # without codes the ratio is infinite, which JSON has no word for
        "ratio": found["val/compression_ratio"] if math.isfinite(found["val/compression_ratio"]) else None,
    }


def module_of(task: str, model: nn.Module, *, steps: int) -> CompressionModule:
    """What trains the model of a task for so many steps."""
    kind: type[CompressionModule] = AutoencoderModule if task in READ_BACK else LanguageModelModule
    settings: dict[str, Any] = {"warmup_steps": min(50, steps), "learning_rate": LEARNING_RATE}
    return kind(model=model, **settings)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def data_of(task: str, seed: int, source: str | None) -> SampleDataModule:
    """Samples of a task."""
    if task == "copy":
        return CopyDataModule(batch_size=ROWS, seed=seed)
    if task == "recall":
        return RecallDataModule(keys=KEYS, length=RECALL_LENGTH, batch_size=ROWS, curriculum=9600, seed=seed)
    text: dict[str, Any] = {"source": source or PYTHON_STDLIB, "length": TEXT_LENGTH, "validation_samples": 128}
    if task == "text-16k":  # one row of twice as many tokens as otherwise in a batch
        return TextDataModule(**text | {"length": LONG_TEXT, "validation_samples": 16}, batch_size=1, seed=seed)
    if task == "uneven":
        return MixedTextDataModule(chunk=2 * CHUNK, **text, batch_size=ROWS, seed=seed)
    return TextDataModule(**text, batch_size=ROWS, seed=seed)


def around(task: str) -> dict[str, Any]:
    """How many blocks a model of a task has around its compressor: those that each chunk goes through alone, and those
    in which its codes read the ones before them."""
    each = 2 if task in READ_BACK else 1
    return {"before": each, "after": each}


def model_of(task: str, make: Maker, **parts: Any) -> nn.Module:
    """The model of a task around a compressor; with ``parts`` that are not its own."""
    return (autoencoder if task in READ_BACK else language_model)(make(), **parts)


def language_model(compressor: wc.Compressor, **parts: Any) -> wc.ChunkReduceLM:
    """A language model around a compressor.

    Most of its blocks are in the decoder, where they are worth most on text: in a trial of one seed at ratio 8, six
    there and one on either side of the codes were 0.17 bits per byte ahead of three there and two on either side, and
    ahead on copying too. Two of the six read codes: they are as many parameters as five that all do, and were ahead.
    """
    parts = {**around("text"), "layers": 6, "memory_layers": [2, 5], **parts}
    return byte_model(compressor, dim=DIM, heads=HEADS, chunk=CHUNK, **parts)


def stacked(compressor: wc.Compressor) -> wc.ChunkReduceLM:
    """A language model for long texts: two stages, and all blocks in the decoder, of which the last reads codes.

    Its Chunk-Networks are wavelets of what they are given, and no code reads another: as long as codes tell little,
    parameters are worth most where each byte goes through them. In a trial of one seed at ratio 8 it was 0.04 bits per
    byte ahead of :func:`language_model` on text. An eighth block was worth 0.01 more, 0.02 in rows of 16,384 bytes, and
    cost a tenth more time.
    """
    model = language_model(compressor, before=0, after=0, layers=7, memory_layers=[6])
    return with_second_stage(model, blocks=0)


def autoencoder(compressor: wc.Compressor, **parts: Any) -> wc.ChunkReduceAutoencoder:
    """An autoencoder around a compressor."""
    parts = {**around("rate"), **parts}
    return wc.ChunkReduceAutoencoder(
        embedding=nn.Embedding(256, DIM),
        body=chunk_reduce(compressor, dim=DIM, heads=HEADS, chunk=CHUNK, **parts),
        decoder=wc.ChunkDecoder(
            chunk_length=CHUNK,
            network=wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2),
            head=nn.Linear(DIM, 256),
            encoding=wc.PositionFrequencyEncoding(DIM),
        ),
    )
