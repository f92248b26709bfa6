"""Commands in processes of their own, which a test may kill; the imports are paid for once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

Command = Callable[[Sequence[str]], int]
Forked = Callable[[Command, Sequence[str]], BaseProcess]


def forkserver() -> Forked:
    """Starts a command with its arguments; its exit status is the process's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.schedule", "kfp.client"])

    def start(command: Command, arguments: Sequence[str]) -> BaseProcess:
        # The server of processes has the environment of the time when it was started.
        process = context.Process(target=_exit_with, args=(command, list(arguments), dict(os.environ)))
        process.start()
        return process

    return start


def _exit_with(command: Command, arguments: Sequence[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    # Tests that run in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(command(arguments))
