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
from stepcoder.sandbox.container import FOLDER_LABEL

pytestmark = [pytest.mark.docker, pytest.mark.slow]


# Tests that run in the background ignore the signal of Ctrl-C, and what they start inherits that.
COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pipelines.local", run_name="__main__")
"""


def start(folder: Path, own_tmp: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "--preset", "smoke", "--runner", "docker", *arguments]
    environment = os.environ | {"STEPCODER_HOME": str(folder), "TMPDIR": str(own_tmp), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", str(folder / own_tmp.name)],
        cwd=ROOT,
        env=environment | {"MLFLOW_TRACKING_URI": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps(engine: docker.DockerClient, own_tmp: Path) -> list[str]:
    """Containers of the steps of a run that `start` began."""
    found = engine.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    return [container.id for container in found if container.labels[LABEL].startswith(own_tmp.name)]


def left(engine: docker.DockerClient, own_tmp: Path) -> list[str]:
    found = engine.containers.list(all=True, filters={"label": FOLDER_LABEL}, ignore_removed=True)
    sandboxes = [container.id for container in found if container.labels[FOLDER_LABEL].startswith(str(own_tmp))]
    return [*steps(engine, own_tmp), *sandboxes, *map(str, own_tmp.glob("stepcoder-docker-*"))]


def gone(engine: docker.DockerClient, own_tmp: Path) -> bool:
    """Whether nothing is left; the engine takes a moment to remove what has ended."""
    deadline = time.monotonic() + 20
    while left(engine, own_tmp) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not left(engine, own_tmp)


def test_a_failed_step_fails_the_run_with_its_own_words(
    engine: docker.DockerClient, tmp_path: Path, own_tmp: Path
) -> None:
    # A step's container has no engine.
    with start(tmp_path, own_tmp, "--set", "verification.sandbox=docker") as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "Docker cannot be reached" in output
    assert " failed\n" in output
    assert "MLflow:" not in output  # the summary of a run that went well
    assert gone(engine, own_tmp)


def test_an_interrupted_run_leaves_no_container(engine: docker.DockerClient, tmp_path: Path, own_tmp: Path) -> None:
    with start(tmp_path, own_tmp) as process:
        deadline = time.monotonic() + 120
        while not steps(engine, own_tmp):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert len(left(engine, own_tmp)) == 3
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert gone(engine, own_tmp)
