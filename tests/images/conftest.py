"""The images as `make images` made them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from stepcoder import images


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """An engine that has both images."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker Engine answers: {error}")
    for image in (images.TOOLS, images.TRAINER):
        try:
            client.images.get(image)
        except DockerException:
            pytest.skip(f"there is no image {image}: make images")
    yield client
    client.close()


@pytest.fixture
def own_tmp() -> Iterator[Path]:
    """A folder for TMPDIR: by it the sandbox containers of a test are told from those of tests beside it.

    Its path is short, because a socket's may not be long.
    """
    with tempfile.TemporaryDirectory(prefix="box-") as folder:
        yield Path(folder)
