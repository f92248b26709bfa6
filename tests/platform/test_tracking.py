"""The MLflow record of a step, in a real database file, and without any server."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder.platform import pipeline_run, tracking
from stepcoder.platform.tracking import Tracker


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
    with Tracker.start("sft", tmp_path / "again") as again:
        pass
    pipeline_run.finish("FINISHED")
    client = tracking.client()
    assert client.get_run(killed.run_id).info.status == "KILLED"
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_params_metrics_tags_and_artifacts_arrive(store: None, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with Tracker.start("sft", tmp_path / "out") as tracker:
        tracker.params({"lr": 0.1, "sampling": {"top_p": 1.0}} | {f"p{number}": number for number in range(150)})
        tracker.tags({"dataset": "abc"})
        for step in range(1, 1101):
            tracker.metrics({"loss": 1 / step, "level_counts": {"0": 3, "1": step}}, step=step)
        tracker.artifact(tmp_path / "note.txt", "notes")
    client = tracking.client()
    run = client.get_run(tracker.run_id)
    assert "mlflow.parentRunId" not in run.data.tags
    assert (run.data.params["lr"], run.data.params["sampling.top_p"], len(run.data.params)) == ("0.1", "1.0", 152)
    history = client.get_metric_history(tracker.run_id, "level_counts/1")
    assert sorted((point.step, point.value) for point in history) == [(step, float(step)) for step in range(1, 1101)]
    assert [item.path for item in client.list_artifacts(tracker.run_id, "notes")] == ["notes/note.txt"]
    assert run.data.tags["dataset"] == "abc"


def test_a_failed_step_is_a_failed_run_with_its_error(store: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged"), Tracker.start("sft", tmp_path) as tracker:
        raise ValueError("diverged at step 3")
    run = tracking.client().get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["stepcoder.error"] == "ValueError: diverged at step 3"


def test_without_a_server_the_step_goes_on_and_says_so_once(
    dead_server: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("stepcoder"), "propagate", True)
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
    began = time.monotonic()
    with Tracker.start("sft", tmp_path) as tracker:
        for step in range(1, 301):
            tracker.metrics({"loss": 1.0}, step=step)
    assert time.monotonic() - began < 20
    assert tracker.run_id is None
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 300
    assert [record.name for record in caplog.records] == ["stepcoder.tracking"]
    assert "on disk" in caplog.text
    assert "secret" not in caplog.text


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
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss": None, "level_counts": {"0": 3}}
