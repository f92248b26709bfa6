"""Whether this container is healthy: the sandbox service in it answers, or there is none.

A step that runs once needs no check: its exit status says how it went. So the image can carry one check for both.
"""

from __future__ import annotations

import http.client
import socket
import sys
from pathlib import Path

TIMEOUT_SECONDS = 4.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Opens the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def service() -> list[str] | None:
    """The arguments of the service in this container, `stepcoder sandbox serve …`; None when there is none."""
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        for position in range(1, len(command) - 1):
            if command[position : position + 2] == ["sandbox", "serve"] and command[position - 1].endswith("stepcoder"):
                return command[position + 2 :]
    return None


def setting(arguments: list[str], name: str, default: str) -> str:
    """The value of `--name VALUE` or `--name=VALUE`."""
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return default


def main() -> int:
    """0 for healthy, 1 for a service that does not answer."""
    arguments = service()
    if arguments is None:
        return 0
    path = setting(arguments, "uds", "")
    host = setting(arguments, "host", "127.0.0.1")
    # All addresses are asked by the loopback one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = (
        UnixConnection(path)
        if path
        else http.client.HTTPConnection(host, int(setting(arguments, "port", "8000")), timeout=TIMEOUT_SECONDS)
    )
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"the sandbox service does not answer: {error}")
        return 1
    finally:
        connection.close()
    print(f"/healthz: {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
