"""``wavecomp generate``: continue a text."""

from __future__ import annotations

import codecs
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path

import torch
from torch import Tensor

from wavecomp.commands.checkpoint import add_checkpoint, language_model
from wavecomp.files import load_codes


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    add_checkpoint(parser)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", default="", metavar="TEXT", help="what is to be continued; nothing unless given")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the same, from a file")
    parser.add_argument("--codes", metavar="FILE", help="what lies before the prompt, as `wavecomp compress` wrote it")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="bytes to add (%(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest byte (%(default)s)")
    parser.add_argument("--top-k", type=int, metavar="K", help="sample among so many likeliest bytes")
    parser.add_argument("--top-p", type=float, metavar="P", help="sample among the likeliest of this probability")
    parser.add_argument("--seed", type=int, help="the same seed, the same text; another each time unless given")


def run(arguments: Namespace) -> None:
    """Write the continuation as it comes."""
    prompt = os.fsencode(arguments.prompt)  # as it came, whatever it is
    if arguments.prompt_file is not None:
        prompt = Path(arguments.prompt_file).read_bytes()
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed {arguments.seed} is out of range; allowed: 0 to 2 ** 63 - 1")
    model = language_model(arguments.checkpoint)
    generator = torch.Generator()
    if arguments.seed is None:
        generator.seed()
    else:
        generator.manual_seed(arguments.seed)
    tokens = model.stream(
        torch.tensor([list(prompt)], dtype=torch.int64),
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        generator=generator,
        codes=None if arguments.codes is None else load_codes(arguments.codes, model),
    )
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every character
    for text in decoded(tokens):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")


def decoded(tokens: Iterable[Tensor]) -> Iterator[str]:
    """Bytes ``(1,)`` as text, as soon as a character is whole; what is no UTF-8 is replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        yield decoder.decode(bytes([int(token)]))
    yield decoder.decode(b"", final=True)
