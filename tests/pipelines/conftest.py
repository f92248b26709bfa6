"""Each test finds the log as the program does at its start; some find a server that answers as Kubeflow does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.forked import Forked, forkserver
from tests.servers.kubeflow_api import KubeflowApi, serve


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    logger = logging.getLogger("stepcoder")
    kept = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = kept


@pytest.fixture(scope="session")
def few_problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tenth of the shipped problems: verifying and tokenizing all of them takes half of a small run."""
    path = tmp_path_factory.mktemp("problems") / "few.jsonl"
    lines = (Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::10]))
    return path


@pytest.fixture
def no_kubeflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment leads to a Kubeflow, and tries follow each other at once."""
    from pipelines import kubeflow

    monkeypatch.setattr(kubeflow, "PAUSES", (0.01, 0.05, 0.2))
    for name in [name for name in os.environ if name.startswith(("KF_PIPELINES_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def api(no_kubeflow: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowApi]:
    """A server that answers by Kubeflow's published API models."""
    with serve() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.address)
        yield server


@pytest.fixture(scope="session")
def forked() -> Forked:
    """Starts a command in a process of its own."""
    return forkserver()
