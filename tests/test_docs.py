"""What is written runs: examples in docstrings, snippets and commands of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

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


def test_python_snippets_of_the_readme_run():
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})


def test_the_readmes_commands_are_the_ones_that_ci_runs():
    text = README.read_text()
    assert "pip install '.[test]' && pytest" in text
    assert "pip install . && wavecomp fit --config quickstart" in text
    ci = (README.parent / ".ci" / "run").read_text()
    assert "pip install '.[test]' && pytest\n" in ci
