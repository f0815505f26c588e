"""The model that a command is given."""

from __future__ import annotations

from argparse import ArgumentParser

from wavecomp.files import load
from wavecomp.networks import ChunkReduceLM


def add_checkpoint(parser: ArgumentParser) -> None:
    """The argument ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="PATH", help="a checkpoint, or the folder of a run: its best.ckpt"
    )


def byte_model(path: str) -> ChunkReduceLM:
    """The language model of a checkpoint, on bytes.

    Raises:
        FileNotFoundError: no checkpoint, or no config beside it.
        ValueError: a damaged checkpoint, another kind of model, or one whose tokens are not bytes.
    """
    model = load(path)
    if not isinstance(model, ChunkReduceLM):
        raise ValueError(f"checkpoint {path} holds a {type(model).__name__}; allowed: ChunkReduceLM")
    tokens = getattr(model.embedding, "num_embeddings", 256)
    if tokens != 256:
        raise ValueError(f"checkpoint {path} holds a model of {tokens} tokens; allowed: 256, one for each byte")
    return model
