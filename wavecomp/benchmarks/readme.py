"""The tables of the README, written from the files of results: no figure in them is typed."""

from __future__ import annotations

import importlib
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from wavecomp.benchmarks.measure import Options
from wavecomp.benchmarks.results import Result, caption
from wavecomp.files.output import write_whole
from wavecomp.files.recipes import recipe_folder

WIDTH = 120
BLOCK = re.compile(r"<!-- (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end -->", flags=re.S)


def rewrite() -> None:
    """Write the README of this checkout anew.

    Raises:
        ValueError: no checkout, or a file of results whose benchmark has no block.
    """
    folder = recipe_folder().parent
    readme = folder / "README.md"
    if not readme.is_file():
        raise ValueError(f"{folder} has no README.md; the tables are written in a checkout of the sources")
    text = rewritten(readme.read_text(), sorted((recipe_folder() / "results").glob("*.json")), folder)
    write_whole(readme, text.encode())


def rewritten(text: str, paths: Sequence[Path], folder: Path) -> str:
    """A text whose blocks ``<!-- NAME -->`` to ``<!-- end -->`` hold the tables of that benchmark, and nothing else.

    Args:
        text: Markdown.
        paths: files of results; a block holds those of its benchmark in this order, or says that there are none.
        folder: what paths are shown from.

    Raises:
        ValueError: a file of results whose benchmark has no block.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        result = json.loads(path.read_text())
        found.setdefault(result["benchmark"], []).append(section(result, path.relative_to(folder)))
    missing = found.keys() - {match["name"] for match in BLOCK.finditer(text)}
    if missing:
        raise ValueError(f"the README has no block <!-- {min(missing)} --> ... <!-- end --> for its results")

    def block(match: re.Match[str]) -> str:
        nothing = f"### {match['name']}\n\nNot measured yet: `python -m wavecomp.benchmarks {match['name']}`."
        sections = "".join(f"{section}\n\n" for section in found.get(match["name"], [nothing]))
        return f"<!-- {match['name']} -->\n{sections}<!-- end -->"

    return BLOCK.sub(block, text)


def section(result: Result, path: Path) -> str:
    """What a result shows: what was measured, tables, and what it takes to measure it again.

    Args:
        path: of the file, as it is to be shown.
    """
    module = importlib.import_module(f"wavecomp.benchmarks.{result['benchmark']}")
    if hasattr(module, "members") and result.get("members") is None:
        result = result | {"members": len(module.members(Options(source="any")))}
    headline = str(module.__doc__).splitlines()[0].partition(": ")[2].replace("``", "`")
    parts = [f"### {result['benchmark']}", headline[0].upper() + headline[1:], module.table(result["runs"])]
    return "\n\n".join(map(_wrapped, "\n\n".join([*parts, caption(result, path)]).split("\n\n")))


def _wrapped(paragraph: str) -> str:
    """Prose in lines; tables and commands as they are."""
    if paragraph.startswith(("|", "    ", "#")):
        return paragraph
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
