"""The command: ``python -m wavecomp.benchmarks NAME [--output FILE] ...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavecomp.benchmarks import dwt, grid, measure, quality, ratio, step

BENCHMARKS = {"dwt": dwt, "quality": quality, "ratio": ratio, "step": step}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be set."""
    parser.add_argument("name", choices=sorted(BENCHMARKS), metavar="NAME", help=", ".join(sorted(BENCHMARKS)))
    parser.add_argument("--output", type=Path, help="where the JSON goes; NAME.json here unless given")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repetitions of each measurement")
    parser.add_argument("--source", help="text to train on; the sources of Python's standard library unless given")
    parser.add_argument("--jobs", type=int, default=1, help="members of a grid that run at once")
    parser.add_argument(
        "--only", nargs="+", default=(), help="beginnings of the names of members, for a part of a grid"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")


def run(given: argparse.Namespace) -> None:
    """Measure, print a table and write every single run as JSON.

    Raises:
        ValueError: a count below 1.
    """
    for name in ("repeats", "jobs"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)} is too few; allowed: 1 and above")
    module = BENCHMARKS[given.name]
    options = measure.Options(given.repeats, given.small, given.jobs, given.source, tuple(given.only))
    runs = module.run(options)
    sys.stdout.write(module.table(runs) + "\n")
    grid.write(given.output or Path(f"{given.name}.json"), measure.result(given.name, runs))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wavecomp.benchmarks", description=__doc__)
    add_arguments(parser)
    try:
        run(parser.parse_args())
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
