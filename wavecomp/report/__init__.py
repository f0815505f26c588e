"""A page that shows a text as a model's codes see it: one HTML file that needs nothing else.

``write_report(model, text, "report.html")`` reads the text with a language model on bytes and writes the page.
"""

from wavecomp.report.page import figure_page, report_page, write_report
from wavecomp.report.reading import ChunkReading, Reading, band_layout, read, surprisal

__all__ = [
    "ChunkReading",
    "Reading",
    "band_layout",
    "figure_page",
    "read",
    "report_page",
    "surprisal",
    "write_report",
]
