"""Where the recipes are."""

from __future__ import annotations

from pathlib import Path


def recipe_folder() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipes() -> list[Path]:
    """The recipes that come with the library."""
    return sorted(recipe_folder().glob("*.yaml"))
