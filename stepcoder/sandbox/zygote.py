"""The judge's handle on a zygote: started by exec, it forks and reaps children in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import stepcoder
from stepcoder.sandbox.children import Child
from stepcoder.sandbox.inside import zygote

START_SECONDS = 60.0
REPLY_SECONDS = 15.0
END_SECONDS = 2.0

ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
}
"""All that a zygote is started with: constants, nothing of the trainer's environment."""


class ZygoteError(Exception):
    """The judge's own process is gone or does not answer: a fault of the judge, never of the program's verdict."""


class Zygote:
    """One zygote process and the folder in which its children run."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self._ending = threading.Lock()
        self.folder = Path(tempfile.mkdtemp(prefix="stepcoder-sandbox-"))
        room = self.folder / "room"
        room.mkdir()
        self._room = os.open(room, os.O_DIRECTORY | os.O_NOFOLLOW)
        self._errors = os.memfd_create("zygote-errors")
        libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        # A Python that was built with shared libraries in an odd place does not start without this one.
        inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            self._process = subprocess.Popen(
                # -S and -s: no site packages but those named here; -P: no folder of the script on the path.
                [
                    *(sys.executable, "-S", "-s", "-P", "-W", "ignore", "-X", "utf8", zygote.__file__),
                    *(str(theirs.fileno()), str(Path(stepcoder.__file__).parent), *libraries),
                ],
                env=ENVIRONMENT | inherited,
                cwd=room,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._control.settimeout(START_SECONDS)
        try:
            self.address_space: int = zygote.READY.unpack(self._reply(zygote.READY.size))[0]
        except ZygoteError:
            self.kill()
            raise
        self._control.settimeout(REPLY_SECONDS)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def fork(self, stdin: int, stdout: int, probes: int, clean: bool) -> Child:
        """A new child on these descriptors, which stay the caller's.

        Args:
            stdin: its standard input.
            stdout: its standard output.
            probes: its memory for executed statements.
            clean: empty its folder first: no other program lives in it.

        Raises:
            ZygoteError: the zygote does not answer.
        """
        if clean:
            self._clean_room()
        ours, theirs = socket.socketpair()
        try:
            request = zygote.REQUEST.pack(zygote.FORK, 0)
            socket.send_fds(self._control, [request], [theirs.fileno(), stdin, stdout, probes])
            message, descriptors, _, _ = socket.recv_fds(self._control, zygote.FORKED.size, 1)
            if len(message) != zygote.FORKED.size or len(descriptors) != 1:
                raise ZygoteError("the zygote hung up")
        except (OSError, ZygoteError) as error:
            ours.close()
            raise ZygoteError(f"the zygote does not fork: {error}") from error
        finally:
            theirs.close()
        return Child(zygote.FORKED.unpack(message)[0], descriptors[0], ours)

    def reap(self, child: Child) -> tuple[int, float]:
        """Ends a child and all it started.

        Returns:
            The wait status and the CPU seconds of the child and its descendants that were waited for.

        Raises:
            ZygoteError: the zygote does not answer.
        """
        try:
            self._control.send(zygote.REQUEST.pack(zygote.REAP, child.pid))
            status, seconds = zygote.REAPED.unpack(self._reply(zygote.REAPED.size))
        except OSError as error:
            raise ZygoteError(f"the zygote does not reap: {error}") from error
        return status, seconds

    def kill(self) -> None:
        """Ends the zygote and its children, and removes its folder. Can be called twice, and from any thread."""
        with self._ending:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # it ends its children when the judge hangs up
            try:
                self._process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._control.close()
            if self._errors >= 0:
                os.close(self._errors)
                os.close(self._room)
                self._errors = -1
            shutil.rmtree(self.folder, ignore_errors=True)

    def _reply(self, size: int) -> bytes:
        try:
            message = self._control.recv(size)
        except OSError as error:
            message, why = b"", f": {error}"
        else:
            why = ""
        if len(message) != size:
            errors = os.pread(self._errors, 2000, 0).decode(errors="replace").strip() if self._errors >= 0 else ""
            raise ZygoteError(f"the zygote hung up{why}{': ' if errors else ''}{errors}")
        return message

    def _clean_room(self) -> None:
        """Empties the folder in which the next child runs; the zygote's own working directory is the same folder."""
        try:
            # By its descriptor: a program may have put a link to some other folder in its place.
            if os.fstat(self._room).st_nlink == 0:
                raise ZygoteError("a program removed its folder")
            with os.scandir(self._room) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.name, dir_fd=self._room)
                    else:
                        os.unlink(entry.name, dir_fd=self._room)
        except OSError as error:
            raise ZygoteError(f"a program spoiled its folder: {error}") from error
