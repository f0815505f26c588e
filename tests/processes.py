"""Processes that begin with the library already imported, which takes seconds."""

import multiprocessing
import os

from wavecomp import cli

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["wavecomp.training.cli"])


def start_command(*words, said, **environ):
    """The process of ``wavecomp WORDS``, which writes what it says to the file ``said``."""
    process = context.Process(target=_command, args=([str(word) for word in words], said, environ))
    process.start()
    return process


def _command(words, said, environ):
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environ)
    cli.main(words)
