"""A way to a server on which answers can get lost after the server has done its work."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class LossyWay:
    """Forwards connections from `port`; after `passing` more answers, connections are cut when an answer comes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.passing = 0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            asked = False
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is far and asked:
                        if not self.passing:
                            self.lost += 1
                            return
                        self.passing -= 1
                    asked = source is near
                    (far if source is near else near).sendall(data)


@contextmanager
def lossy_way(target: int) -> Iterator[LossyWay]:
    """Opens a way to a port of loopback, and closes it."""
    way = LossyWay(target)
    try:
        yield way
    finally:
        way.close()
