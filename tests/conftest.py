"""What all tests share: one thread, a fresh log, and no silent skip where what a test needs is there."""

import logging
import os
from collections.abc import Generator, Iterator

import pytest

# Before torch is imported anywhere: figures and times must not depend on how many cores are free.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
