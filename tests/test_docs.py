"""What is written runs: examples in docstrings, snippets and commands of the README."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import wavecomp

README = Path(__file__).parent.parent / "README.md"


def test_examples_in_docstrings_run():
    examples = 0
    for module in pkgutil.walk_packages(wavecomp.__path__, "wavecomp."):
        failed, tried = doctest.testmod(
            importlib.import_module(module.name), extraglobs={"torch": torch, "wc": wavecomp}, report=False
        )
        assert not failed, module.name
        examples += tried
    assert examples > 30


@pytest.mark.slow
def test_the_reference_is_made_without_warnings(tmp_path):
    pytest.importorskip("pdoc")
    command = ["pdoc", "wavecomp", "--docformat", "google", "--math", "--no-include-undocumented", "-o", str(tmp_path)]
    made = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True)
    assert not made.stderr
    rooms = {name: room for name in wavecomp.__all__ if isinstance(room := getattr(wavecomp, name), ModuleType)}
    assert {path.stem for path in (tmp_path / "wavecomp").iterdir()} == set(rooms) and len(rooms) > 7
    for room in [wavecomp, *rooms.values()]:
        page = (tmp_path / f"{room.__name__.replace('.', '/')}.html").read_text()
        shown = re.sub(r'<div class="pdoc-code.*?</pre>', "", page, flags=re.DOTALL)
        assert not re.search(r":(class|func|meth|mod|math):`|\.\. math|``", shown), room
        for name in getattr(room, "__all__", ()):
            if inspect.isclass(value := getattr(room, name)) or inspect.isfunction(value):
                assert value.__doc__ and f'id="{name}"' in page, name


def test_python_snippets_of_the_readme_run():
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})


def test_names_of_the_readme_are_there():
    names = re.findall(r"`(?:wc|wavecomp)\.([\w.]+)", README.read_text())
    assert len(names) > 10
    for name in names:
        pkgutil.resolve_name(f"wavecomp.{name}")  # whatever another test has imported


def test_the_readmes_commands_are_the_ones_that_ci_runs():
    text = README.read_text()
    assert "pip install '.[test]' && pytest" in text
    assert "pip install . && wavecomp fit --config quickstart" in text
    ci = (README.parent / ".ci" / "run").read_text()
    assert "pip install '.[test]' && pytest\n" in ci
