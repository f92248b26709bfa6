"""A private certificate authority, named once by `AWS_CA_BUNDLE`, is trusted by every library that speaks HTTPS."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import requests
import requests.certs

from stepcoder.platform.entry import running
from stepcoder.platform.tracking import mlflow_api

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")


class Server(NamedTuple):
    url: str
    authority: Path


class Answer(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An HTTPS server on loopback whose certificate nobody knows."""
    folder = tmp_path_factory.mktemp("authority")
    certificate, key = folder / "ca.crt", folder / "key.pem"
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=server -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    listening.daemon_threads = True
    listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Server(f"https://127.0.0.1:{listening.server_address[1]}", certificate)
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def surroundings(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `AWS_CA_BUNDLE` is given; what a step sets beside it goes again."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(server.authority))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_mlflow_the_webhook_and_the_hub_trust_it(server: Server) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(server.url, timeout=10)
    with running("step"):
        assert mlflow_api.client().search_experiments() == []
        assert requests.get(server.url, timeout=10).status_code == 200
        assert httpx.get(server.url, timeout=10).status_code == 200


def test_the_public_authorities_are_trusted_as_before() -> None:
    def known(file: str) -> int:
        return len(ssl.create_default_context(cafile=file).get_ca_certs())

    with running("step"):
        assert known(os.environ["REQUESTS_CA_BUNDLE"]) == known(requests.certs.where()) + 1
        assert os.environ["SSL_CERT_FILE"] == os.environ["REQUESTS_CA_BUNDLE"]


def test_what_is_named_for_a_library_of_its_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/mine.pem")
    with running("step"):
        assert os.environ["REQUESTS_CA_BUNDLE"] == "/mine.pem"
        assert os.environ["SSL_CERT_FILE"] != "/mine.pem"


def test_a_bundle_that_is_not_there_is_left_to_the_store_to_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing"))
    with running("step"):
        assert "SSL_CERT_FILE" not in os.environ
