"""``wavecomp ls``: the recipes, a line each."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from wavecomp.files.recipes import headline, is_overlay, recipes


def add_arguments(parser: ArgumentParser) -> None:
    """Nothing can be set."""


def run(arguments: Namespace) -> None:
    """Show what each recipe is about: those that stand alone first, then what is laid over them."""
    found = sorted((is_overlay(path), path.stem, headline(path)) for path in recipes())
    width = max((len(name) for _, name, _ in found), default=0)
    for _, name, line in found:
        sys.stdout.write(f"{name:<{width}}  {line}\n")
