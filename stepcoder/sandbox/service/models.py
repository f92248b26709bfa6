"""What goes over HTTP, typed: these models validate requests and make the OpenAPI document.

Answers are written by `wire` and not validated again: the models of answers only describe them, and a test holds both
together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StrictBool, StrictFloat, StrictInt

from stepcoder.problems.checker import EXACT, Checker
from stepcoder.problems.problem import Test
from stepcoder.sandbox.job import Limits, Outcome

MAX_JOBS = 256
"""Jobs of one request."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# The first fault is enough: a body can hold millions, and each would be told.
TestList = Annotated[tuple[Test, ...], FailFast()]


class Message(BaseModel):
    """Base of all that is sent: closed to unknown keys, and without infinities."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class JobLimits(Message):
    """What a program may use for each test. The server has a maximum for each."""

    cpu_seconds: StrictFloat = Field(default=Limits.cpu_seconds, gt=0)
    """CPU seconds a test."""
    wall_seconds: StrictFloat = Field(default=Limits.wall_seconds, gt=0)
    """Wall-clock seconds a test."""
    memory_mib: StrictInt = Field(default=Limits.memory_mib, gt=0)
    """Address space in MiB."""
    output_bytes: StrictInt = Field(default=Limits.output_bytes, gt=0)
    """Bytes of standard output, or of a return value, a test."""
    stop_at_first_failure: StrictBool = Limits.stop_at_first_failure
    """Leave out the tests after the first that fails."""


class JobMessage(Message):
    """One program to be judged by one list of tests."""

    id: str
    """Comes back in the verdict."""
    program: str
    """Python source."""
    tests: Digest
    """The digest of the test list."""
    entry_point: str
    """What call tests call: `name` or `Class.method`."""
    preamble: str = ""
    """Runs before the program in the same namespace."""
    limits: JobLimits = JobLimits()
    trace: StrictBool = True
    """Record which statements ran."""
    run: StrictInt = Field(default=0, ge=-(2**63), lt=2**63)
    """Tells repeated runs of one program apart, and seeds their random numbers."""
    checker: Checker = EXACT
    """Which answers to call and standard-input tests are right."""
    branches: StrictBool = False
    """Record which arms of expressions ran."""


class JudgeRequest(Message):
    """Jobs, and the test lists that the server may not have yet."""

    jobs: list[JobMessage] = Field(max_length=MAX_JOBS)
    """Up to 256 jobs. None is allowed: it tries the token."""
    tests: dict[Digest, TestList] = Field(default={}, max_length=MAX_JOBS)
    """Test lists by digest: the SHA-256 of the list as ASCII JSON without whitespace, keys in the order sent."""


class TestReport(Message):
    """What one test showed."""

    outcome: Outcome
    exception: str | None
    line: int | None
    cpu_seconds: float
    stdout_tail: str
    detail: str


class VerdictMessage(Message):
    """The result of a job."""

    id: str
    outcome: Outcome
    """That of the first test that did not pass."""
    tests: list[TestReport]
    statements: list[tuple[int, int, int, int, bool]]
    """Line, column, end line, end column of each statement, and whether it ran."""
    lacking: list[str]
    """Layers of isolation that the server's machine does not have."""
    branches: list[tuple[int, int, int, int, bool]]
    """Arms of expressions, like `statements`; empty unless asked for."""


class JudgeAnswer(Message):
    """Verdicts in the order of the jobs."""

    verdicts: list[VerdictMessage]


class Place(Message):
    """One fault of a request."""

    place: str
    """The path to it, for example `jobs.3.limits.cpu_seconds`."""
    fault: str


class Fault(Message):
    """Why a request was refused."""

    detail: str
    places: list[Place] = []


class Missing(Message):
    """Test lists that jobs name and the server does not have: send the request again with them."""

    detail: str
    missing: list[Digest]


class Alive(Message):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Message):
    """Whether programs can be judged now."""

    state: Literal["starting", "ready", "failed", "draining"]
    """`failed`: the self-test did not pass, and will not."""
    detail: str
    """What the self-test found, for a person."""
    lacking: list[str]
    """Layers of isolation that this machine does not have."""
    slots: int
    """Programs judged at the same time."""
    version: str
