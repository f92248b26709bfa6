"""The end of a run is told in one line, and telling it never fails."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stepcoder.notify import NotifyConfig, notify
from stepcoder.platform import tracking
from stepcoder.platform.tracking import pipeline_run


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def inside_a_pipeline(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv(tracking.RUN_ID, tmp_path.name)


def status_in_mlflow() -> str:
    client = tracking.client()
    run = tracking.parent_run(client, tracking.experiment_id(client))
    return str(client.get_run(run).info.status)


def test_a_failure_names_the_step_and_its_own_words(inside_a_pipeline: None) -> None:
    pipeline_run.report_failure("sft", "the dataset holds no problems")
    message = notify(NotifyConfig(status="FAILED", error="Task run failed."))
    assert "failed_step=sft" in message
    assert "error=the dataset holds no problems" in message
    assert status_in_mlflow() == "FAILED"


def test_an_early_failure_that_a_retry_mended_is_not_told(inside_a_pipeline: None) -> None:
    pipeline_run.report_failure("sft", "the object store was away")
    message = notify(NotifyConfig(status="SUCCEEDED"))
    assert "sft" not in message
    assert status_in_mlflow() == "FINISHED"


def test_outside_a_pipeline_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.RUN_ID, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "status=SUCCEEDED" in notify(NotifyConfig(status="SUCCEEDED"))
    assert "status=UNKNOWN" in notify(NotifyConfig(status="PENDING"))
    assert list(tmp_path.iterdir()) == []


def test_without_mlflow_the_run_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-7")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
        message = notify(NotifyConfig(status="FAILED", error="Task run failed."))
    assert "status=FAILED" in message
    assert "error=Task run failed." in message


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "CACHED"])
def test_success_is_success_by_each_name_that_kubeflow_has_for_it(state: str, inside_a_pipeline: None) -> None:
    message = notify(NotifyConfig(status=state))
    assert "status=SUCCEEDED" in message
    assert "failed_step" not in message
    assert status_in_mlflow() == "FINISHED"


@pytest.mark.parametrize("state", ["CANCELED", "CANCELLED"])
def test_a_run_that_was_cancelled_is_not_told_as_failed(state: str, inside_a_pipeline: None) -> None:
    assert "status=CANCELLED" in notify(NotifyConfig(status=state))
    assert status_in_mlflow() == "KILLED"


# Kubeflow 2.16 says so of every pipeline in a pipeline, however it ended.
@pytest.mark.parametrize("reported", [{"version": "stepcoder 3"}, {"outcome": "no new data"}])
def test_where_kubeflow_says_running_the_last_step_tells_of_success(
    reported: dict[str, str], inside_a_pipeline: None
) -> None:
    pipeline_run.report_failure("ppo-stage-1", "an attempt that a retry mended")
    pipeline_run.report_outcome(**reported)
    message = notify(NotifyConfig(status="RUNNING"))
    assert "status=SUCCEEDED" in message
    assert "ppo-stage-1" not in message
    assert status_in_mlflow() == "FINISHED"


def test_where_kubeflow_says_running_and_the_last_step_nothing_the_run_has_failed(inside_a_pipeline: None) -> None:
    pipeline_run.report_failure("sft", "the dataset holds no problems")
    message = notify(NotifyConfig(status="RUNNING"))
    assert "status=FAILED" in message
    assert "failed_step=sft error=the dataset holds no problems" in message
    assert status_in_mlflow() == "FAILED"


def test_a_state_that_tells_nothing_stays_unknown_without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    message = notify(NotifyConfig(status="RUNNING"))
    assert "status=UNKNOWN" in message
    assert "Kubeflow says RUNNING" in message
