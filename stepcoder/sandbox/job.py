"""What goes into the sandbox and what comes out: the interface, apart from any engine."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, Self

from stepcoder.problems.checker import EXACT, Checker
from stepcoder.problems.problem import Problem, Test


class Outcome(StrEnum):
    """What became of one test, or of a program over all its tests."""

    PASS = "pass"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    COMPILE_ERROR = "compile_error"
    SECURITY = "security"
    NOT_RUN = "not_run"
    """The test did not run: the program did not compile, or a setting stops at the first failure."""
    INFRA_ERROR = "infra_error"
    """The judge itself failed. Never a reward and never a pass."""


@dataclass(frozen=True)
class Limits:
    """What a program may use for each test."""

    cpu_seconds: float = 3.0
    """CPU seconds a test; a loaded machine does not turn a right program into a timeout."""
    wall_seconds: float = 12.0
    """Wall-clock seconds a test, for programs that sleep."""
    memory_mib: int = 512
    """Address space in MiB beyond what the bare interpreter needs."""
    output_bytes: int = 1 << 20
    """Bytes of standard output, or of an encoded return value, a test."""
    stop_at_first_failure: bool = False
    """Leave out the tests after the first that fails. Training needs them: it uses the union of executed statements."""


@dataclass(frozen=True)
class Job:
    """One program to be judged by one list of tests."""

    id: str
    program: str
    tests: tuple[Test, ...]
    entry_point: str
    preamble: str = ""
    """Runs before the program in the same namespace; it has no statements of its own in the verdict."""
    limits: Limits = field(default_factory=Limits)
    trace: bool = True
    """Record which statements ran."""
    run: int = 0
    """Tells repeated runs of one program apart: an equal job may be answered by an earlier verdict, another run not.
    It also seeds `random`: the same run gives the same verdict, another run may not."""
    checker: Checker = EXACT
    """Which answers to call and standard-input tests are right."""
    branches: bool = False
    """With `trace`: also record which arms of `a if c else b`, `x and y` and `x or y` ran."""

    @property
    def content(self) -> tuple[Hashable, ...]:
        """All that decides the verdict, besides the tests: what equal jobs have in common."""
        names = (self.program, self.preamble, self.entry_point)
        return *names, self.limits, self.trace, self.run, self.checker, self.branches


class Span(NamedTuple):
    """A place in the program as `ast` counts it: lines from 1, columns in UTF-8 bytes from 0, end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class Statement:
    """One statement of the program: the span of the code that is its own, and whether any test reached it.

    A compound statement's span is its header alone, from the keyword up to its body (decorators not included);
    a function's docstring belongs to the header. So spans never overlap, and they come in source order.
    """

    span: Span
    executed: bool


@dataclass(frozen=True)
class Branch:
    """One arm of a conditional expression or of a short-circuit, and whether any test evaluated it.

    `a if c else b` has the arms `a` and `b`; in `x and y or z` whatever is not evaluated always: `y` and `z`. The span
    is the arm's own, without brackets around it. Arms may lie in one another; they come in source order.
    """

    span: Span
    executed: bool


@dataclass(frozen=True)
class TestResult:
    """What one test showed."""

    outcome: Outcome
    exception: str | None = None
    """`Type: message` of the exception that ended the program, shortened."""
    line: int | None = None
    """The program's line that raised, from 1."""
    cpu_seconds: float = 0.0
    stdout_tail: str = ""
    """The last part of what the program printed, for a person."""
    detail: str = ""
    """One sentence for a person: what differed, or which limit was met. It may quote the expected value, so it
    stays on the judge's side."""


@dataclass(frozen=True)
class Verdict:
    """The result of a job. `outcome` is that of the first test that did not pass."""

    id: str
    outcome: Outcome
    tests: tuple[TestResult, ...]
    statements: tuple[Statement, ...] = ()
    """Every statement of the program with its state over all tests; empty when it did not compile or tracing is off."""
    lacking: tuple[str, ...] = ()
    """Layers of isolation that the machine which ran it does not have; empty when the program was fully isolated."""
    branches: tuple[Branch, ...] = ()
    """Arms of expressions, for a person; empty unless the job asks for them. Neither reward nor masks look at them."""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.outcome is Outcome.PASS

    @property
    def judged(self) -> bool:
        """Whether it says something about the program: a fault of the judge is neither pass nor failure."""
        return self.outcome is not Outcome.INFRA_ERROR


class Sandbox(Protocol):
    """Something that judges programs: a pool on this machine, a container, or a service."""

    def submit(self, job: Job) -> Future[Verdict]:
        """Judge one job in the background. The future never raises for what the program did."""
        ...

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Judge jobs and wait: verdicts in the order of the jobs."""
        futures = [self.submit(job) for job in jobs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """End all processes of the sandbox. Jobs that have not started give `infra_error`."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def job_of(
    problem: Problem,
    program: str,
    *,
    limits: Limits | None = None,
    trace: bool = True,
    branches: bool = False,
    id: str | None = None,
) -> Job:
    """The job that judges a program by a problem's tests; its id is the problem's unless another is given."""
    return Job(
        id=problem.id if id is None else id,
        program=program,
        tests=problem.tests,
        entry_point=problem.entry_point,
        preamble=problem.preamble,
        limits=limits or Limits(),
        trace=trace,
        checker=problem.checker,
        branches=branches,
    )


def broken(job: Job, detail: str) -> Verdict:
    """The verdict when the judge itself failed."""
    result = TestResult(Outcome.INFRA_ERROR, detail=detail)
    return Verdict(job.id, Outcome.INFRA_ERROR, (result,) * len(job.tests))
