"""The MLflow record of a step, in a real database file, and without any server."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder.platform import tracking
from stepcoder.platform.redaction import redacted
from stepcoder.platform.tracking import Tracker, pipeline_run


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def store(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.delenv(tracking.RUN_ID, raising=False)


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{free.getsockname()[1]}")
        # The credentials move there from the address, and leave with the test.
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
        monkeypatch.setenv(tracking.WAIT, "0")
        yield


def test_steps_of_one_pipeline_run_share_one_parent(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-7")
    runs = []
    for step in ("sft", "ppo-stage-1"):
        with Tracker.start(step, tmp_path / step) as tracker:
            tracker.metrics({"reward": 0.5}, step=1)
        runs.append(tracking.client().get_run(tracker.run_id))
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs}
    assert len(parents) == 1
    assert [run.info.run_name for run in runs] == ["sft", "ppo-stage-1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert pipeline_run.finish("FAILED") in parents
    parent = tracking.client().get_run(parents.pop())
    assert parent.info.status == "FAILED"


def test_the_end_of_the_pipeline_closes_what_a_killed_step_left_open(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-8")
    killed = Tracker.start("sft", tmp_path / "killed")
    killed.flush()
    with Tracker.start("evaluate", tmp_path / "other") as other:
        pass
    pipeline_run.finish("FAILED")
    client = tracking.client()
    assert client.get_run(killed.run_id).info.status == "KILLED"
    assert client.get_run(other.run_id).info.status == "FINISHED"


def test_a_step_that_is_killed_and_tried_again_goes_on_in_its_run(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-9")
    killed = Tracker.start("sft", tmp_path / "killed")
    killed.metrics({"loss": 0.5}, step=1)
    killed.flush()
    with Tracker.start("sft", tmp_path / "again") as again:
        again.resume(tmp_path / "killed" / "metrics.jsonl")
        again.metrics({"loss": 0.25}, step=2)
    assert again.run_id == killed.run_id
    history = tracking.client().get_metric_history(again.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 0.5), (2, 0.25)]


def test_params_metrics_tags_and_artifacts_arrive(store: None, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with Tracker.start("sft", tmp_path / "out") as tracker:
        tracker.params({"lr": 0.1, "sampling": {"top_p": 1.0}} | {f"p{number}": number for number in range(150)})
        tracker.tags({"dataset": "abc"})
        for step in range(1, 1101):
            tracker.metrics({"loss": 1 / step, "level_counts": {"0": 3, "1": step}}, step=step)
        tracker.metrics({"loss": 7.0}, step=1)  # The first value of a step counts.
        tracker.artifact(tmp_path / "note.txt", "notes")
    client = tracking.client()
    run = client.get_run(tracker.run_id)
    assert "mlflow.parentRunId" not in run.data.tags
    assert (run.data.params["lr"], run.data.params["sampling.top_p"], len(run.data.params)) == ("0.1", "1.0", 152)
    history = client.get_metric_history(tracker.run_id, "level_counts/1")
    assert sorted((point.step, point.value) for point in history) == [(step, float(step)) for step in range(1, 1101)]
    assert len(client.get_metric_history(tracker.run_id, "loss")) == 1100
    assert [item.path for item in client.list_artifacts(tracker.run_id, "notes")] == ["notes/note.txt"]
    assert run.data.tags["dataset"] == "abc"


def test_a_failed_step_is_a_failed_run_with_its_error(store: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged"), Tracker.start("sft", tmp_path) as tracker:
        raise ValueError("diverged at step 3")
    run = tracking.client().get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["stepcoder.error"] == "ValueError: diverged at step 3"


def test_no_secret_of_the_environment_gets_into_the_error_that_mlflow_shows(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hidden-token")
    with pytest.raises(ValueError, match="hidden"), Tracker.start("sft", tmp_path) as tracker:
        raise ValueError("401 for hidden-token")
    assert tracking.client().get_run(tracker.run_id).data.tags["stepcoder.error"] == "ValueError: 401 for ***"


def test_no_secret_gets_into_parameters_and_tags(store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters are sent before the step itself refuses an address with a password."""
    monkeypatch.setenv("STEPCODER_SANDBOX_TOKEN", "hidden-token")
    with Tracker.start("sft", tmp_path) as tracker:
        tracker.params({"sandbox": "http://user:hidden@sandbox:8000", "out": "s3://bucket/policy"})
        tracker.tags({"note": "judged with hidden-token"})
    run = tracking.client().get_run(tracker.run_id)
    assert run.data.params == {"sandbox": "http://***@sandbox:8000", "out": "s3://bucket/policy"}
    assert run.data.tags["note"] == "judged with ***"


def test_without_a_server_the_step_goes_on_and_says_so_once(
    dead_server: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("stepcoder"), "propagate", True)
    monkeypatch.setattr("stepcoder.platform.tracking.tracker.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("stepcoder.platform.tracking.tracker.RETRY_SECONDS", 0.0)
    with Tracker.start("sft", tmp_path) as tracker:
        for step in range(1, 301):
            tracker.metrics({"loss": 1.0}, step=step)
    assert tracker.run_id is None
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 300
    assert [record.name for record in caplog.records] == ["stepcoder.tracking"] * 2
    assert "on disk" in caplog.records[0].message
    assert "stepcoder send-metrics" in caplog.records[1].message
    assert "secret" not in caplog.text
    assert "secret" not in (tmp_path / "mlflow-unsent.json").read_text()


def test_a_server_that_takes_and_never_answers_does_not_hold_up_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(tracking.WAIT, "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with Tracker.start("sft", tmp_path) as tracker:
            longest = 0.0
            for step in range(1, 301):
                began = time.monotonic()
                tracker.metrics({"loss": 1.0}, step=step)
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.005)
    assert longest < 1.5
    assert (tmp_path / "mlflow-unsent.json").exists()


def test_what_a_late_server_missed_is_sent_when_it_answers(
    dead_server: None, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker.start("sft", tmp_path) as tracker:
        tracker.params({"lr": 0.1})
        tracker.metrics({"loss": 1.0}, step=1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
        tracker.metrics({"loss": 0.5}, step=2)
    run = tracking.client().get_run(tracker.run_id)
    assert run.data.params == {"lr": "0.1"}
    assert len(tracking.client().get_metric_history(tracker.run_id, "loss")) == 2


def test_metrics_on_disk_are_strict_json(store: None, tmp_path: Path) -> None:
    tracker = Tracker.start("sft", tmp_path)
    tracker.metrics({"loss": float("nan"), "level_counts": {0: 3}}, step=1)
    line = (tmp_path / "metrics.jsonl").read_text()
    told = json.loads(line, parse_constant=pytest.fail)
    assert time.time() - told.pop("unix_seconds") < 60
    assert told == {"step": 1, "loss": None, "level_counts": {"0": 3}}


@pytest.mark.parametrize(
    ("address", "clean", "user", "password"),
    [
        ("https://me:p%40ss@mlflow.example/base", "https://mlflow.example/base", "me", "p@ss"),
        ("https://mlflow.example:5000", "https://mlflow.example:5000", None, None),
        ("postgresql+psycopg2://me:secret@host/db", "postgresql+psycopg2://me:secret@host/db", None, None),
    ],
)
def test_credentials_in_a_server_s_address_move_into_mlflow_s_variables(
    address: str, clean: str, user: str | None, password: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URI": address, "USERNAME": "", "PASSWORD": ""}.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    assert tracking.tracking_uri() == clean
    assert os.environ.get("MLFLOW_TRACKING_USERNAME") == user
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") == password
    assert "secret" not in redacted(f"cannot open {address}: no route")
