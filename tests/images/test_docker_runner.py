"""Runs of `--runner docker` that do not go well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest
from docker_runs import ROOT

from pipelines.containers import LABEL
from stepcoder.sandbox.container import LABEL as SANDBOX_LABEL

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.local", "--preset", "smoke", "--runner", "docker", *arguments]
    environment = os.environ | {"STEPCODER_HOME": str(folder), "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left(engine: docker.DockerClient) -> list[str]:
    return [
        container.id
        for label in (LABEL, SANDBOX_LABEL)
        for container in engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    ]


def gone(engine: docker.DockerClient, before: list[str]) -> bool:
    """Whether nothing is left; the engine takes a moment to remove what has ended."""
    deadline = time.monotonic() + 20
    while left(engine) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    return left(engine) == before


def test_a_failed_step_fails_the_run_with_its_own_words(engine: docker.DockerClient, tmp_path: Path) -> None:
    before = left(engine)
    with start(tmp_path, "--set", "verification.sandbox=http+unix:///nowhere/socket") as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "/nowhere/socket" in output
    assert " failed\n" in output
    assert "MLflow:" not in output  # the summary of a run that went well
    assert gone(engine, before)


def test_an_interrupted_run_leaves_no_container(engine: docker.DockerClient, tmp_path: Path) -> None:
    before = left(engine)
    with start(tmp_path) as process:
        deadline = time.monotonic() + 120
        while not engine.containers.list(filters={"label": LABEL}):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert gone(engine, before)
