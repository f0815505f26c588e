"""Bytes as HTML that shows every one of them and does nothing else."""

from __future__ import annotations

import html
import unicodedata

INSIDE = "<i>⋯</i>"
"""Shown of a chunk whose bytes all belong to a character that began before it."""


def shown(text: bytes, length: int) -> list[str]:
    r"""What each chunk of so many bytes shows, as HTML.

    A character stands in the chunk in which its first byte lies. Line ends are marked; bytes that are no UTF-8, and
    characters that have no look or change that of others (controls, directions of writing), are spelt out.

    Example:
        >>> shown("<ö>\n".encode() + b"\xff", 2)
        ['&lt;ö', '&gt;', '<i>↵</i>\n<i>\\xff</i>']
    """
    pieces: list[list[str]] = [[] for _ in range(0, len(text), length)]
    place = 0
    for character in text.decode(errors="surrogateescape"):
        pieces[place // length].append(visible(character))
        place += len(character.encode(errors="surrogateescape"))
    return ["".join(piece) or INSIDE for piece in pieces]


def visible(character: str) -> str:
    """One character as HTML."""
    code = ord(character)
    if character == "\n":
        return "<i>↵</i>\n"
    if character.isprintable() or character == "\t" or unicodedata.category(character) == "Zs":
        return html.escape(character)
    # what `surrogateescape` makes of a byte that is no UTF-8 ends with that byte
    return f"<i>\\x{code & 0xFF:02x}</i>" if code < 0x80 or 0xDC80 <= code <= 0xDCFF else f"<i>U+{code:04X}</i>"
