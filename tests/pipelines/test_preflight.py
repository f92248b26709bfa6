"""The check before a run: settings, inputs and services in one message, each with what to mend."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.preflight import preflight

SECTIONS = ("verification", "sft", "ppo", "evaluation", "gate")


class Guarded(BaseHTTPRequestHandler):
    """A server behind a log-in that nobody passes."""

    def do_GET(self) -> None:
        body = b"You are not authenticated."
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def guarded() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "problems.jsonl").write_text("{}\n")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 100}')
    (model / "tokenizer_config.json").write_text("{}")
    (model / "model.safetensors").write_text("")
    return {"problems": str(tmp_path / "problems.jsonl"), "problem_format": "apps_plus", "base_model": str(model)}


def settings(**more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    short = {"max_prompt_tokens": 50, "max_new_tokens": 50}
    nothing: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    return nothing | {"sft": short, "ppo": short, "evaluation": short} | more


def test_settings_inputs_and_services_are_told_in_one_message(
    inputs: dict[str, Any], guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:open-sesame@{guarded}")
    monkeypatch.setenv("STEPCODER_NOTIFY_URL", "not-an-address/VERYSECRET")
    monkeypatch.setenv("STEPCODER_SANDBOX", "http://127.0.0.1:9")
    monkeypatch.setattr("stepcoder.preflight.SANDBOX_SECONDS", 0.1)
    (tmp_path / "file").write_text("")
    wrong = {**inputs, "problems": "/no/problems.jsonl", "checkpoints": str(tmp_path / "file")}
    with pytest.raises(DataError) as caught:
        preflight(wrong, settings(verification={"test": 0.0}, ppo={"max_prompt_tokens": 51, "max_new_tokens": 50}))
    lines = str(caught.value).splitlines()
    expected = [
        ("problems: ", "no such file"),
        ("checkpoints: ", "is a file"),
        ("registry: ", "MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN in the environment"),
        ("notify: ", "mend STEPCODER_NOTIFY_URL"),
        ("verification: test: is 0", "evaluate would have nothing"),
        ("settings: ppo: ", "101, and"),
        ("sandbox of verification, sft, ppo, evaluation: ", "STEPCODER_SANDBOX, STEPCODER_SANDBOX_TOKEN"),
    ]
    assert len(lines) == len(expected), lines
    for line, (begin, inside) in zip(lines, expected, strict=True):
        assert line.startswith(begin)
        assert inside in line
    assert "401" in lines[2]
    assert not any(secret in str(caught.value) for secret in ("open-sesame", "VERYSECRET"))


def test_wrong_settings_hide_nothing_else(
    inputs: dict[str, Any], guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{guarded}")
    with pytest.raises(DataError) as caught:
        preflight(inputs, settings(sft={"epoch": 1}))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["sft.epoch", "registry"]


def test_each_sandbox_of_the_settings_is_tried_and_a_service_that_is_away_is_no_bad_input(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("stepcoder.preflight.SANDBOX_SECONDS", 0.1)
    tried: list[str] = []

    def spy(address: str, seconds: float) -> tuple[str, ...]:
        tried.append(address)
        if address == "http://b:1":
            raise StepCoderError("away")
        return ()

    monkeypatch.setattr("stepcoder.preflight.check_ready", spy)
    short = settings()["sft"]
    with pytest.raises(StepCoderError, match=r"^sandbox of ppo: away; see the setting `sandbox` of ppo, or ") as caught:
        preflight(inputs, settings(sft={**short, "sandbox": "docker"}, ppo={**short, "sandbox": "http://b:1"}))
    assert caught.value.exit_status == 1
    assert tried == ["local", "docker", "http://b:1"]


@pytest.mark.parametrize(
    "given", [{}, {"MLFLOW_TRACKING_URI": "sqlite:////tmp/mlflow.db", "STEPCODER_SANDBOX": "unsafe"}]
)
def test_a_pod_of_kubeflow_keeps_no_records_and_runs_no_programs(
    inputs: dict[str, Any], given: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "STEPCODER_SANDBOX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"STEPCODER_HOME": str(tmp_path / "home"), "KFP_POD_NAME": "stepcoder-7", **given}.items():
        monkeypatch.setenv(name, value)
    short = settings()["sft"]
    with pytest.raises(DataError) as caught:
        preflight(inputs, settings(sft={**short, "sandbox": "local"}))
    registry, *sandboxes = str(caught.value).splitlines()
    assert registry.startswith("registry: ")
    assert "set MLFLOW_TRACKING_URI in the ConfigMap stepcoder to a server's address" in registry
    told = [line.partition(":")[0] for line in sandboxes]
    if given:
        assert told == ["sandbox of verification, ppo, evaluation", "sandbox of sft"]
    else:
        assert told == ["sandbox of verification, sft, ppo, evaluation"]
    assert all(
        "set STEPCODER_SANDBOX in the ConfigMap stepcoder to the address of a sandbox" in one for one in sandboxes
    )
    assert not (tmp_path / "home").exists()


def test_a_run_of_one_machine_may_be_in_a_notebooks_pod(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    monkeypatch.delenv("STEPCODER_SANDBOX", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("stepcoder.preflight.check_ready", lambda address, seconds: ())
    assert preflight(inputs, settings()).start_model == inputs["base_model"]
