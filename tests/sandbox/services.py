"""Real services for the tests: `stepcoder sandbox serve` in a process of its own, and a proxy that cuts connections."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "STEPCODER_SANDBOX_TOKEN"


class Service:
    """A service's process."""

    def __init__(self, *arguments: str, token: str | None = None) -> None:
        self.lines: list[str] = []
        environment = {key: value for key, value in os.environ.items() if key != TOKEN} | {"PYTHONPATH": str(ROOT)}
        if token is not None:
            environment[TOKEN] = token
        where = () if "--uds" in arguments or "--port" in arguments else ("--port", "0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stepcoder.cli", "sandbox", "serve", *where, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"event=listening address=(\S+)", line):
                self.address = found[1]
                break
        else:
            raise AssertionError("".join(self.lines))
        # The pipe is read on, so that the service never waits for us.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it, and gives its exit status."""
        self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += self.process.stderr


@contextmanager
def serving(*arguments: str, token: str | None = None) -> Iterator[Service]:
    service = Service(*arguments, token=token)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.end()


class CuttingProxy:
    """Forwards TCP to a port; every few answers it cuts the connection in the middle of one (0: never)."""

    def __init__(self, port: int, every: int) -> None:
        self.connections = 0
        self.cuts = 0
        self.answers = 0
        self._port = port
        self._every = every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is server:
                        self.answers += 1
                        if self._every and self.answers % self._every == 0:
                            self.cuts += 1
                            client.sendall(data[: len(data) // 2])
                            return
                    key.data.sendall(data)
