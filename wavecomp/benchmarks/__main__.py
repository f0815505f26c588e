"""The command: ``python -m wavecomp.benchmarks NAME [--output FILE] [--repeats N]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from wavecomp.benchmarks import dwt, measure, quality, ratio

BENCHMARKS = {"dwt": dwt, "quality": quality, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wavecomp.benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--output", type=Path, help="where the JSON goes; NAME.json here unless given")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repetitions of each measurement")
    parser.add_argument("--source", help="text to train on; the sources of Python's standard library unless given")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats} is too few; allowed: 1 and above")
    module = BENCHMARKS[given.name]
    runs = module.run(repeats=given.repeats, small=given.small, source=given.source)
    print(module.table(runs))
    measure.write(given.output or Path(f"{given.name}.json"), given.name, runs)


if __name__ == "__main__":
    main()
