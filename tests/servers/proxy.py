"""A proxy between a client and an HTTP server that does harm on demand.

It speaks for the server at another port of loopback, passes requests on as they are (signatures stay valid), and
counts them.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Harm = Literal[
    "refuse",  # the connection is closed instead of an answer; the server never hears of the request
    "lose answer",  # the server has done it, but its answer never comes
    "cut request",  # the connection ends in the middle of what the client sends
    "cut answer",  # … and in the middle of what the server sends
    "truncate answer",  # a shorter body, with a header that says so
    "flip request",  # one bit of the body changes on the way there
    "flip answer",  # … or back
    "delay",  # everything arrives, late
    "stall",  # nothing arrives for as long
    "500 InternalError",
    "503 SlowDown",
    "400 ExpiredToken",
    "403 AccessDenied",
    "501 NotImplemented",
]
_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Fault:
    """Harm to the requests that it fits, as often as asked for."""

    harm: Harm
    method: str = ".*"
    """Regular expression of the whole method."""
    path: str = ""
    """Regular expression of a part of path and query."""
    times: int = 1
    skip: int = 0
    """Requests that fit and are spared first."""
    seconds: float = 0.0
    """Of a delay or a stall."""

    def takes(self, method: str, path: str) -> bool:
        if self.times <= 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """A running proxy."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of all requests."""
    answered: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of those that came through and back."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, *faults: Fault) -> None:
        """From now on, does this harm and no other, and counts anew."""
        with self.lock:
            self.faults, self.seen, self.answered = list(faults), [], []

    def _fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append((method, path))
            return next((fault for fault in self.faults if fault.takes(method, path)), None)


@contextmanager
def proxy(endpoint: str, certificate: Path | None = None) -> Iterator[Proxy]:
    """Starts a proxy for the server at `endpoint`, and stops it.

    Args:
        endpoint: URL of the server.
        certificate: file with a key and a certificate, for a proxy that speaks HTTPS.
    """
    server = urlsplit(endpoint)
    upstream = (server.hostname or "", server.port or 80)
    state = Proxy("")

    class Handler(_Handler):
        host, port = upstream
        proxy = state

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
    state.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{running.server_address[1]}"
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str
    port: int
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _pass_on(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            self._handle()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _handle(self) -> None:
        fault = self.proxy._fault(self.command, self.path)
        harm = fault.harm if fault else None
        if fault and harm in {"delay", "stall"}:
            time.sleep(fault.seconds)
        if harm in {"refuse", "stall"}:
            self._hang_up()
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if harm and harm[0].isdigit():
            self._answer_error(harm)
            return
        if harm == "flip request":
            body = _flipped(body)
        if harm == "cut request":
            self._send_half(body)
            self._hang_up()
            return
        status, headers, answer = self._ask(body)
        if harm == "lose answer":
            self._hang_up()
            return
        if harm == "flip answer":
            answer = _flipped(answer)
        if harm == "truncate answer" and answer:
            answer = answer[: len(answer) // 2]
            headers = [
                (name, str(len(answer)) if name.lower() == "content-length" else value) for name, value in headers
            ]
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if harm == "cut answer":
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            self._hang_up()
            return
        self.wfile.write(answer)
        with self.proxy.lock:
            self.proxy.answered.append((self.command, self.path))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            self._send(connection, body)
            answer = connection.getresponse()
            content = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            if self.command != "HEAD" and not any(name.lower() == "content-length" for name, _ in headers):
                headers.append(("Content-Length", str(len(content))))
            return answer.status, headers, content
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP | {"expect"}:
                connection.putheader(name, value)
        connection.endheaders(body or None)

    def _send_half(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with suppress(OSError):
            self._send(connection, body[: len(body) // 2])
        connection.close()

    def _answer_error(self, harm: str) -> None:
        status, code = harm.split()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as asked for</Message></Error>".encode()
        self.send_response_only(int(status))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body
