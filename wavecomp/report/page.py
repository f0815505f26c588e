"""The HTML of the report, and of a figure by itself."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

from wavecomp.files.output import write_whole
from wavecomp.networks import ChunkReduceLM
from wavecomp.report.reading import Reading, read
from wavecomp.report.shown import shown

# (colour, ink) of each class: lightness alone tells classes apart, so that colour blindness and print leave them, and
# the ink has a contrast of 4.5 or more
LIGHT = [
    (colour, "#000000") for colour in ("#fff6cc", "#ffe89a", "#fed26e", "#feb54a", "#fb9a31", "#ee7b1a", "#dc6108")
]
DARK = [
    *((colour, "#ffffff") for colour in ("#24201a", "#4c3a12", "#76570f")),
    *((colour, "#000000") for colour in ("#a17612", "#c8962c", "#e6ba5c", "#fbe3a6")),
]


def write_report(
    model: ChunkReduceLM, text: bytes, path: str | Path, *, title: str = "A text and its codes"
) -> Reading:
    """Write a page that shows a text as its codes see it: HTML in one file, which asks the network for nothing.

    The text is coloured by how many codes each chunk keeps, or by its bits per byte; a chunk that is pointed at, or
    reached with the arrow keys, tells of its bands and codes.

    Args:
        model: a language model on bytes, in eval mode.
        text: at least one byte.
        path: the file, written over if it exists; complete or not there at all.
        title: of the page.

    Returns:
        What the page shows.

    Raises:
        ValueError: what :func:`read` refuses.
    """
    reading = read(model, text)
    write_whole(path, report_page(reading, title=title).encode())
    return reading


def report_page(reading: Reading, *, title: str) -> str:
    """The page of a reading."""
    length = reading.chunk_length
    kept, kept_names = whole_classes(
        [len(chunk.codes) for chunk in reading.chunks],
        [len(chunk.codes) for chunk in reading.chunks if chunk.length == reading.chunks[0].length],
    )
    bits, bits_names = classes([chunk.bits for chunk in reading.chunks])
    # where all chunks keep as many there is nothing to see of it
    by = "kept" if len(kept_names) > 1 else "bits"
    spans = [
        f'<span role="option" tabindex="-1" aria-selected="false" class="kept{k} bits{b}">{piece}</span>'
        for k, b, piece in zip(kept, bits, shown(reading.text, length))
    ]
    style = "\n".join([_part("page.css"), _colours("kept", len(kept_names)), _colours("bits", len(bits_names))])
    body = f"""<div class="page" data-by="{by}">
<header>
<h1>{html.escape(title)}</h1>
<p>Read by a language model that sees the past as codes, in chunks of {length} bytes.</p>
</header>
<dl>{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures(reading))}</dl>
<p>Point at a chunk or tap it; the arrow keys, Home and End go from one to another.</p>
<fieldset><legend>Colour shows</legend>
{_choice("kept", "codes kept", by)}
{_choice("bits", "bits per byte", by)}
</fieldset>
{_legend("kept", kept_names, "codes in a chunk")}
{_legend("bits", bits_names, "bits per byte")}
<main>
<div id="text" role="listbox" aria-label="The text, chunk by chunk" aria-orientation="horizontal">{"".join(spans)}</div>
<aside id="chunk" aria-label="The chunk"><noscript>Bands and codes of a chunk are shown by a script.</noscript></aside>
</main>
</div>
<script type="application/json" id="data">{_data(reading)}</script>"""
    return page(title, style, body, script=_part("page.js"))


def figure_page(svg: str, *, title: str) -> str:
    """A page of one figure."""
    drawing = svg[svg.index("<svg") :]  # behind what only an XML file needs
    name = html.escape(title)
    return page(title, _part("page.css"), f'<h1>{name}</h1>\n<figure role="img" aria-label="{name}">{drawing}</figure>')


def page(title: str, style: str, body: str, *, script: str = "") -> str:
    """A page that can load nothing, and runs this script and no other."""
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>
{style}
</style>
</head>
<body>
{body}
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def figures(reading: Reading) -> list[tuple[str, str]]:
    """What is told of the whole text."""
    return [
        ("bytes", f"{len(reading.text):,}"),
        ("codes", f"{reading.codes:,}"),
        ("compression ratio", f"{reading.ratio:.2f}" if math.isfinite(reading.ratio) else "no codes"),
        ("bits per byte", f"{reading.bits:.3f}"),
        ("codes hidden", f"{reading.hidden:.3f}"),
        ("context gain", f"{reading.gain:+.3f}"),
    ]


def whole_classes(counts: Sequence[int], usual: Sequence[int]) -> tuple[list[int], list[str]]:
    """The class of each count, and the names of the classes: as many as there are colours at most.

    The classes span the ``usual`` counts; what lies beyond belongs to the outermost.

    Example:
        >>> whole_classes([4, 6, 4, 1], usual=[4, 6, 4])
        ([0, 2, 0, 0], ['4', '5', '6'])
    """
    least, most = min(usual), max(usual)
    width = -(-(most - least + 1) // len(LIGHT))
    names = [
        f"{first}" if width == 1 else f"{first} to {min(first + width - 1, most)}"
        for first in range(least, most + 1, width)
    ]
    return [min(max((count - least) // width, 0), len(names) - 1) for count in counts], names


def classes(values: Sequence[float]) -> tuple[list[int], list[str]]:
    """The same of numbers that are not whole."""
    least, most = min(values), max(values)
    width = (most - least) / len(LIGHT)
    if not width:
        return [0] * len(values), [f"{least:.2f}"]
    edges = [least + number * width for number in range(len(LIGHT) + 1)]
    names = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
    return [min(int((value - least) / width), len(LIGHT) - 1) for value in values], names


def _colours(by: str, count: int) -> str:
    """Light and dark colours of so many classes, spread over the scale; used where the page's choice is ``by``."""

    def rules(scale: Sequence[tuple[str, str]]) -> str:
        spread = [scale[round(place * (len(scale) - 1) / max(count - 1, 1))] for place in range(count)]
        return "\n".join(
            f'[data-by="{by}"] .{by}{number} {{ background: {colour}; color: {ink}; }}'
            for number, (colour, ink) in enumerate(spread)
        )

    return f"{rules(LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{rules(DARK)}\n}}"


def _choice(value: str, name: str, chosen: str) -> str:
    checked = " checked" if value == chosen else ""
    return f'<label><input type="radio" name="by" value="{value}"{checked} autocomplete="off"> {name}</label>'


def _legend(by: str, names: Sequence[str], unit: str) -> str:
    entries = "".join(f'<li><span class="{by}{number}"></span>{name}</li>' for number, name in enumerate(names))
    return f'<ul class="legend {by}" aria-label="{unit}">{entries}<li>{unit}</li></ul>'


def _data(reading: Reading) -> str:
    chunks = [
        [
            chunk.start,
            chunk.length,
            round(chunk.bits, 4),
            round(chunk.hidden, 4),
            [float(f"{energy:.4g}") for energy in chunk.energy],
            [[code.level, *(float(f"{number:.4g}") for number in code[1:])] for code in chunk.codes],
        ]
        for chunk in reading.chunks
    ]
    found = json.dumps({"bands": reading.bands, "chunks": chunks}, separators=(",", ":"))
    return found.replace("<", "\\u003c")  # nothing in it ends the script


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
