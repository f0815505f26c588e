"""``wavecomp cp``: a copy of a recipe, to change it."""

from __future__ import annotations

import shlex
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from wavecomp.files.recipes import is_overlay, recipe_path


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `wavecomp ls` shows, or a path")
    parser.add_argument(
        "target", type=Path, metavar="FILE", help="where to, a file or a folder; nothing is overwritten"
    )


def run(arguments: Namespace) -> None:
    """Copy it, and say how it is trained.

    Raises:
        ValueError: an unknown recipe, or a target that exists.
    """
    source, target = recipe_path(arguments.recipe), arguments.target
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise ValueError(f"{target} exists already; give another name")
    shutil.copyfile(source, target)
    recipe = "--config RECIPE " if is_overlay(source) else ""  # which an overlay lies over
    command = f"wavecomp fit {recipe}--config {shlex.quote(str(target))}"
    sys.stdout.write(f"copied {source.stem} to {target}; train it with: {command}\n")
