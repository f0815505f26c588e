"""Where the recipes are, and what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def recipe_folder() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipes() -> list[Path]:
    """The recipes that come with the library."""
    return sorted(recipe_folder().glob("*.yaml"))


def headline(path: Path) -> str:
    """The first comment line of a recipe."""
    return path.read_text().partition("\n")[0].lstrip("# ").rstrip()


def is_overlay(path: Path) -> bool:
    """Whether a recipe is to be laid over another."""
    return headline(path).startswith("Overlay")


def recipe_path(name: str) -> Path:
    """A recipe by name or path.

    Raises:
        ValueError: neither a recipe nor a file, or a file that is no config.
    """
    known = {path.stem: path for path in recipes()}
    if name not in known and not Path(name).is_file():
        raise ValueError(f"config {name!r} is neither a recipe nor a file; recipes: {', '.join(known)}")
    path = known.get(name, Path(name))
    try:
        entries = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is not YAML: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"config {path} has no entries")
    check_keys(entries, path)
    return path


def check_keys(node: Any, path: Path) -> None:
    """Raise ``ValueError`` for a key beside a ``class_path`` that the parser would not name."""
    if isinstance(node, dict):
        if "class_path" in node and (unknown := node.keys() - {"class_path", "init_args", "dict_kwargs"}):
            raise ValueError(
                f"config {path}: key {min(unknown)!r} beside class_path: {node['class_path']} is unknown; "
                "allowed: init_args"
            )
        for child in node.values():
            check_keys(child, path)
    elif isinstance(node, list):
        for child in node:
            check_keys(child, path)
