"""A sandbox in a locked container on this machine: the service behind a Unix socket, in a folder only we can enter.

The container has no network, no capability, nothing to write to but a small `/tmp` in memory, and bounds on processes,
memory and processors. The folder is its only mount, and closed to it once the socket is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
from docker.errors import DockerException, ImageNotFound, NotFound

from stepcoder import images
from stepcoder.errors import StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.sandbox.job import Job, Sandbox, Verdict
from stepcoder.sandbox.remote import RemoteSandbox

IMAGE_VARIABLE = "STEPCODER_SANDBOX_IMAGE"
FOLDER_PREFIX = "stepcoder-docker-"
INSIDE = "/run/stepcoder"
SOCKET = "sandbox.sock"
START_SECONDS = 60.0
LOOK_SECONDS = 0.1
USER = "65534:65534"

SERVICE_MIB, SLOT_MIB = 512, 1024
"""Memory of the service with its stores, and of a slot: a program's default limit, its interpreter and its judge."""
SERVICE_PIDS, SLOT_PIDS = 64, 192
TMP_MIB = 256

LABEL = "stepcoder.sandbox"
OWNER_LABEL = f"{LABEL}.owner"
FOLDER_LABEL = f"{LABEL}.folder"

log = get_logger("sandbox")


class ContainerSandbox(Sandbox):
    """A sandbox service in a container of its own, which ends with this object."""

    def __init__(self, slots: int) -> None:
        """Starts the container and waits until it can judge.

        Raises:
            StepCoderError: Docker cannot be reached, the image is not there, or the service does not come up; the
                container's log is in the message.
        """
        self._process = os.getpid()
        self.folder: Path
        """The folder of the socket, for another container that is to reach it; its name there is `SOCKET`."""
        client = docker_client()
        remove_orphans(client)
        # The outer folder keeps other users of this machine out; the inner one lets the container's user in.
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        room = folder / "room"
        room.mkdir()
        room.chmod(0o777)
        self.folder = room
        held: list[Any] = []
        self._finalizer = weakref.finalize(self, _clean_up, client, held, folder, self._process)
        try:
            held.append(_start(client, room, folder, slots))
            _await_socket(held[0], room / SOCKET)
            room.chmod(0o755)  # from now on nothing in the container can fill this disk, or put another socket there
            self._remote = _connect(held[0], room / SOCKET)
        except BaseException:
            self._finalizer()
            raise

    def submit(self, job: Job) -> Future[Verdict]:
        """Judge one job in the background. The future never raises for what the program did."""
        return self._remote.submit(job)

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Judge jobs and wait: verdicts in the order of the jobs."""
        return self._remote.judge(jobs)

    def close(self) -> None:
        """Ends the container. Jobs that have no verdict yet give `infra_error`."""
        if os.getpid() != self._process:
            return
        self._remote.close()
        self._finalizer()


def docker_client() -> Any:
    """The Docker Engine's client.

    Raises:
        StepCoderError: it cannot be reached.
    """
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise StepCoderError(f"Docker cannot be reached: {error}; start it, or set DOCKER_HOST") from error
    return client


def options(room: Path, folder: Path, slots: int) -> dict[str, Any]:
    """How the container is locked."""
    memory = f"{SERVICE_MIB + slots * SLOT_MIB}m"
    return {
        "command": ["sandbox", "serve", "--uds", f"{INSIDE}/{SOCKET}", "--slots", str(slots)],
        "labels": {LABEL: "1", OWNER_LABEL: owner(), FOLDER_LABEL: str(folder)},
        "user": USER,
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": {str(room): {"bind": INSIDE, "mode": "rw"}},
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_MIB}m,mode=1777"},
        "shm_size": "16m",
        "pids_limit": SERVICE_PIDS + slots * SLOT_PIDS,
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": slots * 10**9,
        # Reaps what judged programs leave behind when their zygote dies.
        "init": True,
        "log_config": {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "1"}},
        "detach": True,
    }


def owner() -> str:
    """This process, as a label: the machine, its boot, the process id and when the process started."""
    pid = os.getpid()
    return "/".join([*_here(), str(pid), _started(pid) or ""])


def remove_orphans(client: Any) -> None:
    """Removes containers and folders of owners on this machine that are dead."""
    try:
        found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    except DockerException as error:
        log.warning("orphans_not_looked_for", error=str(error))
        return
    for container in found:
        if _is_orphan(container.labels.get(OWNER_LABEL, "")):
            log.warning("orphan_removed", container=container.short_id)
            with contextlib.suppress(DockerException):
                container.remove(force=True, v=True)
            folder = Path(container.labels.get(FOLDER_LABEL, ""))
            if folder.name.startswith(FOLDER_PREFIX) and folder.parent == Path(tempfile.gettempdir()):
                shutil.rmtree(folder, ignore_errors=True)


def _start(client: Any, room: Path, folder: Path, slots: int) -> Any:
    image = os.environ.get(IMAGE_VARIABLE) or images.TOOLS
    try:
        container = client.containers.create(image, **options(room, folder, slots))
    except ImageNotFound as error:
        raise StepCoderError(
            f"there is no image {image!r} here: build it with `make image-tools`, or name another in {IMAGE_VARIABLE}"
        ) from error
    except DockerException as error:
        raise StepCoderError(f"the sandbox's container cannot be created: {error}") from error
    try:
        container.start()
    except DockerException as error:
        with contextlib.suppress(DockerException):
            container.remove(force=True, v=True)
        raise StepCoderError(f"the sandbox's container does not start: {error}") from error
    return container


def _await_socket(container: Any, path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (path.exists() and stat.S_ISSOCK(path.stat().st_mode)):
        container.reload()
        if container.status in ("exited", "dead"):
            raise StepCoderError(f"the sandbox's container ended at once:\n{log_of(container)}")
        if time.monotonic() > deadline:
            raise StepCoderError(
                f"the sandbox's container opened no socket within {START_SECONDS:.0f} s; is the Docker Engine on this "
                f"machine, with the same {path.parent}? Its log:\n{log_of(container)}"
            )
        time.sleep(LOOK_SECONDS)


def _connect(container: Any, path: Path) -> RemoteSandbox:
    try:
        # No token: only we can enter the socket's folder, and programs could find a token in there.
        return RemoteSandbox(f"http+unix://{quote(str(path))}", token="", ready_seconds=START_SECONDS)
    except StepCoderError as error:
        raise StepCoderError(f"{error}\nThe log of its container:\n{log_of(container)}") from error


def log_of(container: Any) -> str:
    """The end of what a container has printed."""
    try:
        return str(container.logs(tail=50).decode(errors="replace")).strip() or "(empty)"
    except DockerException as error:
        return f"(no log: {error})"


def _clean_up(client: Any, held: list[Any], folder: Path, process: int) -> None:
    if os.getpid() != process:  # a fork runs finalizers too, and owns nothing
        return
    for container in held:
        try:
            container.remove(force=True, v=True)
        except NotFound:
            pass
        except DockerException as error:
            log.warning("container_left", container=container.short_id, error=str(error))
    shutil.rmtree(folder, ignore_errors=True)
    client.close()


def _here() -> tuple[str, str, str]:
    """This machine, its boot and the namespace that process ids belong to."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    return (
        socket.gethostname(),
        boot.read_text().strip() if boot.exists() else "",
        os.readlink(namespace) if namespace.exists() else "",
    )


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _is_orphan(label: str) -> bool:
    """Whether the owner is known to be dead: what other machines and containers own is left alone."""
    host, _, rest = label.partition("/")
    boot, _, rest = rest.partition("/")
    namespace, _, rest = rest.partition("/")
    pid, _, started = rest.partition("/")
    our_host, our_boot, our_namespace = _here()
    if not pid.isdecimal() or host != our_host:
        return False
    if boot != our_boot:
        return True
    return namespace == our_namespace and _started(int(pid)) != started
