"""Telling a webhook how the run ended: what is sent, what is tried again, and that nothing of it can do harm."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.notify import NotifyConfig, check_url, document, notify
from stepcoder.platform import tracking, webhook
from stepcoder.platform.tracking import pipeline_run

PATH = "/services/T0/B0/VERYSECRET"


class Server(ThreadingHTTPServer):
    """Answers each request as the next entry of `answers` says, the last one again and again."""

    def __init__(self, *answers: tuple[int, dict[str, str]], delay: float = 0.0) -> None:
        self.answers = list(answers)
        self.delay = delay
        self.taken: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PATH}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(self.server.delay)
        status, headers = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 0.05)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def failure(url: str, **more: Any) -> str:
    with pytest.raises(StepCoderError) as caught:
        webhook.post(url, {"text": "hello"}, **more)
    assert "VERYSECRET" not in str(caught.value)
    assert "VERYSECRET" not in repr(caught.value.__cause__)
    return str(caught.value)


def test_a_server_that_fails_for_a_while_is_told_once_it_is_well() -> None:
    with serving(Server((500, {}), (503, {}), (200, {}))) as server:
        webhook.post(server.url, {"text": "hello"})
    assert server.taken == [{"text": "hello"}] * 3


def test_a_server_that_fails_for_good_is_given_up() -> None:
    with serving(Server((500, {}))) as server:
        assert failure(server.url) == "answers status 500 (attempt 4 of 4)"
    assert len(server.taken) == webhook.ATTEMPTS


def test_a_request_that_is_refused_is_not_sent_again() -> None:
    with serving(Server((404, {}))) as server:
        assert failure(server.url) == "answers status 404 (attempt 1 of 4)"
    assert len(server.taken) == 1


def test_as_long_is_waited_as_the_server_asks_within_bounds() -> None:
    with serving(Server((429, {"Retry-After": "1"}), (200, {}))) as server:
        began = time.monotonic()
        webhook.post(server.url, {})
        assert 1.0 <= time.monotonic() - began < 10
    with serving(Server((429, {"Retry-After": "86400"}))) as server:
        assert "429 (attempt 1 of 4)" in failure(server.url, seconds=2.0)


def test_a_redirect_is_followed_nowhere() -> None:
    with serving(Server((200, {}))) as other, serving(Server((307, {"Location": other.url}))) as server:
        assert "redirects (status 307), which is not followed" in failure(server.url)
        assert (len(server.taken), other.taken) == (1, [])


def test_a_slow_server_a_silent_one_and_none_at_all_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "READ_SECONDS", 0.2)
    with serving(Server((200, {}), delay=1.0)) as server:
        assert failure(server.url) == "does not answer in time (attempt 4 of 4)"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}{PATH}") == "cannot be reached (attempt 4 of 4)"


def test_a_server_that_trickles_its_answer_does_not_hold_the_run() -> None:
    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                for _ in range(600):
                    connection.sendall(b"H")
                    time.sleep(0.05)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=(listener,), daemon=True).start()
        began = time.monotonic()
        assert failure(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}", seconds=1.0) == (
            "was not answered within 1 s"
        )
        assert time.monotonic() - began < 10


def test_a_certificate_that_nobody_trusts_is_not_sent_to(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-days", "1", "-nodes"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(certificate), *subject]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("openssl cannot make a certificate here")
    server = Server((200, {}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        assert failure(server.url.replace("http:", "https:")) == "its certificate is not trusted (attempt 1 of 4)"
    assert server.taken == []


@pytest.mark.parametrize(
    "url", ["hooks.slack.com/VERYSECRET", "ftp://host/VERYSECRET", "https:///VERYSECRET", "https://h:x/VERYSECRET"]
)
def test_an_address_that_is_none_is_told_without_it(
    url: str, inside_a_pipeline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCODER_NOTIFY_URL", url)
    with pytest.raises(DataError, match=r"STEPCODER_NOTIFY_URL: .*; mend STEPCODER_NOTIFY_URL in") as caught:
        check_url()
    assert "VERYSECRET" not in str(caught.value)
    assert "status=FAILED" in notify(NotifyConfig(status="FAILED"))


def test_slack_gets_a_text_and_every_other_host_the_values_too() -> None:
    values = {"pipeline": "weekly", "status": "FAILED", "failed_step": "sft", "error": "a < b & c"}
    slack = document("https://hooks.slack.com/services/T0/B0/X", values)
    assert slack == {"text": "weekly: FAILED at sft\nerror: a &lt; b &amp; c"}
    other = document("https://alerts.example/hook", values)
    assert other == {"text": "weekly: FAILED at sft\nerror: a < b & c", **values}


# --- the whole step --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def inside_a_pipeline(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv(tracking.RUN_ID, tmp_path.name)
    monkeypatch.setenv("STEPCODER_KUBEFLOW_URL", "https://kubeflow.example/pipeline/")


def test_the_message_has_the_step_its_error_without_secrets_and_a_link(
    inside_a_pipeline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse")
    pipeline_run.report_failure("sft", "refused: correct-horse " + "x" * 1000)
    with serving(Server((200, {}))) as server:
        monkeypatch.setenv("STEPCODER_NOTIFY_URL", server.url)
        notify(NotifyConfig(status="FAILED", pipeline="weekly", error="Task failed."))
    (sent,) = server.taken
    assert sent["failed_step"] == "sft"
    assert sent["text"].startswith("weekly: FAILED at sft\nerror: refused: *** xxx")
    assert len(sent["text"]) < 900
    assert f"https://kubeflow.example/pipeline/#/runs/details/{os.environ[tracking.RUN_ID]}" in sent["text"]
    assert "correct-horse" not in json.dumps(sent)


def test_the_message_has_pass_at_1_and_the_decision_of_the_gate(
    inside_a_pipeline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_run.report_outcome(pass_at_1="36.1 %", gate="promoted: the candidate beats the champion", version="c 7")
    with serving(Server((200, {}))) as server:
        monkeypatch.setenv("STEPCODER_NOTIFY_URL", server.url)
        notify(NotifyConfig(status="SUCCEEDED"))
    text = server.taken[0]["text"]
    assert text.startswith("stepcoder: SUCCEEDED\n")
    assert {"pass@1: 36.1 %", "gate: promoted: the candidate beats the champion", "version: c 7"} <= {*text.split("\n")}


def test_a_notification_that_fails_fails_nothing_and_leaves_no_address_in_the_log(
    inside_a_pipeline: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("STEPCODER_NOTIFY_URL", f"http://127.0.0.1:{port}{PATH}")
    with caplog.at_level(logging.DEBUG):
        assert "status=SUCCEEDED" in notify(NotifyConfig(status="SUCCEEDED"))
        with serving(Server((200, {}))) as server:
            webhook.post(server.url, {})
    assert "notification not sent" in caplog.text
    assert "VERYSECRET" not in caplog.text
