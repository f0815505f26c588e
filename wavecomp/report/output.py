"""Files that appear under their name when they are complete, and not before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def check_output(path: str | Path, suffixes: Sequence[str]) -> Path:
    """A file that can be written, as far as that can be told before the work is done.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: no such folder.
        IsADirectoryError: the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"output {path} is a folder; give a file in it")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"output {path} has suffix {path.suffix!r}; allowed: {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder {path.parent} does not exist; {path.name} is to go there")
    return path


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file, over one that exists; after an error nothing is left behind, and the old one stays."""
    partial = Path(f"{path}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
