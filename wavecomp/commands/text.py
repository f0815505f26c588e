"""The text that a command is given, and the file that it writes."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from wavecomp.files.output import check_output

MOST = 16384


def add_text(parser: ArgumentParser) -> None:
    """The arguments ``FILE`` and ``--bytes``."""
    parser.add_argument("file", metavar="FILE", help="a text; any file is one, byte by byte")
    parser.add_argument("--bytes", type=int, default=MOST, metavar="N", help="read so many first bytes (%(default)s)")


def read_text(name: str, most: int) -> bytes:
    """The first bytes of a file.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: the path is a folder.
        ValueError: an empty file, or fewer than one byte asked for.
    """
    path = Path(name)
    if most < 1:
        raise ValueError(f"--bytes {most} is too small; allowed: 1 and above")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file")
    if not path.exists():
        raise FileNotFoundError(f"file {path} does not exist")
    with path.open("rb") as file:
        text = file.read(most)
    if not text:
        raise ValueError(f"file {path} is empty; give one with some text")
    return text


def name_of(name: str, text: bytes) -> str:
    """What to call the text that was read of a file."""
    path = Path(name)
    size, said = path.stat().st_size, os.fsencode(path.name).decode(errors="replace")  # a name may be any bytes
    return said if size <= len(text) else f"{said}, the first {len(text):,} of {size:,} bytes"


def check_kept(output: Path, *names: str | Path) -> None:
    """Raise ``ValueError`` for an output that is one of the files to read, by this name or another."""
    if any(output.exists() and Path(name).exists() and output.samefile(name) for name in names):
        raise ValueError(f"output {output} is one of the files to read; give another")


def output(*suffixes: str) -> Callable[[str], Path]:
    """The type of an argument ``--output``: a file that can be written, with one of these suffixes."""

    def checked(name: str) -> Path:
        try:
            return check_output(name, suffixes)
        except (ValueError, OSError) as error:
            raise ArgumentTypeError(str(error)) from error

    return checked
