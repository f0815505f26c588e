"""Grids of long runs: each member is kept in a file of its own as soon as it is done.

So a grid that was stopped goes on where it stopped, and a member that fails loses no other. From a file of results it
goes on, too, wherever that was made.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

import torch

from wavecomp.allocator import keep_freed_memory
from wavecomp.benchmarks import results
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.files.output import end, write_whole

Member = Callable[[], Run]


def run(folder: Path, members: Mapping[str, Member], options: Options, earlier: Sequence[Run] = ()) -> list[Run]:
    """What all members gave, those that were done before included; those that failed are told and left out.

    Each is kept with its name as ``member``, the ``commit``, ``device`` and ``torch`` that it was run with, and
    the seconds that it ``took``.

    Args:
        folder: in it, under ``full`` or ``small`` and the hash of the text, is ``NAME.json`` of each member.
        members: by name; a ``functools.partial`` of a function of a module where there is more than one job.
        options: jobs, which work at once and share out the threads, and which members.
        earlier: runs of a file of results, which need not be run again.
    """
    folder = folder / ("small" if options.small else "full")
    if options.source is not None:
        folder = folder / results.text(options.source)["sha256"][:12]
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.json" for name in members}
    for entry in earlier:
        path = paths.get(entry.get("member", ""))
        if path is not None and not path.exists():
            write(path, entry)
    if not options.collect:
        missing = [name for name in asked(members, options) if not paths[name].exists()]
        _run_all({paths[name]: members[name] for name in missing}, options.jobs)
    return [json.loads(path.read_text()) for path in paths.values() if path.exists()]


def asked(members: Iterable[str], options: Options) -> list[str]:
    """The names of those members that run, unless they are done."""
    return [name for name in members if not options.only or name.startswith(options.only)]


def _run_all(missing: Mapping[Path, Member], jobs: int) -> None:
    commit = results.commit()
    if jobs == 1:
        for path, member in missing.items():
            _run(path, member, commit)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, _prepare, (threads,)) as pool:
        futures = [pool.submit(_run, path, member, commit) for path, member in missing.items()]
        try:
            for future in futures:
                future.result()
        except BaseException:  # nothing that was begun goes on, and nothing is begun
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                while process.is_alive():  # one that was handed a further member already begins that
                    process.terminate()
                    process.join(1)
            raise


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    signal.signal(signal.SIGTERM, end)  # a training that it began ends with it


def _run(path: Path, member: Member, commit: str) -> None:
    start = time.perf_counter()
    try:
        result = member()
    except Exception:  # one member's failure costs no other's result
        logging.getLogger(__name__).error("%s failed:\n%s", path.stem, traceback.format_exc())
        return
    told = {"member": path.stem, "commit": commit, "device": results.device(), "torch": metadata.version("torch")}
    write(path, result | told | {"took": round(time.perf_counter() - start, 1)})


def write(path: Path, content: object) -> None:
    """JSON under its final name when it is complete, and not before."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
