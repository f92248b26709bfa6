"""The client's handle on a supervisor: a process of its own for each slot."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import stepcoder
from stepcoder.errors import StepCoderError
from stepcoder.sandbox import supervision, wire
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.job import Job, Verdict
from stepcoder.sandbox.recent import Recent

ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "TZ": "UTC"}
INHERITED = ("LD_LIBRARY_PATH", "PATH")
"""What an odd installation of Python or of libseccomp may need to be found."""
# Without `site`, whose hooks may run anything; so the folders of packages are told.
START = """import sys
_, link, mode, root, *folders = sys.argv
sys.path += [root, *folders]
from stepcoder.sandbox.supervision import main
main(int(link), folders, unsafe=mode == "unsafe")
"""


TOLD_BYTES = 2000
"""Of what a supervisor wrote before it ended."""


class SupervisorError(Exception):
    """The supervisor is gone: a fault of the judge, never of a program's verdict."""


class Supervisor:
    """One supervisor process; not to be shared between threads, but for `kill`."""

    def __init__(self, unsafe: bool = False) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            StepCoderError: this system cannot run it.
            SupervisorError: it ended by itself.
        """
        ours, theirs = socket.socketpair()
        self._link = ours
        self._errors = os.memfd_create("supervisor-errors")
        self._known: Recent[str, bool] = Recent(wire.TEST_LISTS, wire.TEST_BYTES)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        folders = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        paths = [str(Path(stepcoder.__file__).parent.parent), *folders]
        mode = "unsafe" if unsafe else "safe"
        try:
            self._process = subprocess.Popen(
                [*(sys.executable, "-s", "-S", "-P", "-c", START), *(str(theirs.fileno()), mode), *paths],
                env=ENVIRONMENT | inherited,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
        try:
            kind, payload = frames.receive(ours.fileno())
        except (OSError, EOFError) as error:
            why = self._last_words()
            self.close()
            raise SupervisorError(f"the supervisor ended while it started: {why}") from error
        if kind == supervision.REFUSED:
            self.close()
            raise StepCoderError(f"the sandbox cannot start: {payload.decode()}")
        self.lacking: tuple[str, ...] = tuple(json.loads(payload))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def judge(self, jobs: Sequence[tuple[Job, wire.SentTests]]) -> list[Verdict]:
        """Verdicts in the order of the jobs.

        Raises:
            SupervisorError: the process is gone; all of the jobs can be tried again.
        """
        link = self._link.fileno()
        try:
            for job, tests in jobs:
                if not self._known.get(tests.digest):
                    frames.send(link, supervision.TESTS, tests.digest.encode() + tests.text.encode())
                    self._known.put(tests.digest, True, len(tests.text))
                frames.send(link, supervision.JOB, json.dumps(wire.job_to_data(job, tests.digest)).encode())
            frames.send(link, supervision.END, b"")
            _, payload = frames.receive(link)
        except (OSError, EOFError) as error:
            raise SupervisorError(f"the supervisor hung up: {self._last_words() or error}") from error
        return wire.load_verdicts(payload)

    def kill(self) -> None:
        """Ends the process and all that it started. Can be called twice, and from any thread."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # a thread that waits for an answer wakes up
            self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the process and gives its descriptors back."""
        self.kill()
        self._link.close()
        os.close(self._errors)

    def _last_words(self) -> str:
        """The end of what the process wrote to its standard error."""
        size = os.fstat(self._errors).st_size
        return os.pread(self._errors, TOLD_BYTES, max(0, size - TOLD_BYTES)).decode(errors="replace").strip()
