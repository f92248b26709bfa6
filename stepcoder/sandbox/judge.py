"""The `judge` step: programs by the thousand, JSON Lines in and out."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt

from stepcoder.errors import DataError
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import Progress, get_logger
from stepcoder.platform.storage import fetch, is_remote, staged
from stepcoder.problems import Format, Problem, read_entries
from stepcoder.problems.files import raise_all, read_rows
from stepcoder.sandbox.address import default_address, open_sandbox
from stepcoder.sandbox.job import Job, Limits, Sandbox, Verdict, job_of

REFERENCE = "reference"
IN_FLIGHT = 256
"""Programs that are with the sandbox at the same time."""

log = get_logger("judge")


class JudgeConfig(StepConfig):
    """Judge programs by the tests of their problems."""

    problems: str
    """The problems: a path or an `s3://` address."""
    format: Format
    """The form of the problems."""
    programs: str
    """JSON Lines with `id` (of a problem) and `program` in each, as a path or an address; or `reference`: the problems'
    own solutions."""
    out: str
    """Where the verdicts go: a path or an address. One JSON object a line, in the order of the programs."""
    slots: PositiveInt | None = None
    """Programs judged at the same time; default: one a core."""
    sandbox: str = Field(default_factory=default_address)
    """Where programs run: `local`; `unsafe`, the same where the kernel cannot isolate; `docker`; or the address of a
    service: `http://HOST:PORT`, `https://HOST`, `http+unix:///PATH/TO/SOCKET`. Not given: `$STEPCODER_SANDBOX`,
    else `local`."""
    twice: float = Field(default=0.0, ge=0, le=1)
    """Share of the programs that a local pool runs a second time, to count verdicts that differ."""
    trace: bool = True
    """Record which statements ran."""
    branches: bool = False
    """With `trace`: record also which arms of conditional expressions and of `and` and `or` ran."""
    cpu_seconds: PositiveFloat = 3.0
    """CPU seconds a test."""
    wall_seconds: PositiveFloat = 12.0
    """Wall-clock seconds a test, for programs that sleep."""
    memory_mib: PositiveInt = 512
    """Address space in MiB, beyond what the bare interpreter needs."""
    output_bytes: PositiveInt = 1 << 20
    """Bytes of standard output, or of a return value, a test."""
    stop_at_first_failure: bool = False
    """Leave out the tests after the first that fails."""


@dataclass(frozen=True)
class Judged:
    """What came of a judge step."""

    programs: int
    outcomes: dict[str, int]
    """How many programs met each outcome that occurred."""


class _Program(NamedTuple):
    problem: Problem
    text: str


class _Records(NamedTuple):
    problems: dict[str, Problem]
    faults: dict[str, str]
    """Id to what is wrong with the record."""


def judge(config: JudgeConfig) -> Judged:
    """Judges programs in bulk.

    Each line of the output holds `id`, `verdict`, `passed`, `tests` (outcome, exception, line, CPU seconds, the end of
    standard output, detail), `statements` (line, column, end line, end column, executed) and `branches` (the same of
    arms of expressions, where the setting asks for them). With `reference`, records
    that cannot be read are left out, each with a warning.

    Raises:
        DataError: the problems or programs are at fault; all faults are listed.
        StepCoderError: the output cannot be written.
    """
    if not is_remote(config.out) and Path(config.out).is_dir():
        raise DataError(f"{config.out}: is a folder; give the name of the file to write")
    records = _read_problems(config)
    if config.programs == REFERENCE:
        programs = [_Program(problem, problem.solution) for problem in records.problems.values()]
        for fault in records.faults.values():
            log.warning("left_out", reason=fault)
    else:
        programs = _read_programs(fetch(config.programs), records)
    limits = Limits(**config.model_dump(include=set(Limits.__dataclass_fields__)))
    counts: Counter[str] = Counter()
    bar = Progress(range(len(programs)), "judge")
    with staged(config.out) as path:
        path.rmdir()
        with (
            path.open("w", encoding="utf-8") as stream,
            open_sandbox(config.sandbox, config.slots, twice=config.twice) as sandbox,
            bar,
        ):
            jobs = (
                job_of(program.problem, program.text, limits=limits, trace=config.trace, branches=config.branches)
                for program in programs
            )
            for verdict in _verdicts(jobs, sandbox):
                counts[verdict.outcome.value] += 1
                stream.write(json.dumps(line_of(verdict)) + "\n")
                bar.advance()
    log.info("judged", programs=len(programs), **counts)
    return Judged(len(programs), dict(counts))


def line_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as one line of the output."""
    return {
        "id": verdict.id,
        "verdict": verdict.outcome.value,
        "passed": verdict.passed,
        "tests": [asdict(test) for test in verdict.tests],
        "statements": [[*statement.span, statement.executed] for statement in verdict.statements],
        "branches": [[*branch.span, branch.executed] for branch in verdict.branches],
    }


def _verdicts(jobs: Iterator[Job], sandbox: Sandbox) -> Iterator[Verdict]:
    """Verdicts in the order of the jobs, with a bounded number of them on their way."""
    waiting: deque[Future[Verdict]] = deque()
    for job in jobs:
        waiting.append(sandbox.submit(job))
        if len(waiting) >= IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_problems(config: JudgeConfig) -> _Records:
    """The problems by id; a faulty record matters only when a program names it."""
    records = _Records({}, {})
    twice: list[str] = []
    for entry in read_entries(fetch(config.problems), config.format):
        if entry.id in records.problems:
            twice.append(f"{entry.where}: id {entry.id!r} is also that of an earlier record")
        if entry.problem is None:
            records.faults[entry.id] = f"{entry.where}: {'; '.join(map(str, entry.faults))}"
        else:
            records.problems[entry.id] = entry.problem
    raise_all(twice)
    return records


def _read_programs(path: Path, records: _Records) -> list[_Program]:
    programs: list[_Program] = []
    faults: list[str] = []
    for row in read_rows(path):
        fault = row.fault or _fault_of(row.value, records)
        if fault:
            faults.append(f"{row.where}: {fault}")
        else:
            programs.append(_Program(records.problems[str(row.value["id"])], row.value["program"]))
    raise_all(faults)
    return programs


def _fault_of(record: Any, records: _Records) -> str | None:
    if not isinstance(record, dict):
        return "must be an object with `id` and `program`"
    name, program = record.get("id"), record.get("program")
    if isinstance(name, bool) or not isinstance(name, str | int):
        return "id: must be a problem's id, a string or an integer"
    if not isinstance(program, str):
        return "program: must be a string of Python source"
    if str(name) in records.faults:
        return f"id: the record of problem {name!r} is faulty: {records.faults[str(name)]}"
    if str(name) not in records.problems:
        near = get_close_matches(str(name), records.problems, n=1)
        return f"id: there is no problem {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return None
