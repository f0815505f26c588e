"""Files of codes: written as the codes come, refused when damaged or made by another model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wavecomp.codes import Codes, compression_ratio
from wavecomp.files import identity
from wavecomp.files.identity import kind_of, raw_bytes
from wavecomp.files.output import check_output, folder_beside, naming

FORMAT, VERSION = "wavecomp.codes", "3"
# how each field of a code is stored: widest first, so that all lie aligned; None as they are
STORED: dict[str, torch.dtype | None] = {
    "end": torch.int64,
    "until": torch.int64,
    "position": torch.float64,
    "values": None,
    "support": None,
    "frequency": None,
    "chunk": torch.int32,
    "index": torch.int32,
    "level": torch.uint8,
}
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


class CodesWriter:
    """Writes the codes of one sequence to a file as they come, and holds none of them.

    The file is a safetensors file with one tensor per field, of those slots that hold a code. It appears under its name
    when all is written: after an error, or Ctrl-C, nothing is left behind.

    Args:
        path: the file, written over if it exists.
        model: made the codes; the file says so.
        fingerprint: that of the model, where many files are to be written and it is known already.

    Raises:
        FileNotFoundError: no such folder.
        IsADirectoryError: the path is a folder.
        PermissionError: a folder that cannot be written to.
        ValueError: the path is a device or a pipe.

    Example:
        >>> with CodesWriter("book.safetensors", model) as writer:  # doctest: +SKIP
        ...     for block in blocks:
        ...         writer.add(encoder.feed(block))
    """

    def __init__(self, path: str | Path, model: nn.Module, *, fingerprint: str | None = None) -> None:
        self.path = check_output(path)
        self.model = model
        self.fingerprint = fingerprint
        self.tokens = self.codes = 0
        self._entries: dict[str, tuple[str, list[int]]] = {}
        self._checksums = dict.fromkeys(STORED, 0)

    @property
    def ratio(self) -> float:
        """Compression ratio of what was written."""
        return float(compression_ratio(torch.tensor(self.tokens), torch.tensor(self.codes)))

    def __enter__(self) -> CodesWriter:
        with naming(self.path):
            self._folder = folder_beside(self.path)
            self._files = {name: open(Path(self._folder.name) / name, "w+b") for name in STORED}
        return self

    def add(self, codes: Codes, *, row: int | None = None) -> None:
        """Write further codes; their ``tokens`` are those that they add.

        Args:
            row: which one, of codes of several.

        Raises:
            ValueError: more than one row and none chosen, one that is not there, or values of another type or width
                than those before.
        """
        rows = len(codes.values)
        if row is None and rows != 1:
            raise ValueError(f"codes have {rows} rows; allowed: 1, a file is of one sequence, or a row=")
        row = row or 0
        if not 0 <= row < rows:
            raise ValueError(f"row={row} is not in codes of {rows} rows; allowed: 0 to {rows - 1}")
        held = codes.mask[row]
        fields = {name: getattr(codes, name)[row][held].cpu() for name in STORED}
        fields = {name: field.to(STORED[name] or field.dtype) for name, field in fields.items()}
        kinds = {field.dtype for field in fields.values()} - DTYPES.keys()
        if kinds:
            raise ValueError(f"codes are of {kinds.pop()}; allowed: {', '.join(map(str, DTYPES))}")
        entries = {name: (DTYPES[field.dtype], list(field.shape[1:])) for name, field in fields.items()}
        if self._entries not in ({}, entries):
            name = next(name for name, entry in entries.items() if entry != self._entries[name])
            now, before = _told(*entries[name]), _told(*self._entries[name])
            raise ValueError(f"{name} are {now}, those before were {before}; allowed: the same")
        self._entries = entries
        for name, field in fields.items():
            raw = raw_bytes(field)
            self._checksums[name] = zlib.crc32(raw, self._checksums[name])
            with naming(self.path):
                self._files[name].write(raw)
        self.tokens += int(codes.tokens[row])
        self.codes += int(held.sum())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                whole = Path(self._folder.name) / "whole"
                with naming(self.path):
                    with whole.open("wb") as file:
                        self._join(file)
                    os.replace(whole, self.path.resolve())
        finally:
            for field in self._files.values():
                with contextlib.suppress(OSError):  # what is left of a write that failed: no room for it now either
                    field.close()
            self._folder.cleanup()

    def _join(self, file: BinaryIO) -> None:
        """Header and fields, one after another: https://huggingface.co/docs/safetensors, "Format"."""
        if not self._entries:
            raise ValueError(f"no codes were added; {self.path} is not written")
        header: dict[str, Any] = {"__metadata__": self._metadata()}
        at = 0
        for name, (dtype, shape) in self._entries.items():
            size = self._files[name].tell()
            header[name] = {"dtype": dtype, "shape": [self.codes, *shape], "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        for field in self._files.values():
            field.seek(0)
            shutil.copyfileobj(field, file)

    def _metadata(self) -> dict[str, str]:
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "model": kind_of(self.model),
            "fingerprint": self.fingerprint or identity.fingerprint(self.model),
            "dim": str(self._entries["values"][1][0]),
            "tokens": str(self.tokens),
            "codes": str(self.codes),
            "ratio": f"{self.ratio:.6g}",
            **{f"crc32.{name}": str(checksum) for name, checksum in self._checksums.items()},
        }
        return metadata | {"crc32": _checksum(metadata)}


def _checksum(metadata: dict[str, str]) -> str:
    return str(zlib.crc32(json.dumps(sorted(metadata.items())).encode()))


class CodesFile:
    """A file that :class:`CodesWriter` wrote: its header at once, its fields when they are asked for.

    Args:
        path: the file.
        model: must have made the codes; any may have unless given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one of another kind or version, or codes of another model.
    """

    def __init__(self, path: str | Path, model: nn.Module | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            reason = "are a folder" if str(path) and self.path.is_dir() else "do not exist"
            raise FileNotFoundError(f"codes {path} {reason}; allowed: a file that compress wrote")
        try:
            self._file: Any = safe_open(self.path, "pt")
        except SafetensorError as error:
            raise self._damaged(f"shorter or longer than written, or no codes at all ({error})") from error
        self.metadata: dict[str, str] = self._file.metadata() or {}
        self._check_header()
        if model is not None:
            self._check_model(model)

    def __getitem__(self, name: str) -> Tensor:
        """A field of the codes, as it is stored."""
        tensor = self._file.get_tensor(name)
        if str(zlib.crc32(raw_bytes(tensor))) != self.metadata[f"crc32.{name}"]:
            raise self._damaged(f"{name} is not what was written")
        return tensor

    def check(self) -> None:
        """Read all fields.

        Raises:
            ValueError: one that is not what was written.
        """
        for name in STORED:
            self[name]

    def dtype(self, name: str) -> str:
        """How a field is stored, in the words of safetensors: ``"F32"``."""
        return self._file.get_slice(name).get_dtype()

    def _check_header(self) -> None:
        written = dict(self.metadata)
        if written.get("format") != FORMAT:
            raise ValueError(f"{self.path} holds no codes: its header names the format {written.get('format')!r}")
        if written.get("version") != VERSION:
            raise ValueError(f"{self.path} has format version {written.get('version')}; allowed: {VERSION}")
        if written.pop("crc32", None) != _checksum(written):
            raise self._damaged("its header is not what was written")
        if set(self._file.keys()) != set(STORED):
            raise self._damaged(f"it holds {sorted(self._file.keys())}, codes have {sorted(STORED)}")
        for name, dtype in STORED.items():
            shape = self._file.get_slice(name).get_shape()
            expected = [int(written["codes"]), *([int(written["dim"])] if name == "values" else [])]
            allowed = ["F64", "F32", "BF16", "F16"] if dtype is None else [DTYPES[dtype]]
            if shape != expected or self.dtype(name) not in allowed:
                raise self._damaged(f"{name} has shape {shape} and type {self.dtype(name)}, expected {expected}")

    def _check_model(self, model: nn.Module) -> None:
        theirs, mine = self.metadata["model"], kind_of(model)
        if theirs != mine:
            raise ValueError(f"codes {self.path} were made by a {theirs}, the model is a {mine}")
        theirs, mine = self.metadata["fingerprint"], identity.fingerprint(model)
        if theirs != mine:
            raise ValueError(
                f"codes {self.path} were made by a model with other weights or settings: its fingerprint is "
                f"{theirs[:12]}, this one's {mine[:12]}"
            )

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"codes {self.path} are damaged: {reason}")


def _told(dtype: str, shape: list[int]) -> str:
    return ", ".join([dtype, *(f"{width} wide" for width in shape)])


def save_codes(
    path: str | Path, codes: Codes, model: nn.Module, *, row: int | None = None, fingerprint: str | None = None
) -> None:
    """Write the codes of one sequence to a file; see :class:`CodesWriter` and :meth:`CodesWriter.add`."""
    with CodesWriter(path, model, fingerprint=fingerprint) as writer:
        writer.add(codes, row=row)


def load_codes(path: str | Path, model: nn.Module | None = None) -> Codes:
    """The codes in a file, one row of them, on the CPU. A model answers from them without the text.

    Args:
        path: written by :func:`save_codes` or ``wavecomp compress``.
        model: must have made the codes; any may have unless given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one of another kind or version, or codes of another model.

    Example:
        >>> codes = load_codes("book.safetensors", model)  # doctest: +SKIP
        >>> answer = model.generate(question, max_new_tokens=100, codes=codes)  # doctest: +SKIP
    """
    file = CodesFile(path, model)
    fields: dict[str, Any] = {name: file[name][None] for name in STORED}
    integers = {name: x.long() for name, x in fields.items() if not x.is_floating_point()}
    return Codes(
        **{**fields, **integers},
        mask=torch.ones_like(fields["end"], dtype=torch.bool),
        tokens=torch.tensor([int(file.metadata["tokens"])], device="cpu"),
        dense=True,
    )
