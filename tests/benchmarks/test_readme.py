"""The README's tables are those of the files of results, all of them and nothing else."""

import importlib
import json
import re
from pathlib import Path

import pytest

from wavecomp.benchmarks import __main__ as command
from wavecomp.benchmarks import readme, results
from wavecomp.benchmarks.measure import Options

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "recipes" / "results").glob("*.json"))


def test_writing_the_readme_anew_changes_nothing():
    text = (ROOT / "README.md").read_text()
    assert RESULTS and readme.rewritten(text, RESULTS, ROOT) == text


def test_every_benchmark_has_a_block_and_no_table_is_typed():
    text = (ROOT / "README.md").read_text()
    measured = re.search(r"^## Measured\n(.*?)^## ", text, flags=re.S | re.M)[1]
    assert {match["name"] for match in readme.BLOCK.finditer(measured)} == {"targets", *command.BENCHMARKS}
    outside = readme.BLOCK.sub("", measured)
    assert outside.strip() and "|" not in outside and "<!--" not in outside and not re.search(r"\d", outside)


def test_each_section_says_what_it_takes_to_measure_it_again():
    text = (ROOT / "README.md").read_text()
    for path in RESULTS:
        result = json.loads(path.read_text())
        for said in (path.name, result["device"], result["commit"], f"torch {result['versions']['torch']}"):
            assert said in " ".join(text.split())  # a line may end within
        assert f"\n    python -m wavecomp.benchmarks {result['benchmark']}" in text


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_every_run_of_a_grid_can_be_made_again(path):
    found = json.loads(path.read_text())
    module = importlib.import_module(f"wavecomp.benchmarks.{found['benchmark']}")
    if hasattr(module, "members") and found["benchmark"] != "long":  # whose members are those of its checkpoints
        members = module.members(Options(source="any"))
        assert {run["member"] for run in found["runs"]} <= members.keys()


def ratio_file(folder, name="ratio-cpu.json", **more):
    entry = {"what": "text", "compressor": "Shrinkage", "asked": 8.0, "trained": 8.1, "calibrated": 7.9}
    result = {
        "benchmark": "ratio",
        "command": "python -m wavecomp.benchmarks ratio",
        "source": None,
        "members": 9,
        "versions": {"torch": "2.15.0", "python": "3.11"},
        "device": "a machine, 2 threads",
        "commit": "abc",
        "seeds": [0, 2],
        "runs": [entry | {"seed": 0}, entry | {"seed": 2}],
    }
    path = folder / name
    path.write_text(json.dumps(result | more))
    return path


def test_a_table_is_there_if_its_file_is_and_says_how_much_of_the_grid(tmp_path):
    text = "before\n<!-- dwt -->\nold\n<!-- end -->\n\n<!-- ratio -->\n| typed |\n<!-- end -->\nafter\n"
    empty = readme.rewritten(text, [], tmp_path)
    dwt, ratio = (
        f"<!-- {name} -->\n**{name}**: not measured yet: `python -m wavecomp.benchmarks {name}`.\n\n<!-- end -->"
        for name in ("dwt", "ratio")
    )
    assert empty == f"before\n{dwt}\n\n{ratio}\nafter\n"
    more = {"members": 9, "command": "python -m wavecomp.benchmarks ratio --source book.txt"}
    full = readme.rewritten(text, [ratio_file(tmp_path, **more)], tmp_path)
    for said in (
        "2 of 9 members",
        "seeds 0, 2",
        "a machine, 2 threads",
        "torch 2.15.0",
        "commit abc",
        "8.100 ± 0.000 (2 of 3)",
    ):
        assert said in full
    assert "\n    python -m wavecomp.benchmarks ratio --source book.txt\n" in full and "typed" not in full
    assert readme.rewritten(full, [tmp_path / "ratio-cpu.json"], tmp_path) == full
    assert max(len(line) for line in full.splitlines() if not line.startswith("|")) <= readme.WIDTH


def test_several_devices_share_a_block_and_no_result_is_left_out(tmp_path):
    paths = [ratio_file(tmp_path), ratio_file(tmp_path, "ratio-h200.json", device="NVIDIA H200")]
    full = readme.rewritten("<!-- ratio -->\n<!-- end -->", paths, tmp_path)
    assert full.index("a machine") < full.index("NVIDIA H200")
    with pytest.raises(ValueError, match="no block <!-- ratio -->"):
        readme.rewritten("<!-- dwt -->\n<!-- end -->", paths, tmp_path)


def test_a_result_names_its_text_and_command_without_folders(tmp_path):
    book = tmp_path / "book.txt"
    book.write_bytes(b"abc")
    options = Options(source=str(book), checkpoint=(str(tmp_path / "runs" / "passkey" / "version_0"),), repeats=3)
    runs = [{"seed": 1, "commit": "b"}, {"seed": 0, "commit": "a"}]
    found = results.result("long", runs, options, members=5)
    assert found["source"] == {
        "name": "book.txt",
        "files": 1,
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert found["commit"] == "a, b" and found["seeds"] == [0, 1] and found["members"] == 5
    assert str(tmp_path) not in json.dumps(found)
    said = results.caption(found, book.relative_to(tmp_path))
    assert "2 of 5 members" in said and "book.txt (3 bytes, sha256 ba7816bf8f01)" in said
    assert "--repeats 3 --source book.txt --checkpoint runs/passkey/version_0" in said
