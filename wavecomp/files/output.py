"""Files that appear under their name when they are complete, and not before."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

HIDDEN = ".wavecomp."
"""How the folder begins in which a file is written; short, since it may lie beside a file of the longest name."""


def check_output(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """A file that can be written, as far as that can be told before the work is done.

    Args:
        suffixes: those that it may have; any unless given.

    Raises:
        ValueError: another suffix, or something that is there and no file, such as a device or a pipe.
        FileNotFoundError: no such folder.
        IsADirectoryError: the path is a folder.
        PermissionError: a folder that cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"output {path} is a folder; give a file in it")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"output {path} has suffix {path.suffix!r}; allowed: {', '.join(suffixes)}")
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist; {path.name} is to go there")
    if path.exists() and not path.is_file():
        raise ValueError(f"output {path} is a device or a pipe, which would be replaced; give a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"folder {folder} cannot be written to; {path.name} is to go there")
    return path


def folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for what is to become this file, or what it links to, on the same disk; for ``with``."""
    return tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=HIDDEN)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of what is written for a file name that file, and not the hidden one in which it begins."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and HIDDEN not in str(error.filename)):
            raise  # it says more, or is of another file
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file, over one that exists; after an error nothing is left behind, and the old one stays."""
    path = check_output(path)
    with naming(path), folder_beside(path) as folder:
        whole = Path(folder) / "whole"
        whole.write_bytes(content)
        os.replace(whole, path.resolve())


@contextlib.contextmanager
def clearing_away() -> Iterator[None]:
    """SIGTERM ends what runs as Ctrl-C does, so that no half of a file and no process is left behind."""
    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(signum: int, frame: FrameType | None) -> NoReturn:
    """What a signal does that is to end a process in good order."""
    raise SystemExit(128 + signum)
