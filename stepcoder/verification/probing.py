"""What reference solutions need before they can run: modules that can be imported, and a preamble that works."""

from __future__ import annotations

from collections.abc import Sequence

from stepcoder.problems import Problem, StdinTest
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, TestResult
from stepcoder.verification import static
from stepcoder.verification.judging import REASONS, settled
from stepcoder.verification.reasons import Reason, Rejection


def unfit(problems: Sequence[Problem], sandbox: Sandbox, limits: Limits) -> dict[str, Rejection]:
    """The problems, by id, whose solution imports what the sandbox has not, or whose preamble fails.

    Each module and each different preamble is tried once.

    Raises:
        StepCoderError: the sandbox failed.
    """
    imports = {problem.id: static.imported(problem) for problem in problems}
    missing: dict[str, str] = {".": "a relative import, but the solution is no package"}
    for name in sorted(set[str]().union(*imports.values()) - {"."}):
        result = _probe(f"import {name}", f"def probe():\n    import {name}\n", sandbox, limits)
        if result is not None:
            missing[name] = result.exception or result.detail or result.outcome.value
    preambles: dict[str, TestResult | None] = {"": None}
    found: dict[str, Rejection] = {}
    for problem in problems:
        lacking = sorted(imports[problem.id] & missing.keys())
        if lacking:
            told = "; ".join(f"{name} ({missing[name]})" for name in lacking)
            detail = f"the sandbox cannot import {told}; install it there, or drop the record"
            found[problem.id] = Rejection(Reason.MISSING_LIBRARY, detail)
            continue
        if problem.preamble not in preambles:
            # As a program, which tells the line of a fault and its outcome.
            program = f"{problem.preamble}\ndef probe():\n    pass\n"
            preambles[problem.preamble] = _probe("preamble", program, sandbox, limits)
        fault = preambles[problem.preamble]
        if fault is not None:
            place = f" in line {fault.line}" if fault.line else ""
            detail = f"the preamble fails: {fault.exception or fault.detail or fault.outcome.value}{place}"
            found[problem.id] = Rejection(REASONS[fault.outcome], detail)
    return found


def _probe(name: str, program: str, sandbox: Sandbox, limits: Limits) -> TestResult | None:
    """Runs a program that defines `probe`; what went wrong, if anything did."""
    test = StdinTest(stdin="", stdout="")
    job = Job(id=name, program=program, tests=(test,), entry_point="probe", limits=limits, trace=False)
    verdict = settled(job, sandbox, f"the probe `{name}`")
    # What it prints is no fault.
    return None if verdict.outcome in (Outcome.PASS, Outcome.WRONG_ANSWER) else verdict.tests[0]
