"""The judge's handle on its processes: a zygote started by exec, and the children it forks."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import stepcoder
from stepcoder.sandbox.inside import frames, zygote

START_SECONDS = 60.0
REPLY_SECONDS = 15.0
END_SECONDS = 2.0
LEAST_WAIT_SECONDS = 0.01
QUEUED_SHARE = 0.9
"""Of the time on the wall clock, so much may have been spent waiting for a core."""
HEADER = frames.HEADER.size

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


class EndedError(Exception):
    """A child stopped before it sent what was awaited."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
        """`exit`, `cpu`, `wall` or `flood`."""


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


class Child:
    """A process that holds one program; its messages, and its clocks as the kernel counts them."""

    def __init__(self, pid: int, pidfd: int, link: socket.socket) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._link = link
        self._link.setblocking(False)
        self._buffer = bytearray()
        self._outbox = bytearray()
        self._clock = (~pid << 3) | 2  # the kernel's CPU clock of another process
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._poll.register(pidfd, select.POLLIN)
        self._cpu_mark = 0.0
        self._wall_mark = time.monotonic()

    def cpu(self) -> float:
        """CPU seconds since the last `mark`; what the process cannot change."""
        try:
            return time.clock_gettime(self._clock) - self._cpu_mark
        except OSError:  # it is gone, and its clock with it
            return 0.0

    def mark(self, cpu: float | None = None) -> None:
        """Limits count from here, or from when the child had used `cpu` seconds."""
        self._cpu_mark = self._cpu_mark + self.cpu() if cpu is None else cpu
        self._wall_mark = time.monotonic()

    def mark_wall(self) -> None:
        """The wall-clock limit counts from here; the CPU limit goes on."""
        self._wall_mark = time.monotonic()

    def send(self, *messages: bytes) -> None:
        """Queues packed messages. What a child does not read at once leaves during `receive`, under its limits."""
        self._outbox += b"".join(messages)
        self._write()

    def receive(self, cpu_seconds: float, wall_seconds: float, most: int) -> tuple[bytes, bytes]:
        """The next message, its kind and payload, within limits that count from the last `mark`.

        Raises:
            EndedError: the process ended, used up a limit (it may still live), or sent more than `most` bytes.
        """
        gone = False
        while True:
            message = self._take(most)
            if message is not None:
                return message
            if gone:
                raise EndedError("exit")
            cpu_left = cpu_seconds - self.cpu()
            wall = time.monotonic() - self._wall_mark
            if cpu_left <= 0:
                raise EndedError("cpu")
            if wall > wall_seconds:
                wall -= min(self._queued(), wall * QUEUED_SHARE)
            wall_left = wall_seconds - wall
            if wall_left <= 0:
                raise EndedError("wall")
            wait = max(LEAST_WAIT_SECONDS, min(cpu_left, wall_left))
            self._poll.modify(self._link, select.POLLIN | select.POLLOUT if self._outbox else select.POLLIN)
            ready = dict(self._poll.poll(wait * 1000))
            event = ready.get(self._link.fileno(), 0)
            if event & select.POLLOUT:
                self._write()
            if event & ~select.POLLOUT:
                gone = not self._read()
            elif ready and not event:  # the process is gone; what it sent before was read
                gone = True

    def has_more(self) -> bool:
        """Whether the child sent something that nobody asked for."""
        self._read()
        return bool(self._buffer)

    def close(self) -> None:
        """Closes the judge's descriptors."""
        self._link.close()
        os.close(self._pidfd)

    def _queued(self) -> float:
        """Seconds that the process was ready to run and had no core: no fault of the program's."""
        total = 0
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/schedstat") as stat:
                    total += int(stat.read().split()[1])
        except (OSError, IndexError):  # gone, or a kernel that does not count it
            return 0.0
        return total / 1e9

    def _read(self) -> bool:
        try:
            data = self._link.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _write(self) -> None:
        try:
            del self._outbox[: self._link.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:  # the child is gone, which shows at the next `receive`
            self._outbox.clear()

    def _take(self, most: int) -> tuple[bytes, bytes] | None:
        if len(self._buffer) < HEADER:
            return None
        (length,) = frames.HEADER.unpack_from(self._buffer)
        if length > most:
            raise EndedError("flood")
        if len(self._buffer) < HEADER + length:
            return None
        message = bytes(self._buffer[HEADER : HEADER + length])
        del self._buffer[: HEADER + length]
        return message[:1], message[1:]


def memory_file(content: bytes = b"", size: int = 0) -> int:
    """A descriptor of a file in memory, at its start."""
    descriptor = os.memfd_create("job")
    if size:
        os.ftruncate(descriptor, size)
    if content:
        os.pwrite(descriptor, content, 0)
    return descriptor


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
