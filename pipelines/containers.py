"""Steps of a local run in containers: what they may see, and the locked container that judges their programs.

A step's container has no capability and no network unless an address needs one, and writes to `/tmp` and the run's
folder only. It runs as the user who started the run. Programs are judged in a container of their own, which all steps
reach by its socket.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from docker.errors import DockerException, ImageNotFound
from docker.types import Mount
from kfp import local

from stepcoder import images
from stepcoder.errors import StepCoderError
from stepcoder.platform import storage, tracking
from stepcoder.sandbox.address import cores
from stepcoder.sandbox.container import INSIDE, SOCKET, ContainerSandbox, docker_client
from stepcoder.sandbox.token import TOKEN_VARIABLE

SANDBOX: Final = f"http+unix://{INSIDE}/{SOCKET}"
"""The sandbox as steps in containers see it: always the same, so that it takes part in no cache key."""
LABEL: Final = "stepcoder.run"
FORWARDED: Final = ("AWS_", "HF_", "MLFLOW_", "OMP_", "STEPCODER_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the variables that steps get from this process."""
NOT_FORWARDED: Final = {"STEPCODER_HOME", "STEPCODER_SANDBOX", "STEPCODER_SANDBOX_IMAGE"}
"""They name places that only this process sees."""


def image_digest() -> str:
    """A digest of both images: steps of other images must not meet each other's results.

    Raises:
        StepCoderError: Docker cannot be reached, or an image is not there.
    """
    client = docker_client()
    try:
        return storage.text_digest(" ".join(client.images.get(name).id for name in (images.TOOLS, images.TRAINER)))
    except ImageNotFound as error:
        raise StepCoderError(
            f"{images.TOOLS} or {images.TRAINER} is not here: build both with `make images`"
        ) from error
    finally:
        client.close()


@contextmanager
def docker_runner(folder: Path, addresses: Iterable[str], sandboxes: Collection[str] = ()) -> Iterator[Any]:
    """The runner of kfp for containers, with a sandbox at `SANDBOX` for as long as the context lasts.

    Args:
        folder: The run's folder, which steps write to.
        addresses: Inputs of the run. What is a path here is shown to the steps, for reading.
        sandboxes: Sandboxes besides `SANDBOX` that the settings name; only they may learn the token.

    Raises:
        StepCoderError: Docker cannot be reached, or the sandbox does not start.
    """
    client = docker_client()
    addresses = list(addresses)
    run = os.environ["STEPCODER_RUN_ID"]
    store = tracking.tracking_uri()
    written = {folder}
    if store.startswith("sqlite:///"):
        written.add(Path(store.removeprefix("sqlite:///")).absolute().parent)
    read = {Path(address) for address in addresses if Path(address).exists()}
    certificates = os.environ.get("AWS_CA_BUNDLE", "")
    read |= {Path(certificates)} if certificates else set()
    alone = store.startswith("sqlite:///") and all(Path(address).exists() for address in addresses) and not sandboxes
    try:
        with ContainerSandbox(cores()) as sandbox:
            yield local.DockerRunner(
                environment=_environment(NOT_FORWARDED if sandboxes else {*NOT_FORWARDED, TOKEN_VARIABLE}),
                mounts=[
                    *(Mount(str(path), str(path), type="bind") for path in sorted(written)),
                    *(Mount(str(path), str(path), type="bind", read_only=True) for path in sorted(read)),
                    Mount(INSIDE, str(sandbox.folder), type="bind", read_only=True),
                ],
                # `host`, so that a server on this machine's loopback is reached by the address that it has here.
                network_mode="none" if alone else "host",
                user=f"{os.getuid()}:{os.getgid()}",
                read_only=True,
                tmpfs={"/tmp": "rw,nosuid,nodev,mode=1777"},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                shm_size="1g",
                labels={LABEL: run},
            )
    finally:
        # A run that is interrupted leaves the container of its step.
        for container in client.containers.list(filters={"label": f"{LABEL}={run}"}, ignore_removed=True):
            try:
                container.remove(force=True)
            except DockerException:  # it has just ended, and the engine removes it
                continue
        client.close()


def _environment(left_out: Collection[str]) -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name.upper().startswith(FORWARDED) and name not in left_out
    }
