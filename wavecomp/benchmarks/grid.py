"""Grids of long runs: each member is kept in a file of its own as soon as it is done.

So a grid that was stopped goes on where it stopped, and a member that fails loses no other.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from wavecomp.benchmarks.measure import Options, Run

Member = Callable[[], Run]


def run(folder: Path, members: Mapping[str, Member], options: Options) -> list[Run]:
    """What all members gave, those that were done before included; those that failed are told and left out.

    Args:
        folder: in it, under ``full`` or ``small``, is ``NAME.json`` of each member.
        members: by name; a ``functools.partial`` of a function of a module where there is more than one job.
        options: jobs, which work at once and share out the threads, and which members.
    """
    folder = folder / ("small" if options.small else "full")
    if options.only:
        members = {name: member for name, member in members.items() if name.startswith(options.only)}
    missing = {name: member for name, member in members.items() if not (folder / f"{name}.json").exists()}
    folder.mkdir(parents=True, exist_ok=True)
    if options.jobs == 1:
        for name, member in missing.items():
            _run(folder, name, member)
    else:
        context = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // options.jobs)
        with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (threads,)) as pool:
            for future in [pool.submit(_run, folder, name, member) for name, member in missing.items()]:
                future.result()
    paths = [folder / f"{name}.json" for name in members]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _run(folder: Path, name: str, member: Member) -> None:
    try:
        result = member()
    except Exception:  # one member's failure costs no other's result
        logging.getLogger(__name__).error("%s failed:\n%s", name, traceback.format_exc())
        return
    write(folder / f"{name}.json", result)


def write(path: Path, content: object) -> None:
    """JSON under its final name when it is complete, and not before."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)
