"""The model that a command is given."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TypeAlias, get_args

from wavecomp.files import load
from wavecomp.networks import ChunkReduceAutoencoder, ChunkReduceClassifier, ChunkReduceLM

Model: TypeAlias = ChunkReduceLM | ChunkReduceAutoencoder | ChunkReduceClassifier


def add_checkpoint(parser: ArgumentParser) -> None:
    """The argument ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="PATH", help="a checkpoint, or the folder of a run: its best.ckpt"
    )


def language_model(path: str) -> ChunkReduceLM:
    """The language model of a checkpoint, on bytes.

    Raises:
        FileNotFoundError: no checkpoint, or no config beside it.
        ValueError: a damaged checkpoint, another kind of model, or one whose tokens are not bytes.
    """
    model = any_model(path)
    if not isinstance(model, ChunkReduceLM):
        raise ValueError(f"checkpoint {path} holds a {type(model).__name__}; allowed: ChunkReduceLM")
    return model


def any_model(path: str) -> Model:
    """The model of a checkpoint, on bytes; see :func:`language_model` for what is refused."""
    model = load(path)
    if not isinstance(model, Model):
        kinds = ", ".join(kind.__name__ for kind in get_args(Model))
        raise ValueError(f"checkpoint {path} holds a {type(model).__name__}; allowed: {kinds}")
    tokens = getattr(model.embedding, "num_embeddings", 256)
    if tokens != 256:
        raise ValueError(f"checkpoint {path} holds a model of {tokens} tokens; allowed: 256, one for each byte")
    return model
