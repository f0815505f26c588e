"""The rooms, from the ground up: an import may only point down."""

import ast
import subprocess
import sys
from pathlib import Path

import wavecomp

ROOT = Path(wavecomp.__file__).parent
# a room may import from itself and from the rooms before it
FLOORS = [
    "allocator",
    "compiling",
    "modules",
    "records",
    "pace",
    "bands",
    "wavelets",
    "codes",
    "files",
    "positions",
    "compressors",
    "networks",
    "metrics",
    "plots",
    "report",
    "training",
    "benchmarks",
    "commands",
    "cli",
    "__main__",
]
ONLY_IN = {
    "lightning": {"training"},
    "matplotlib": {"plots", "report"},
    "pywt": {"wavelets", "benchmarks"},
    "ptwt": {"benchmarks"},
    "jsonargparse": {"training"},
}


def imports():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "wavecomp" else [node.module]
            else:
                continue
            for name in names:
                yield path, parts[0], name


def test_every_room_has_a_floor():
    rooms = {
        p.stem if p.suffix else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert rooms - {"__init__"} == set(FLOORS)


def test_arrows_point_down():
    seen = 0
    for path, room, name in imports():
        if name.startswith("wavecomp."):
            target = name.split(".")[1]
            assert FLOORS.index(target) <= FLOORS.index(room), f"{path} imports {name}, which lies above it"
            seen += 1
    assert seen > 50


def test_heavy_packages_stay_in_their_rooms():
    for path, room, name in imports():
        package = name.split(".")[0]
        if package in ONLY_IN:
            assert room in ONLY_IN[package], f"{path} imports {name}"


def test_forward_passes_do_not_wait_for_the_device():
    waiting = {"item", "tolist", "nonzero", "cpu", "numpy", "any", "all", "unique"}
    rooms = ("wavelets", "positions", "compressors", "networks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 15
    for path in [*files, ROOT / "codes.py", ROOT / "bands.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in waiting, f"{path}:{node.lineno} calls {node.attr}"


def test_importing_the_library_does_not_import_what_only_some_need():
    slow = ("lightning", "matplotlib", "torchmetrics", "jsonargparse", "huggingface_hub", "torch._dynamo", "sympy")
    code = f"import sys, wavecomp.cli, wavecomp.commands.ls; print([m for m in {slow} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_reached_from_the_top():
    assert len(wavecomp.__all__) > 20
    for name in wavecomp.__all__:
        assert getattr(wavecomp, name) is not None
