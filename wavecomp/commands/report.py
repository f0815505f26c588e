"""``wavecomp report``: a page that shows a text as the codes see it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from wavecomp.commands.checkpoint import add_checkpoint, language_model
from wavecomp.commands.text import add_text, check_kept, name_of, output, read_text
from wavecomp.report import write_report


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    add_text(parser)
    add_checkpoint(parser)
    parser.add_argument("--output", required=True, type=output(".html"), metavar="FILE", help="the page, .html")


def run(arguments: Namespace) -> None:
    """Write the page, and a line of what it shows."""
    check_kept(arguments.output, arguments.file)
    text = read_text(arguments.file, arguments.bytes)
    model = language_model(arguments.checkpoint)
    reading = write_report(model, text, arguments.output, title=name_of(arguments.file, text))
    sys.stdout.write(
        f"{len(text):,} bytes in {len(reading.chunks):,} chunks, {reading.codes:,} codes, ratio {reading.ratio:.2f}, "
        f"{reading.bits:.3f} bits per byte, context gain {reading.gain:+.3f}: {arguments.output}\n"
    )
