"""``wavecomp compress``: files to codes."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from wavecomp.commands.checkpoint import add_checkpoint, language_model
from wavecomp.commands.text import check_kept
from wavecomp.files import CodesFile, CodesWriter
from wavecomp.networks import StreamingEncoder

PIECE = 1 << 16
"""Bytes that are read at once."""


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="read one after another, as one text")
    add_checkpoint(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="where the codes go, a safetensors file")


def run(arguments: Namespace) -> None:
    """Write the codes, and a line of what came of it."""
    paths, output = [Path(name) for name in arguments.files], Path(arguments.output)
    sizes = [size_of(path) for path in paths]
    check_kept(output, *paths)
    check_replaceable(output)
    model = language_model(arguments.checkpoint)
    began = time.perf_counter()
    with torch.inference_mode(), CodesWriter(output, model) as writer:
        encoder = StreamingEncoder(model)
        total = None if None in sizes else sum(filter(None, sizes))
        with tqdm(total=total, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
            for piece in pieces(paths):
                writer.add(encoder.feed(piece))
                bar.update(len(piece))
        if not writer.tokens:
            least = model.body.spans[0 if model.body.keep == "all" else -1]
            raise ValueError(f"the files hold {encoder.tokens} bytes; allowed: {least}, one chunk, and above")
    seconds = time.perf_counter() - began
    without = encoder.tokens - writer.tokens
    sys.stdout.write(
        f"{encoder.tokens:,} bytes"
        + (f" (the last {without:,} fill no chunk and have no code)" if without else "")
        + f", {writer.codes:,} codes, ratio {writer.ratio:.2f}, {seconds:.1f} s, "
        f"{encoder.tokens / seconds:,.0f} bytes/s: {output}\n"
    )
    for stage, span in enumerate(model.body.spans):
        if span > encoder.tokens:
            sys.stdout.write(f"chunk_networks[{stage}] reads chunks of {span:,} bytes: it made no codes\n")


def check_replaceable(path: Path) -> None:
    """Raise ``ValueError`` for a file that is there and holds anything but codes, such as a checkpoint."""
    if path.is_file():
        try:
            CodesFile(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"output {path} exists and holds no codes; give another, or remove it") from error


def size_of(path: Path) -> int | None:
    """Bytes in a file; ``None`` for a pipe, which has an end and does not tell where.

    Raises:
        FileNotFoundError: when it does not exist.
        IsADirectoryError: when it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give files")
    if not path.exists():
        raise FileNotFoundError(f"file {path} does not exist")
    return path.stat().st_size if path.is_file() else None


def pieces(paths: Sequence[Path]) -> Iterator[bytes]:
    """The contents of files, one after another."""
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
