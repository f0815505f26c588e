"""The command line: Lightning's ``fit | validate | test | predict``, and the modules of ``wavecomp.commands``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import select
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import wavecomp as wc
from wavecomp.allocator import keep_freed_memory
from wavecomp.files.output import clearing_away

USAGE = """usage: wavecomp COMMAND ...

  fit       --config RECIPE [--config OVERLAY] [--model.x ...]   train
  validate  --config RECIPE --ckpt_path FILE                     measure on the validation share
  test      --config RECIPE --ckpt_path FILE                     the same, under test/
  predict   --config RECIPE --ckpt_path FILE                     save the codes of the validation share
  ls                                                             list the recipes
  cp        RECIPE FILE                                          copy a recipe, to change it
  generate  --checkpoint FILE --prompt TEXT                      continue a text
  compress  FILE... --checkpoint FILE --output CODES             files to codes
  inspect   CODES                                                what is in a file of codes
  report    FILE --checkpoint FILE --output PAGE.html            a text as its codes see it, to look through
  plot      PLOT [FILE] [--checkpoint FILE] --output FIGURE      a figure: energy, kept codes, filters, and others
  bench     NAME                                                 measure how fast and how good it is
  doctor                                                         what is installed, and what it would run on

A RECIPE is a name that `wavecomp ls` shows, or a path; a checkpoint FILE may be the folder of its run.
`wavecomp COMMAND --help` lists what can be set, `wavecomp --debug COMMAND ...` shows where an error came from, and
`wavecomp --version` tells the version."""

LIGHTNING = ("fit", "validate", "test", "predict")
"""The commands of ``wavecomp.training.cli``, which takes seconds to import."""

COMMANDS = ("ls", "cp", "generate", "compress", "inspect", "report", "plot", "bench", "doctor")
"""The modules of ``wavecomp.commands``."""


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    args = sys.argv[1:] if args is None else args
    keep_freed_memory()
    try:
        try:
            dispatch(args)
        finally:
            print(end="", flush=True)  # what cannot be written is told here, not when the interpreter ends
    except BrokenPipeError as error:
        enough = nobody_reads()
        drop_output()
        if not enough:
            fail(error)
    except (ValueError, OSError) as error:
        drop_output()
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def dispatch(args: list[str]) -> None:
    """Run what the arguments name.

    Raises:
        ValueError: an unknown command, or an argument that is not allowed.
        OSError: a file that is not there or cannot be written.
    """
    match args:
        case [] | ["-h" | "--help"]:
            print(USAGE)
        case ["--version"]:
            print(f"wavecomp {wc.__version__}")
        case ["--debug", *rest]:
            debug(rest)
        case [command, *_] if command in LIGHTNING:
            with one_line(command):
                importlib.import_module("wavecomp.training.cli").run(args)
        case [command, *rest] if command in COMMANDS:
            run_command(command, rest)
        case [command, *_]:
            raise ValueError(f"command {command!r} is unknown; allowed: {', '.join([*LIGHTNING, *COMMANDS])}")


def debug(args: list[str]) -> None:
    """Run a command; after its line of error comes the traceback."""
    try:
        main(args)
    except SystemExit as stop:
        if stop.code == 2 and stop.__context__ is not None:
            traceback.print_exception(stop.__context__)
        raise


def run_command(name: str, args: list[str]) -> None:
    """Run one of ``wavecomp.commands``."""
    command = importlib.import_module(f"wavecomp.commands.{name}")
    parser = CommandParser(prog=f"wavecomp {name}", description=str(command.__doc__))
    command.add_arguments(parser)
    arguments = parser.parse_args(args)
    with one_line(name), clearing_away():
        command.run(arguments)


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """What no check of a command foresaw ends it in a line too: a library's own error, no memory."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        fail(f"{type(error).__name__}: {error}; `wavecomp --debug {name} ...` shows where it came from")


def nobody_reads() -> bool:
    """Whether who read the output, or the errors, has had enough: another pipe of a library may break too."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)  # errors are always told
    return bool(poll.poll(0))


def drop_output() -> None:
    """Let what cannot be written go nowhere, of which the interpreter would complain when it ends."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in a line; what can be set is in ``--help``."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; `{self.prog} --help` lists what can be set")


def fail(error: Exception | str) -> NoReturn:
    """End with one line that says what is wrong."""
    print(f"wavecomp: error: {clear(str(error))}", file=sys.stderr)
    raise SystemExit(2)


def clear(message: str) -> str:
    """What a parser says, without the types it tried and the values around the one that is wrong."""
    noise = ("Does not validate against", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(noise))
    before, at_class, innermost = text.rpartition("Problem with given class_path ")
    return f"in {innermost}" if at_class else before + innermost
