"""The MLflow record of steps in a real server with PostgreSQL and basic auth that is killed, away, or hard to reach."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepcoder.cli import main
from stepcoder.platform import history, tracking
from stepcoder.platform.tracking import Tracker, pipeline_run, unsent
from tests.servers import free_ports
from tests.servers.lossy import lossy_way
from tests.servers.mlflow_server import MlflowServer
from tests.servers.swift import Swift

pytestmark = pytest.mark.mlflow
STEPS = Path(__file__).with_name("record_steps.py")


@pytest.fixture
def server(
    mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> MlflowServer:
    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.delenv(tracking.RUN_ID, raising=False)
    monkeypatch.setenv(tracking.WAIT, "0")
    monkeypatch.setattr("stepcoder.platform.tracking.tracker.FLUSH_SECONDS", 0.1)
    monkeypatch.setattr("stepcoder.platform.tracking.tracker.RETRY_SECONDS", 0.1)
    return mlflow_server


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there; set as MLflow's while a test asks for it."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("stepcoder"), "propagate", True)
    caplog.set_level("INFO")
    return caplog


def runs(**tags: str) -> list[Any]:
    client = tracking.client()
    wanted = " and ".join(f"tags.`{name.replace('__', '.')}` = '{value}'" for name, value in tags.items())
    return list(client.search_runs([tracking.experiment_id(client)], wanted))


def points(run: str) -> Counter[tuple[str, int]]:
    """How many values MLflow has for each name and step."""
    client = tracking.client()
    names = client.get_run(run).data.metrics
    return Counter((name, point.step) for name in names for point in client.get_metric_history(run, name))


def once(names: tuple[str, ...], last: int) -> Counter[tuple[str, int]]:
    return Counter((name, step) for name in names for step in range(1, last + 1))


def attempt(folder: Path, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(STEPS), str(folder), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)


def test_a_pipeline_run_is_one_parent_with_a_run_a_step_and_its_artifacts_in_the_object_store(
    server: MlflowServer, swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "weekly-o'clock")
    pipeline_run.describe({"ppo": {"steps": 3}, "stages": 2})
    for step in ("sft", "ppo-stage-1", "ppo-stage-2", "evaluate"):
        with Tracker.start(step, tmp_path / step) as tracker:
            tracker.params({"step": step})
            tracker.metrics({"loss": 0.5}, step=1)
            if step == "evaluate":
                (tmp_path / step / "report.html").write_text("the report")
                tracker.artifact(tmp_path / step / "report.html")
    parent = pipeline_run.finish("FINISHED")
    assert parent is not None
    found = runs(mlflow__parentRunId=parent)
    assert sorted(run.info.run_name for run in found) == ["evaluate", "ppo-stage-1", "ppo-stage-2", "sft"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert tracking.client().get_run(parent).data.params == {"ppo.steps": "3", "stages": "2"}
    report = tracking.client().download_artifacts(tracker.run_id, "report.html", str(tmp_path))
    assert Path(report).read_text() == "the report"
    import boto3

    bucket = server.destination.split("/")[2]
    store = boto3.client("s3", **_credentials(swift))
    keys = [item["Key"] for item in store.list_objects_v2(Bucket=bucket)["Contents"]]
    assert [key for key in keys if key.endswith(f"{tracker.run_id}/artifacts/report.html")]


def _credentials(swift: Swift) -> dict[str, str]:
    return {
        "endpoint_url": swift.endpoint,
        "aws_access_key_id": swift.access_key,
        "aws_secret_access_key": swift.secret_key,
        "region_name": swift.region,
    }


def test_a_server_that_is_killed_and_comes_back_has_every_metric_once(
    server: MlflowServer, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """The answers of requests in flight are lost with the server; the step does not wait for it."""
    longest, comeback = 0.0, threading.Thread(target=server.start)
    with Tracker.start("sft", tmp_path) as tracker:
        tracker.params({"learning_rate": 0.1})
        for step in range(1, 401):
            began = time.monotonic()
            tracker.metrics({"loss": 1 / step, "reward": float(step), "levels": {"0": step}}, step=step)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.005)
            if step == 100:
                server.kill()
            elif step == 200:
                comeback.start()
        comeback.join()
    assert longest < 1
    assert tracker.run_id is not None
    assert points(tracker.run_id) == once(("loss", "reward", "levels/0"), 400)
    run = tracking.client().get_run(tracker.run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"learning_rate": "0.1"})
    assert len(runs(stepcoder__step="sft")) == 1
    assert log.text.count("MLflow cannot be reached") == 1
    assert log.text.count("MLflow answers again") == 1
    assert server.password not in log.text


def test_what_a_database_refuses_that_takes_no_writes_for_a_while_is_sent_when_it_does(
    server: MlflowServer, tmp_path: Path
) -> None:
    """As a standby after a failover: MLflow calls it a bad request, and nothing is wrong with the request."""
    hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    tracker = Tracker.start("sft", tmp_path)
    tracker.metrics({"loss": 1.0}, step=1)
    assert tracker.flush()
    server.sql("ALTER DATABASE mlflow SET default_transaction_read_only = on", hang_up)
    try:
        tracker.params({"learning_rate": 0.1})
        tracker.metrics({"loss": 0.5}, step=2)
        assert [tracker.flush() for _ in range(3)] == [False] * 3
    finally:
        server.sql("SET default_transaction_read_only = off", "ALTER DATABASE mlflow RESET ALL", hang_up)
    assert any(tracker.flush() for _ in range(5))
    assert points(tracker.run_id or "") == once(("loss",), 2)
    assert tracking.client().get_run(tracker.run_id).data.params == {"learning_rate": "0.1"}


def test_answers_that_get_lost_make_no_second_run_and_no_second_value(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "lossy")
    with lossy_way(server.port) as way:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{way.port}")
        tracker = Tracker.start("sft", tmp_path)
        tracker.params({"learning_rate": 0.1})
        tracker.tags({"kind": "test"})
        tracker.metrics({"loss": 1.0, "bad": math.nan}, step=1)
        # One answer more each time until the run is open; then each request is done, lost, and done again.
        for passing in range(30):
            way.passing = passing if tracker.run_id is None else 1
            if tracker.flush():
                break
        assert way.lost > 5
        assert tracker.run_id is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert points(tracker.run_id) == Counter({("loss", 1): 1, ("bad", 1): 1})
    assert len(runs(stepcoder__run_id="lossy", stepcoder__step="sft")) == 1
    assert len(runs(stepcoder__run_id="lossy", stepcoder__step="pipeline")) == 1


def test_a_killed_step_that_goes_on_sends_what_was_not_sent_and_nothing_twice(
    server: MlflowServer, away: str, tmp_path: Path
) -> None:
    """Inside a pipeline its run is found by the names of run and step, outside by its checkpoints."""
    for kind, environment in {"inside": {tracking.RUN_ID: "retried"}, "outside": {}}.items():
        checkpoint = tmp_path / f"{kind}.jsonl"
        # All arrives, but the checkpoint knows of the first half only: the second is done again.
        first = attempt(tmp_path / "1", checkpoint, 1, 20, "kill-when-sent", **environment)
        assert first.returncode == -signal.SIGKILL, first.stderr
        # Killed again, and MLflow was away all the time: only the checkpoint knows of its steps.
        second = attempt(tmp_path / "2", checkpoint, 11, 30, "kill-unsent", MLFLOW_TRACKING_URI=away, **environment)
        assert second.returncode == -signal.SIGKILL, second.stderr
        last = attempt(tmp_path / "3", checkpoint, 21, 40, "end", **environment)
        assert last.returncode == 0, last.stderr
        client = tracking.client()
        (run,) = [
            run
            for run in runs(stepcoder__step="sft")
            if (run.data.tags.get("stepcoder.run_id") == "retried") == (kind == "inside")
        ]
        assert run.info.status == "FINISHED"
        assert points(run.info.run_id) == once(("loss", "seconds_step", "levels/0"), 40)
        losses = client.get_metric_history(run.info.run_id, "loss")
        assert all(point.value == 1 / point.step for point in losses)
        for folder in ("1", "2", "3"):
            (tmp_path / folder / "metrics.jsonl").unlink(missing_ok=True)


def test_a_new_run_with_the_same_settings_is_a_new_run(server: MlflowServer, tmp_path: Path) -> None:
    for number in (1, 2):
        with Tracker.start("sft", tmp_path / str(number), "s3://checkpoints/abc") as tracker:
            tracker.metrics({"loss": float(number)}, step=1)
        assert points(tracker.run_id or "") == Counter({("loss", 1): 1})
    assert len(runs(stepcoder__step="sft")) == 2


def test_a_step_tried_again_after_a_failure_is_no_failed_run(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.RUN_ID, "second-try")
    tracker = Tracker.start("sft", tmp_path / "1")
    tracker.params({"out": "/tmp/first", "learning_rate": 0.1})
    with pytest.raises(OSError, match="node lost"), tracker:
        raise OSError("node lost")
    assert tracking.client().get_run(tracker.run_id).info.status == "FAILED"
    with Tracker.start("sft", tmp_path / "2") as again:
        # A parameter cannot be rewritten: the first stays, and nothing else is lost by it.
        again.params({"out": "/tmp/second", "learning_rate": 0.1, "new": 1})
        again.metrics({"loss": 0.5}, step=1)
        while again.run_id is None:
            time.sleep(0.05)
        assert tracking.client().get_run(again.run_id).info.status == "RUNNING"
    assert again.run_id == tracker.run_id
    run = tracking.client().get_run(again.run_id)
    assert run.info.status == "FINISHED"
    assert tracking.ERROR_TAG not in run.data.tags
    assert run.data.params == {"out": "/tmp/first", "learning_rate": "0.1", "new": "1"}
    assert run.data.metrics == {"loss": 0.5}


def test_what_is_left_when_a_step_ends_is_sent_later_and_once(
    server: MlflowServer,
    away: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By hand from the step's output, or by evaluate from the training record."""
    monkeypatch.setenv(tracking.RUN_ID, "left")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away)
    out = tmp_path / "policy"
    with Tracker.start("sft", out) as tracker:
        tracker.params({"learning_rate": 0.1})
        tracker.tags({"kind": "test"})
        for step in range(1, 31):
            tracker.metrics({"loss": 1 / step, "norm": math.nan if step == 7 else 1.0}, step=step)
        (out / "note.txt").write_text("hello")
        tracker.artifact(out / "note.txt", "notes")
    ended = time.time() * 1000
    assert "stepcoder send-metrics --folder OUTPUT" in log.text
    (out / "summary.json").write_text("{}")
    history.carry(None, str(out), str(tmp_path / "record"))

    # Whoever sends it does so in another pipeline run, or in none.
    monkeypatch.setenv(tracking.RUN_ID, "another")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    sent = []
    for _ in range(2):
        assert main(["send-metrics", "--folder", str(out)]) == 0
        sent.append(json.loads(capsys.readouterr().out))
    unsent.send_all([str(folder) for folder in history.steps(str(tmp_path / "record"))])
    assert sent[0] == sent[1]
    (run,) = runs(stepcoder__run_id="left", stepcoder__step="sft")
    assert (run.info.run_id, sent[0]["metrics"]) == (sent[0]["run_id"], 60)
    assert points(run.info.run_id) == once(("loss", "norm"), 30)
    client = tracking.client()
    assert math.isnan(next(p.value for p in client.get_metric_history(run.info.run_id, "norm") if p.step == 7))
    # Curves over time are those of the training.
    assert all(point.timestamp <= ended for point in client.get_metric_history(run.info.run_id, "loss"))
    assert (run.info.status, run.data.params, run.data.tags["kind"]) == ("FINISHED", {"learning_rate": "0.1"}, "test")
    assert [item.path for item in client.list_artifacts(run.info.run_id, "notes")] == ["notes/note.txt"]
    (parent,) = runs(stepcoder__run_id="left", stepcoder__step="pipeline")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id

    client.delete_run(run.info.run_id)
    unsent.send_all([str(out)])
    assert "was deleted in MLflow" in capsys.readouterr().err
    assert not runs(stepcoder__run_id="left", stepcoder__step="sft")


def test_a_step_waits_a_while_at_its_end_for_a_server_that_is_away(
    server: MlflowServer, away: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.WAIT, "30")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away)
    timer = threading.Timer(1.0, lambda: monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri))
    with Tracker.start("sft", tmp_path) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        timer.start()
    assert points(tracker.run_id or "") == Counter({("loss", 1): 1})
    assert not (tmp_path / unsent.UNSENT_NAME).exists()


def test_names_and_sizes_that_mlflow_does_not_take_are_made_to_fit(
    server: MlflowServer, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    with Tracker.start("evaluate", tmp_path) as tracker:
        tracker.params({f"p{number}": "ä" * 9000 for number in range(150)})
        tracker.tags({f"t{number}": "ä" * 9000 for number in range(120)} | {"broken": "a\0b\udc80c"})
        values = {f"m{number}": float(number) for number in range(1200)}
        odd = {"pass@1": 0.5, "a//b/": 1.0, "../up": 1.0, "x" * 300: 1.0, "inf": math.inf, "nan": math.nan, "ü": 1.0}
        tracker.metrics(values | odd, step=1)
    assert "refuses" not in log.text
    run = tracking.client().get_run(tracker.run_id)
    assert {len(value) for value in run.data.params.values()} == {6000}
    assert len(run.data.params) == 150
    assert {len(run.data.tags[f"t{number}"]) for number in range(120)} == {8000}
    assert run.data.tags["broken"] == "a?b?c"
    assert len(run.data.metrics) == 1207
    assert run.data.metrics["pass_1"] == 0.5
    assert run.data.metrics["inf"] > 1e308
    assert math.isnan(run.data.metrics["nan"])


def test_a_user_who_is_no_administrator_can_do_it_all(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    user = {"username": "trainer", "password": "a-password-of-its-own"}
    answer = requests.post(
        f"{server.uri}/api/2.0/mlflow/users/create", json=user, auth=(server.user, server.password), timeout=20
    )
    assert answer.status_code == 200, answer.text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", user["password"])
    monkeypatch.setenv(tracking.RUN_ID, "weekly-user")
    for _ in range(2):
        with Tracker.start("sft", tmp_path) as tracker:
            tracker.metrics({"loss": 1.0}, step=1)
    assert points(tracker.run_id or "") == Counter({("loss", 1): 1})
    assert pipeline_run.finish("FINISHED")


def test_a_wrong_password_stops_no_step_and_is_in_no_log(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", "//admin:wrong%40word:s%2Fcret@"))
    with Tracker.start("sft", tmp_path) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
    assert tracker.run_id is None
    assert "MLflow cannot be reached" in log.text
    assert "wrong" not in log.text
    assert "cret" not in log.text
