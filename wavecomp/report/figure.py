"""Figures of :mod:`wavecomp.plots` as files."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wavecomp.files.output import check_output, write_whole
from wavecomp.report.page import figure_page

SUFFIXES = (".png", ".svg", ".html")
DPI = 200
Drawing = Axes | Figure


def write_figure(drawing: Drawing, path: str | Path, *, title: str) -> None:
    """Write a figure: ``.png``, ``.svg``, or ``.html``, a page that holds the drawing and needs nothing else.

    Args:
        drawing: a figure, or axes in one.
        path: the file, written over if it exists; complete or not there at all.
        title: what it shows, for the page and for those who do not see it.

    Raises:
        ValueError: another suffix, and what :func:`check_output` refuses.
    """
    path = check_output(path, SUFFIXES)
    kind = path.suffix.lower().removeprefix(".")
    figure = drawing if isinstance(drawing, Figure) else drawing.figure.figure
    buffer = io.BytesIO()
    if kind == "png":
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Title": title})
    else:
        figure.savefig(buffer, format="svg", metadata={"Title": title, "Date": None})
    content = buffer.getvalue()
    write_whole(path, figure_page(content.decode(), title=title).encode() if kind == "html" else content)
