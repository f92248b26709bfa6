"""A supervisor's work: judges one job at a time with zygotes of its own.

The slot holds the expected outputs; a child holds the program. A child gets one test's input at a time, and the next
only after its claim, so that CPU time is counted while it waits and each claim belongs to one test.
"""

from __future__ import annotations

from typing import Any

from stepcoder.problems.problem import CheckTest, StdinTest
from stepcoder.sandbox.answers import rule_on_claim, rule_on_output
from stepcoder.sandbox.bench import Bench
from stepcoder.sandbox.checks import run_check
from stepcoder.sandbox.compiler import Compiler
from stepcoder.sandbox.inside.child import PREAMBLE, PROGRAM
from stepcoder.sandbox.job import Branch, Job, Outcome, Statement, TestResult, Verdict
from stepcoder.sandbox.prepared import PreparedTest
from stepcoder.sandbox.session import Program, Session, UnjudgeableError
from stepcoder.sandbox.zygote import NoRoomError, Zygote

NUMPY, SCIPY = "numpy", "scipy"


class Slot:
    """Judges jobs one after another."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Starts nothing yet.

        Args:
            settings: how the zygotes seal themselves, see `layers.settings`.
        """
        self._settings = settings
        self._zygotes: dict[str, Zygote] = {}
        self._compiler: Compiler | None = None

    def judge(self, job: Job, prepared: tuple[PreparedTest, ...]) -> Verdict:
        """Judges one job.

        Raises:
            ZygoteError: a process of the judge is gone; the job can be tried again.
        """
        compiler = self._compiling()
        compiled = compiler.compile(job.program, PROGRAM, job.limits, job.entry_point, job.trace, job.branches)
        if compiled.rejection is not None:
            results = [compiled.rejection, *[TestResult(Outcome.NOT_RUN)] * (len(job.tests) - 1)]
            return Verdict(job.id, Outcome.COMPILE_ERROR, tuple(results))
        preamble = compiler.compile_once(job.preamble, PREAMBLE, job.limits) if job.preamble else None
        if preamble is not None and preamble.rejection is not None:
            why = preamble.rejection.exception or preamble.rejection.detail
            return unjudgeable(job, f"the preamble does not compile: {why}")
        # numpy takes longer to import than most programs to run, and makes every fork dearer: a zygote of its own.
        text = job.preamble + job.program
        zygote = self._zygote(NUMPY if NUMPY in text or SCIPY in text else "")
        try:
            bench = Bench(zygote, compiler, job, Program(preamble, compiled, bytearray(compiled.probes)))
            results = _results(bench, prepared)
            statements, branches = _reached(bench.program)
            return Verdict(job.id, overall(results), tuple(results), statements, branches=branches)
        except UnjudgeableError as fault:
            return unjudgeable(job, str(fault))

    def start(self) -> None:
        """Starts the slot's processes before the first job comes.

        Raises:
            ZygoteError: they do not start.
        """
        self._compiling()

    def restart(self) -> None:
        """Ends the slot's processes; the next job starts new ones."""
        for zygote in self._zygotes.values():
            zygote.kill()
        self._zygotes.clear()
        if self._compiler is not None:
            self._compiler.close()
            self._compiler = None

    def _compiling(self) -> Compiler:
        if self._compiler is None:
            self._compiler = Compiler(self._zygote(""))
        return self._compiler

    def _zygote(self, module: str) -> Zygote:
        """The zygote that has a module ready, or the one with the usual ones alone."""
        found = self._zygotes.get(module)
        if found is None:
            modules = [*self._settings["modules"], *([module] if module else [])]
            found = self._zygotes[module] = Zygote(self._settings | {"modules": modules})
        return found


def unjudgeable(job: Job, detail: str) -> Verdict:
    """The verdict when the problem itself is at fault: a runtime error, so that its record is put aside."""
    result = TestResult(Outcome.RUNTIME_ERROR, detail=detail)
    return Verdict(job.id, Outcome.RUNTIME_ERROR, (result,) * len(job.tests))


def overall(results: list[TestResult]) -> Outcome:
    """The outcome of the first test that did not pass."""
    return next((result.outcome for result in results if result.outcome is not Outcome.PASS), Outcome.PASS)


def _results(bench: Bench, tests: tuple[PreparedTest, ...]) -> list[TestResult]:
    results: list[TestResult] = []
    while len(results) < len(tests):
        if bench.job.limits.stop_at_first_failure and overall(results) is not Outcome.PASS:
            return results + [TestResult(Outcome.NOT_RUN)] * (len(tests) - len(results))
        if isinstance(tests[len(results)].test, StdinTest):
            results.append(_run_script(bench, tests[len(results)]))
        else:
            results += _run_calls(bench, tests, len(results))
    return results


def _run_script(bench: Bench, test: PreparedTest) -> TestResult:
    """One standard-input test, in a child of its own."""
    assert isinstance(test.test, StdinTest)
    limit = bench.job.limits.output_bytes
    with bench.session("stdin", stdin=test.request) as session:
        session.start()
        claim = session.claim(0)
    if claim is None and not (session.ended == "exit" and session.status == 0):
        return session.silent()
    claim = claim or {}
    if claim.get("status", 1 if "exception" in claim else 0) != 0:
        return session.raised(claim)
    output = session.output or b""
    if len(output) > limit:
        return session.result(Outcome.OUTPUT_LIMIT, claim, detail=f"more than {limit} bytes")
    ruling = rule_on_output(bench, test.test, output.decode(errors="surrogateescape"))
    return session.result(ruling.outcome, detail=ruling.detail)


def _run_calls(bench: Bench, tests: tuple[PreparedTest, ...], first: int) -> list[TestResult]:
    """Call and check tests from `first` on, in one child, up to the end or to the first that ends it."""
    results: list[TestResult] = []
    last = first
    while last < len(tests) and not isinstance(tests[last].test, StdinTest):
        last += 1
    with bench.session("call") as session:
        session.start(tests[first].request)
        report = session.loaded()
        for index in range(first, last) if report == {} else ():
            result = _run_call(bench, session, tests[index], index, asked=index == first)
            if result is None:
                break
            results.append(result)
            if bench.job.limits.stop_at_first_failure and result.outcome is not Outcome.PASS:
                break
    if report is not None and report != {}:
        return [session.raised(report)] * (last - first)
    if session.ended is not None:
        results.append(session.silent())
        if report is None:  # a program that does not load fails all of its tests alike
            return results * (last - first)
    # Who forges one report may have forged those before it.
    forged = next((result for result in results if result.outcome is Outcome.SECURITY), None)
    return results if forged is None else [forged] * (last - first)


def _run_call(bench: Bench, session: Session, test: PreparedTest, index: int, asked: bool) -> TestResult | None:
    """One call or check test; None if it ended the child."""
    try:
        if isinstance(test.test, CheckTest):
            if session.crowded():  # the check needs a process of its own
                return None
            return run_check(bench, session, test.test, index)
        if not asked:
            session.ask(test.request)
        claim = session.claim(index)
        return None if claim is None else _judge_claim(bench, session, test, claim)
    except NoRoomError:
        if not session.crowded():
            raise
        return None  # it is the program itself that leaves no room


def _judge_claim(bench: Bench, session: Session, test: PreparedTest, claim: dict[str, Any]) -> TestResult:
    if "exception" in claim:
        return session.raised(claim)
    if "too_long" in claim:
        return session.result(Outcome.OUTPUT_LIMIT, claim, detail=f"a value of {claim['too_long']} bytes")
    if "too_deep" in claim:
        return session.result(Outcome.WRONG_ANSWER, claim, detail="a value nested too deep to be right")
    ruling = rule_on_claim(bench, test, claim)
    return session.result(ruling.outcome, claim, detail=ruling.detail)


def _reached(program: Program) -> tuple[tuple[Statement, ...], tuple[Branch, ...]]:
    """Statements and arms of expressions with their state, each in the order of the source."""
    compiled = program.compiled
    hits = [bool(hit) for hit in program.reached]
    statements = sorted(zip(compiled.spans, hits, strict=False))
    arms = sorted(zip(compiled.arms, hits[len(compiled.spans) :], strict=True))
    return tuple(Statement(*item) for item in statements), tuple(Branch(*item) for item in arms)
