"""Every notebook runs, with few training steps; and what is stored of it is whole, small and of no machine."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
TRAINED = {name for name in NOTEBOOKS if name[0] in "23456"}
STEPS = re.compile(r"^STEPS = \d+\b", flags=re.MULTILINE)  # how a notebook says how long it trains
FEW = "STEPS = 2"


def read(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook):
    found = [output.get("data", {}).get("image/png") for output in outputs(notebook)]
    return [base64.b64decode(picture) for picture in found if picture is not None]


def with_few_steps(notebook):
    """The same notebook with its constant ``STEPS`` made small, and how many such constants there were."""
    found = 0
    for cell in code_cells(notebook):
        cell.source, count = STEPS.subn(FEW, cell.source)
        found += count
    return notebook, found


def test_the_list_is_what_it_should_be():
    assert [name[:2] for name in NOTEBOOKS] == ["1-", "2-", "3-", "4-", "5-", "6-"]


def test_the_readme_lists_all():
    linked = re.findall(r"\(notebooks/([\w-]+)\.ipynb\)", (ROOT / "README.md").read_text())
    assert list(dict.fromkeys(linked)) == list(NOTEBOOKS)


def test_the_picture_of_the_readme_is_one_of_a_notebook():
    readme = (ROOT / "README.md").read_text()
    (picture,) = re.findall(r"^!\[.+\]\((notebooks/[\w-]+\.png)\)$", readme, flags=re.MULTILINE)
    assert (ROOT / picture).read_bytes() in [shown for name in NOTEBOOKS for shown in pictures(read(name))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, tmp_path, monkeypatch):
    notebook, found = with_few_steps(read(name))
    assert found == (name in TRAINED)
    stored = len(pictures(notebook))
    # a kernel is a process: it shares the cores with the other workers
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert [output.name for output in outputs(notebook) if output.output_type == "stream"].count("stderr") == 0
    assert len(pictures(notebook)) == stored > 0
    assert not list(tmp_path.iterdir()), "a notebook leaves files behind"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_is_of_one_run_without_warnings(name):
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name", "stdout") for output in outputs(notebook)} == {"stdout"}
    assert "error" not in {output.output_type for output in outputs(notebook)}
    assert not re.search(r"Warning|(?<!\w)/(home|root|tmp|usr|work|Users)/|[A-Z]:\\\\", NOTEBOOKS[name].read_text())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_is_small_and_opens_with_what_one_will_see(name):
    assert NOTEBOOKS[name].stat().st_size < 400_000
    notebook = read(name)
    assert notebook.cells[0].source.startswith(f"# {name[0]}. ")
    assert "You will see" in notebook.cells[0].source
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert min(len(text.split()) for text in prose) > 5, "a place that was never written"
    assert all(picture.startswith(b"\x89PNG") for picture in pictures(notebook))
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 40
