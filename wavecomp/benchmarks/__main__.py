"""The command: ``python -m wavecomp.benchmarks NAME [--output FILE] ...``.

``readme`` is no benchmark: it writes the tables of the README anew from the files in ``recipes/results``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from wavecomp.allocator import keep_freed_memory
from wavecomp.benchmarks import grid, measure, readme, results
from wavecomp.files.output import clearing_away
from wavecomp.report.figure import write_figure

BENCHMARKS = ("cost", "dwt", "long", "positions", "quality", "ratio", "recipes", "step", "texts", "wavelets")
"""Modules of this room, each with ``run``, or ``members`` of a grid, and ``table``; sweeps also with ``figure``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be set."""
    names = [*BENCHMARKS, "readme"]
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--output", type=Path, help="where the JSON goes, and where a grid goes on from; NAME.json here unless given"
    )
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repetitions of each measurement")
    parser.add_argument("--source", help="text to train on; the sources of Python's standard library unless given")
    parser.add_argument("--checkpoint", nargs="+", default=(), help="folders of trained models, for long")
    parser.add_argument("--jobs", type=int, default=1, help="members of a grid that run at once")
    parser.add_argument(
        "--only", nargs="+", default=(), help="beginnings of the names of members, for a part of a grid"
    )
    parser.add_argument("--collect", action="store_true", help="run no member of a grid, take those that are done")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")


def run(given: argparse.Namespace) -> None:
    """Measure, print a table and write every single run as JSON, of a sweep also a picture beside it; or write the
    tables of the README.

    Raises:
        ValueError: a count below 1, or no member of a grid that is done.
        SystemExit: members of a grid that failed, after all else is written.
    """
    if given.name == "readme":
        readme.rewrite()
        return
    for name in ("repeats", "jobs"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)} is too few; allowed: 1 and above")
    options = measure.Options(
        repeats=given.repeats,
        small=given.small,
        jobs=given.jobs,
        source=given.source,
        only=tuple(given.only),
        collect=given.collect,
        checkpoint=tuple(given.checkpoint),
    )
    module = importlib.import_module(f"wavecomp.benchmarks.{given.name}")
    failed: set[str] = set()
    output = given.output or Path(f"{given.name}.json")
    if hasattr(module, "members"):
        members = module.members(options)
        earlier = results.runs_of(output, given.name, options)
        asked = grid.asked(members, options)
        if not asked:
            beginnings = sorted({name.partition("-")[0] for name in members})
            raise ValueError(f"--only {' '.join(given.only)} begins no member; they begin with {', '.join(beginnings)}")
        runs = grid.run(Path(f"{given.name}-members"), members, options, earlier)
        if not runs:
            why = "without --collect they are run" if given.collect else "those that ran failed, as told above"
            raise ValueError(f"no member of {given.name} is done; {why}")
        found = results.result(given.name, runs, options, members=len(members))
        if not given.collect:
            failed = {*asked} - {entry.get("member") for entry in runs}
    else:
        runs = module.run(options)
        found = results.result(given.name, runs, options)
    sys.stdout.write(module.table(runs) + "\n")
    grid.write(output, found)
    if hasattr(module, "figure"):
        write_figure(module.figure(runs), output.with_suffix(".png"), title=given.name)
    if failed:
        raise SystemExit(f"{len(failed)} of the members failed, as told above: {', '.join(sorted(failed))}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wavecomp.benchmarks", description=__doc__)
    add_arguments(parser)
    keep_freed_memory()
    try:
        with clearing_away():
            run(parser.parse_args())
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
