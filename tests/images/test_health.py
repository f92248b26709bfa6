"""The check in the images: right for the service, and for a step that runs once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from stepcoder import images

pytestmark = pytest.mark.docker

EVERY_SECOND = {"interval": 10**9, "timeout": 2 * 10**9, "retries": 2}
"""The image's own check, asked more often."""


@pytest.fixture(params=["tcp", "unix"])
def service(engine: docker.DockerClient, request: pytest.FixtureRequest) -> Iterator[Any]:
    where = {"tcp": ["--host", "0.0.0.0", "--port=8123"], "unix": ["--uds", "/tmp/sandbox.sock"]}[request.param]
    container = engine.containers.run(
        images.TOOLS,
        ["sandbox", "serve", "--slots", "1", *where],
        detach=True,
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        healthcheck=EVERY_SECOND,
    )
    yield container
    container.remove(force=True)


def comes_to(container: Any, status: str, seconds: float = 40) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        container.reload()
        if container.attrs["State"]["Health"]["Status"] == status:
            return True
        time.sleep(0.2)
    return False


def test_a_service_is_healthy_until_it_no_longer_answers(service: Any) -> None:
    assert comes_to(service, "healthy"), service.logs().decode()
    stopped = service.exec_run(["python", "-c", STOP])
    assert stopped.exit_code == 0, stopped.output
    assert comes_to(service, "unhealthy")


def test_a_step_that_runs_once_is_healthy(engine: docker.DockerClient) -> None:
    container = engine.containers.run(
        images.TOOLS, ["sh", "-c", "sleep 60"], detach=True, network_mode="none", healthcheck=EVERY_SECOND
    )
    try:
        assert comes_to(container, "healthy")
    finally:
        container.remove(force=True)


STOP = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    words = (process / "cmdline").read_bytes().split(b"\\0")
    if words[0].endswith(b"python") and b"serve" in words:
        os.kill(int(process.name), signal.SIGSTOP)
        break
else:
    raise SystemExit("there is no service")
"""
