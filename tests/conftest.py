"""What all tests share: one thread, a fresh log, and no silent skip where what a test needs is there."""

import logging
import os
from collections.abc import Generator, Iterator

import pytest

from tests.servers import mlflow_server as mlflow_servers
from tests.servers import swift as swift_server

# Before torch is imported anywhere: figures and times must not depend on how many cores are free.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most tests of training have no MLflow; a step would wait a minute for it at its end.
os.environ.setdefault("STEPCODER_MLFLOW_WAIT", "0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With STEPCODER_REQUIRE=data[,…] a skipped test that is marked so is a failure."""
    report = yield
    required = {name for name in os.environ.get("STEPCODER_REQUIRE", "").split(",") if name}
    if report.skipped and any(item.get_closest_marker(name) for name in required):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {', '.join(sorted(required))} is required here"
    return report


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """Each test finds the log as the program does at its start."""
    logger = logging.getLogger("stepcoder")
    kept = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = kept


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[swift_server.Swift]:
    """A real object store, for tests marked `s3`."""
    if reason := swift_server.missing():
        pytest.skip(reason)
    with swift_server.swift(tmp_path_factory.mktemp("swift")) as store:
        yield store


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, swift: swift_server.Swift
) -> Iterator[mlflow_servers.MlflowServer]:
    """A real MLflow with PostgreSQL, basic auth and artifacts in the object store, for tests marked `mlflow`."""
    if reason := mlflow_servers.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("mlflow-server")
    with mlflow_servers.mlflow_server(folder, f"s3://{swift.bucket()}/artifacts", swift.environment) as server:
        yield server
