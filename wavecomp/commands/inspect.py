"""``wavecomp inspect``: what is in a file of codes."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

import torch
from torch import Tensor

from wavecomp.files import CodesFile
from wavecomp.pace import NEVER

BARS = 8
"""Lines of a distribution, at most."""


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    parser.add_argument("file", metavar="CODES", help="a file that `wavecomp compress` wrote")


def run(arguments: Namespace) -> None:
    """Write what the header says and how the codes spread, once all of it was found sound."""
    file = CodesFile(arguments.file)
    file.check()
    for line in description(file):
        sys.stdout.write(f"{line}\n")


def description(file: CodesFile) -> Iterator[str]:
    """A few lines on a file of codes."""
    said = file.metadata
    codes, tokens, ratio = int(said["codes"]), int(said["tokens"]), float(said["ratio"])
    yield f"{file.path}: {codes:,} codes for {tokens:,} tokens, ratio {ratio:.2f}"
    yield f"  model   {said['model']}, fingerprint {said['fingerprint'][:12]}"
    yield f"  values  {said['dim']} wide, {file.dtype('values')}"
    end, chunk = file["end"].long(), file["chunk"].long()
    whole = end != NEVER
    end, chunk, short = end[whole], chunk[whole], len(end) - int(whole.sum())
    # a chunk ends where the next one of its stage begins, so its number and its end tell how long it is
    spans = end // (chunk + 1)
    if bool((spans * (chunk + 1) == end).all()):
        for span in filter(None, spans.unique().tolist()):  # of a chunk that needs nothing none is known
            counts = torch.bincount(chunk[spans == span], minlength=tokens // span)
            yield f"  {len(counts):,} chunks of {span} tokens, codes in each: {spread(counts)}"
            yield from bars(counts)
    else:  # numbers of what pooled them
        counts = end.unique(return_counts=True)[1]
        yield f"  {len(counts):,} times that codes came to exist, how many each: {spread(counts)}"
        yield from bars(counts)
    if short:
        yield f"  {short:,} codes of chunks that the end of the text cut short"


def spread(counts: Tensor) -> str:
    """Least, mean and most."""
    least, most = int(counts.min()), int(counts.max())
    return f"{least}" if least == most else f"{least} to {most}, {float(counts.double().mean()):.2f} in the mean"


def bars(counts: Tensor) -> Iterator[str]:
    """How many chunks have how many codes; nothing where all have as many."""
    least, most = int(counts.min()), int(counts.max())
    width = -(-(most - least + 1) // BARS)
    groups = torch.bincount((counts - least) // width)
    for group, chunks in enumerate(groups.tolist() if most > least else []):
        first = least + group * width
        name = f"{first}" if width == 1 else f"{first}-{first + width - 1}"
        share = chunks / len(counts)
        yield f"    {name:>9}  {'#' * round(40 * share):<40} {share:6.1%}"
