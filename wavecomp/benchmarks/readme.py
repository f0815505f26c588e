"""The tables of the README, written from the files of results: no figure in them is typed.

A table of targets is in sight, those of each benchmark are folded below it.
"""

from __future__ import annotations

import importlib
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from wavecomp.benchmarks import targets
from wavecomp.benchmarks.results import Result, caption
from wavecomp.files.output import write_whole
from wavecomp.files.recipes import recipe_folder

WIDTH = 120
TARGETS = "targets"
CODE = re.compile("``(.*?)``")
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

    The block ``targets`` holds what is aimed at by those benchmarks that have a block.

    Args:
        text: Markdown.
        paths: files of results; a block holds those of its benchmark in this order, or says that there are none.
        folder: what paths are shown from.

    Raises:
        ValueError: a file of results whose benchmark has no block.
    """
    results = {path: json.loads(path.read_text()) for path in paths}
    found: dict[str, list[str]] = {}
    for path, result in results.items():
        found.setdefault(result["benchmark"], []).append(section(result, path.relative_to(folder)))
    names = [match["name"] for match in BLOCK.finditer(text)]
    missing = found.keys() - set(names)
    if missing:
        raise ValueError(f"the README has no block <!-- {min(missing)} --> ... <!-- end --> for its results")
    if TARGETS in names:
        runs = {path.stem: result["runs"] for path, result in results.items()}
        found[TARGETS] = [_wrapped_all(targets.table(runs, [name for name in names if name != TARGETS]))]

    def block(match: re.Match[str]) -> str:
        nothing = f"**{match['name']}**: not measured yet: `python -m wavecomp.benchmarks {match['name']}`."
        sections = "".join(f"{section}\n\n" for section in found.get(match["name"], [nothing]))
        return f"<!-- {match['name']} -->\n{sections}<!-- end -->"

    return BLOCK.sub(block, text)


def section(result: Result, path: Path) -> str:
    """What a result shows, folded: what was measured, tables, and what it takes to measure it again.

    Args:
        path: of the file, as it is to be shown.
    """
    module = importlib.import_module(f"wavecomp.benchmarks.{result['benchmark']}")
    headline = str(module.__doc__).splitlines()[0].partition(": ")[2].removesuffix(".")
    told = CODE.sub(r"<code>\1</code>", headline)
    summary = f"<summary><b>{result['benchmark']}</b>: {told}</summary>"
    parts = ["<details>", summary, module.table(result["runs"]), caption(result, path), "</details>"]
    return _wrapped_all("\n\n".join(parts))


def _wrapped_all(text: str) -> str:
    return "\n\n".join(map(_wrapped, text.split("\n\n")))


def _wrapped(paragraph: str) -> str:
    """Prose in lines; tables and commands as they are."""
    if paragraph.startswith(("|", "    ")):
        return paragraph
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
