"""Check tests: statements run in a process of their own and call the program in another.

The answers that a check holds never come near the program: its process is sent the arguments of one call at a time.
What the checks' outcome means: an assertion that fails, a value that the check cannot use, and a check that does not
end with this value are wrong answers; an exception of the program is a runtime error, unless the check expects it. A
check that fails before it calls the program is at fault itself; that is a wrong answer too, so that no program passes,
and the detail says so.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from stepcoder.problems.problem import CheckTest
from stepcoder.sandbox.bench import Bench
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.inside.checker import CHECK
from stepcoder.sandbox.job import Outcome, TestResult
from stepcoder.sandbox.session import Session

LINE_CHARACTERS = 160


def run_check(bench: Bench, session: Session, test: CheckTest, index: int) -> TestResult | None:
    """Runs one check against the program that `session` holds.

    Returns:
        The result; None if the program's process ended, or claimed something malformed, under it.

    Raises:
        UnjudgeableError: the preamble does not run.
        ZygoteError: a process of the judge is gone.
    """
    compiled = bench.compiler.compile_once(test.code, CHECK, bench.job.limits)
    if compiled.rejection is not None:
        why = compiled.rejection.exception or compiled.rejection.detail
        return session.result(Outcome.WRONG_ANSWER, detail=f"the check does not compile: {why}")
    check = replace(bench.program, compiled=compiled)
    with Session(bench.zygote, bench.job, check, "check") as checker:
        checker.start()
        exchange = _Exchange(session, checker, index)
        claim = exchange.run()
    if claim is not None:
        return exchange.judged(claim, test)
    if session.ended is not None:
        return None
    if exchange.refused is not None:
        return exchange.refused
    how = checker.silent().detail
    who = "the check does not end with this value" if exchange.calls else "the check fails by itself"
    return session.result(Outcome.WRONG_ANSWER, detail=f"{who}: {how}")


class _Exchange:
    """Calls go from the check to the program, values back."""

    def __init__(self, session: Session, checker: Session, index: int) -> None:
        self._session = session
        self._checker = checker
        self._index = index
        self._spent = 0.0
        self._spent_wall = 0.0
        self._raised: dict[str, Any] = {}
        self.calls = 0
        self.refused: TestResult | None = None
        """The result when the program's value cannot go to the check."""

    def run(self) -> dict[str, Any] | None:
        """The check's claim; None if it did not come to one."""
        while (said := self._checker.asked()) is not None:
            kind, data = said
            if kind == frames.CLAIM:
                return data
            answer = self._call(data)
            if answer is None:
                return None
            self._checker.answer(frames.pack(frames.ANSWER, json.dumps(answer).encode()))
        return None

    def _call(self, graph: dict[str, Any]) -> dict[str, Any] | None:
        self.calls += 1
        request = json.dumps({"test": self._index, "graph": graph}).encode()
        self._session.ask(frames.pack(frames.CALL, request))
        asked = time.monotonic()
        claim = self._session.claim(self._index, self._spent, self._spent_wall, sent=len(request))
        self._spent_wall += time.monotonic() - asked
        self._spent += self._session.cpu_seconds
        self._session.cpu_seconds = self._spent
        if claim is None:
            return None
        if "exception" in claim:
            self._raised = claim
            return {"exception": claim["exception"], "type": claim.get("type", "Exception")}
        if "too_long" in claim:
            self.refused = self._session.result(Outcome.OUTPUT_LIMIT, detail=f"a value of {claim['too_long']} bytes")
        elif "too_deep" in claim:
            self.refused = self._session.result(Outcome.WRONG_ANSWER, detail="a value nested too deep to be right")
        elif "graph" not in claim:
            self.refused = self._session.result(Outcome.SECURITY, detail="a forged report: a claim without a value")
        return None if self.refused else claim["graph"]

    def judged(self, claim: dict[str, Any], test: CheckTest) -> TestResult:
        """What the check's claim says of the program."""
        if "exception" not in claim:
            return self._session.result(Outcome.PASS)
        if claim["forged"]:
            return self._session.result(Outcome.SECURITY, detail=f"a forged report: {claim['exception']}")
        if claim["unknown"]:
            detail = f"an object of type {claim['unknown']}, which the check does not know"
        elif claim["candidate"]:
            return self._session.raised(self._raised)
        elif claim["assertion"]:
            detail = f"the check fails: {_line(test.code, claim['line'])}"
        elif self.calls:
            detail = f"the check cannot use the value: {claim['exception']}, at {_line(test.code, claim['line'])}"
        else:
            detail = f"the check fails by itself, before it calls the program: {claim['exception']}"
        return self._session.result(Outcome.WRONG_ANSWER, detail=detail)


def _line(code: str, number: int | None) -> str:
    lines = code.splitlines()
    line = lines[number - 1].strip() if number and number <= len(lines) else "an unknown line"
    return line if len(line) <= LINE_CHARACTERS else line[:LINE_CHARACTERS] + "…"
