"""The judge's handle on a child: its messages, its clocks as the kernel counts them, its end."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import time

from stepcoder.sandbox.inside import frames

LEAST_WAIT_SECONDS = 0.01
LOOK_SECONDS = 0.03
MOST_THREADS = 100
QUEUED_SHARE = 0.9
"""Of the time on the wall clock, so much may have been spent waiting for a core."""
QUEUED_SECONDS = 0.2
"""Waiting for a core is told apart by tests to this accuracy: to ask for it costs as much as a small test."""
HEADER = frames.HEADER.size


class EndedError(Exception):
    """A child stopped before it sent what was awaited."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
        """`exit`, `cpu`, `wall`, `threads` or `flood`."""


class Child:
    """A process that holds one program; its messages, and its clocks as the kernel counts them."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self._link = link
        self._link.setblocking(False)
        self._buffer = bytearray()
        self._outbox = bytearray()
        self._clock = (~pid << 3) | 2  # the kernel's CPU clock of another process
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._cpu_mark = 0.0
        self._wall_mark = self._queued_at = time.monotonic()
        self._queued_mark = 0.0

    def cpu(self) -> float:
        """CPU seconds since the last `mark`; what the process cannot change."""
        try:
            return time.clock_gettime(self._clock) - self._cpu_mark
        except OSError:  # it is gone, and its clock with it
            return 0.0

    def mark(self, cpu: float | None = None) -> None:
        """Limits count from here, or from when the child had used `cpu` seconds."""
        self._cpu_mark = self._cpu_mark + self.cpu() if cpu is None else cpu
        self.mark_wall()

    def mark_wall(self) -> None:
        """The wall-clock limit counts from here; the CPU limit goes on."""
        self._wall_mark = time.monotonic()
        if self._wall_mark - self._queued_at > QUEUED_SECONDS:
            self._queued_mark, self._queued_at = self._queued(), self._wall_mark

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
                wall -= min(self._queued() - self._queued_mark, wall * QUEUED_SHARE)
            wall_left = wall_seconds - wall
            if wall_left <= 0:
                raise EndedError("wall")
            wait = max(LEAST_WAIT_SECONDS, min(cpu_left, wall_left, LOOK_SECONDS))
            self._poll.modify(self._link, select.POLLIN | select.POLLOUT if self._outbox else select.POLLIN)
            ready = dict(self._poll.poll(wait * 1000))
            if not ready and self.crowded():
                raise EndedError("threads")
            event = ready.get(self._link.fileno(), 0)
            if event & select.POLLOUT:
                self._write()
            if event & ~select.POLLOUT:
                gone = not self._read()

    def has_more(self) -> bool:
        """Whether the child sent something that nobody asked for."""
        self._read()
        return bool(self._buffer)

    def close(self) -> None:
        """Closes the judge's descriptor."""
        self._link.close()

    def _queued(self) -> float:
        """Seconds that its first thread was ready to run and had no core: no fault of the program's."""
        try:
            with open(f"/proc/{self.pid}/schedstat") as stat:
                return int(stat.read().split()[1]) / 1e9
        except (OSError, IndexError):  # gone, or a kernel that does not count it
            return 0.0

    def crowded(self) -> bool:
        """Whether the process has more threads than a program may have; no limit of the kernel counts them for root."""
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2 > MOST_THREADS
        except OSError:  # it is gone
            return False

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
    """A descriptor of a file in memory, at its start; with a `size` given, nobody can change that."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if size else 0))
    if size:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    if content:
        os.pwrite(descriptor, content, 0)
    return descriptor


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
