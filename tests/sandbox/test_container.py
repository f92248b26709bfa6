"""The sandbox in a container: locked, and gone when its owner is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from test_pool import jobs, stable

from stepcoder import images
from stepcoder.errors import StepCoderError
from stepcoder.problems import CallTest
from stepcoder.sandbox import Job, Limits, Sandbox, open_sandbox
from stepcoder.sandbox.container import FOLDER_LABEL, FOLDER_PREFIX, IMAGE_VARIABLE, LABEL, OWNER_LABEL, owner

pytestmark = pytest.mark.docker
IMAGE = os.environ.get(IMAGE_VARIABLE) or images.TOOLS


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker Engine answers: {error}")
    try:
        client.images.get(IMAGE)
    except DockerException:
        pytest.skip(f"there is no image {IMAGE}: make image-tools")
    yield client
    client.close()


@pytest.fixture(scope="module")
def contained(engine: Any) -> Iterator[Sandbox]:
    with open_sandbox("docker", 2) as sandbox:
        yield sandbox


def ours(engine: Any) -> set[str]:
    """Of this test's temporary folder: tests beside it start containers too."""
    found = engine.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    here = Path(tempfile.gettempdir())
    return {container.id for container in found if Path(container.labels[FOLDER_LABEL]).parent == here}


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"))


def test_verdicts_are_those_of_the_local_pool(contained: Sandbox, one_slot: Sandbox) -> None:
    verdicts = contained.judge(jobs())
    assert [stable(verdict) for verdict in verdicts] == [stable(verdict) for verdict in one_slot.judge(jobs())]


def test_the_container_is_locked(engine: Any, contained: Sandbox) -> None:
    attributes = engine.containers.get(ours(engine).pop()).attrs
    config, host = attributes["Config"], attributes["HostConfig"]
    assert config["User"] == "65534:65534"
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == 64 + 2 * 192
    assert host["Memory"] == host["MemorySwap"] == (512 + 2 * 1024) << 20
    assert host["NanoCpus"] == 2 * 10**9
    assert "noexec" in host["Tmpfs"]["/tmp"]
    assert [mount["Destination"] for mount in attributes["Mounts"]] == ["/run/stepcoder"]
    assert not [entry for entry in config["Env"] if "TOKEN" in entry or "SECRET" in entry]


def test_a_program_in_it_finds_nothing_to_write_no_network_and_no_privilege(contained: Sandbox) -> None:
    # Asked without writing anything: what may be written is a matter of rights and mounts.
    program = """
import os, socket
def f():
    mounts = [line.split() for line in open("/proc/mounts")] if os.access("/proc/mounts", os.R_OK) else []
    status = open("/proc/self/status").read() if os.access("/proc/self/status", os.R_OK) else ""
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
        network = True
    except OSError:
        network = False
    return [
        [place for place in ("/", "/run/stepcoder", "/opt/stepcoder", "/etc", "/home") if os.access(place, os.W_OK)],
        ["rw" for fields in mounts if fields[1] == "/" and "rw" in fields[3].split(",")],
        ["caps" for line in status.splitlines() if line.startswith("CapBnd") and int(line.split()[1], 16)],
        network,
        [name for name in os.environ if "STEPCODER" in name],
    ]
"""
    job = Job("x", program, (CallTest.of((), [[], [], [], False, []]),), "f", limits=Limits(cpu_seconds=3))
    verdict = contained.judge([job])[0]
    # An engine that keeps programs from files and sockets altogether may end it sooner: that is as good.
    assert verdict.passed or verdict.outcome.value in ("runtime_error", "security"), verdict.tests


def test_closing_leaves_no_container_and_no_folder(engine: Any) -> None:
    before = ours(engine), folders()
    sandbox = open_sandbox("docker", 1)
    assert len(ours(engine) - before[0]) == 1
    sandbox.close()
    sandbox.close()
    assert (ours(engine), folders()) == before


SCRIPT = """
import signal, sys, time
from stepcoder.sandbox import open_sandbox
# Tests that run in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sandbox = open_sandbox("docker", 1)
print("ready", flush=True)
if sys.argv[1] == "leave":
    sys.exit(0)
time.sleep(60)
"""


def start(how: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_that_ends_without_closing_leaves_nothing(engine: Any) -> None:
    before = ours(engine), folders()
    assert start("leave").wait(timeout=30) == 0
    assert (ours(engine), folders()) == before


def test_the_next_start_removes_what_a_killed_owner_left_and_nothing_else(engine: Any) -> None:
    before = ours(engine), folders()
    killed, living = start("stay"), start("stay")
    try:
        assert len(ours(engine) - before[0]) == 2
        killed.kill()
        killed.wait()
        with open_sandbox("docker", 1):
            assert len(ours(engine) - before[0]) == 2
            assert len(folders() - before[1]) == 2
        assert len(ours(engine) - before[0]) == 1
    finally:
        living.send_signal(signal.SIGINT)
        living.wait(timeout=30)
    assert (ours(engine), folders()) == before


def test_containers_of_other_machines_are_left_alone(engine: Any) -> None:
    labels = {LABEL: "1", OWNER_LABEL: "/".join(["elsewhere", *owner().split("/")[1:]]), FOLDER_LABEL: "/tmp/x"}
    other = engine.containers.create(IMAGE, labels=labels)
    try:
        open_sandbox("docker", 1).close()
        assert other.id in ours(engine)
    finally:
        other.remove(force=True)


def test_a_service_that_does_not_come_up_shows_its_log(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ours(engine), folders()
    # The image of today, with a setting that its command does not know.
    monkeypatch.setattr("stepcoder.sandbox.container.SOCKET", "x" * 120)
    started = time.monotonic()
    with pytest.raises(StepCoderError, match=r"(?s)container ended at once:.*107 bytes"):
        open_sandbox("docker", 1)
    assert time.monotonic() - started < 30
    assert (ours(engine), folders()) == before


def test_an_image_that_is_not_there_is_told(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ours(engine), folders()
    monkeypatch.setenv(IMAGE_VARIABLE, "stepcoder/nowhere:0")
    with pytest.raises(StepCoderError, match="no image 'stepcoder/nowhere:0' here: build it with `make image-tools`"):
        open_sandbox("docker", 1)
    assert (ours(engine), folders()) == before


def test_an_engine_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(StepCoderError, match="Docker cannot be reached"):
        open_sandbox("docker", 1)
