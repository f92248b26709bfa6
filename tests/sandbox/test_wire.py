"""What goes over a wire comes back as it was."""

from __future__ import annotations

import json
import math

from stepcoder.problems import CallTest, CheckTest, StdinTest
from stepcoder.sandbox import Branch, Job, Limits, Outcome, Span, Statement, TestResult, Verdict, wire

TESTS = (
    CallTest.of(((1, 2), {3: {4}}, b"\xff", 2**200, math.inf), "\ud800"),
    StdinTest(stdin="1\n", stdout="\u2028\n"),
    CheckTest(code="assert candidate() == 1"),
)


def test_jobs_and_their_tests_come_back_as_they_were() -> None:
    job = Job(
        "a", "x = '\ud800'", TESTS, "f", "import math", Limits(cpu_seconds=0.5), trace=False, run=3, branches=True
    )
    text = wire.dump_tests(TESTS)
    data = json.loads(json.dumps(wire.job_to_data(job, wire.digest_of(text))))
    assert data["tests"] == wire.digest_of(text)
    assert wire.job_from_data(data, wire.load_tests(json.loads(text))) == job


def test_verdicts_come_back_as_they_were() -> None:
    result = TestResult(Outcome.WRONG_ANSWER, "E: \ud800", 3, 0.25, "tail", "detail")
    verdict = Verdict(
        "a",
        Outcome.WRONG_ANSWER,
        (result,),
        (Statement(Span(1, 0, 1, 5), True),),
        ("landlock",),
        (Branch(Span(1, 4, 1, 5), False),),
    )
    assert wire.verdict_from_data(json.loads(json.dumps(wire.verdict_to_data(verdict)))) == verdict
