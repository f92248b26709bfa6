"""Each outcome, with what a person is told about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ADD, SUM, TIGHT, Judge

from stepcoder.problems import CallTest, CheckTest, StdinTest
from stepcoder.sandbox import Job, Limits, Outcome, Verdict, open_sandbox


def outcomes(verdict: Verdict) -> list[str]:
    return [test.outcome.value for test in verdict.tests]


def test_a_right_program_passes_with_its_cpu_time(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    for i in range(200_000): pass\n    return a + b")
    assert verdict.passed
    assert outcomes(verdict) == ["pass", "pass"]
    assert all(0.0005 < test.cpu_seconds < 0.3 for test in verdict.tests)


def test_a_wrong_answer_says_what_differs(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    print('trying')\n    return [a, b]")
    assert outcomes(verdict) == ["wrong_answer", "wrong_answer"]
    assert verdict.tests[0].detail == "expected 3, got [1, 2]"
    assert verdict.tests[1].stdout_tail == "trying\n"


def test_the_overall_outcome_is_that_of_the_first_failing_test(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    if a == 5: raise KeyError('x')\n    return 0 if a == 1 else 3")
    assert outcomes(verdict) == ["wrong_answer", "runtime_error"]
    assert verdict.outcome is Outcome.WRONG_ANSWER
    verdict = judge("def f(a, b):\n    if a == 5: raise KeyError('x')\n    return 3")
    assert outcomes(verdict) == ["pass", "runtime_error"]
    assert verdict.outcome is Outcome.RUNTIME_ERROR


def test_a_runtime_error_names_the_programs_own_line(judge: Judge) -> None:
    verdict = judge("import json\n\ndef f(a, b):\n    return json.loads('{')\n")
    assert verdict.tests[0].exception == (
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )
    assert verdict.tests[0].line == 4


def test_lines_are_those_of_the_program_not_of_the_preamble(judge: Judge) -> None:
    verdict = judge(
        "\ndef f(a, b):\n    return helper(a)", preamble="import math\n\ndef helper(x):\n    return x / 0\n"
    )
    assert verdict.tests[0].exception == "ZeroDivisionError: division by zero"
    assert verdict.tests[0].line == 3


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("def f(a, b)\n    return a", 1),
        ("x = 1\n  y = 2", 2),
        ("def f(a, b):\n    return a\0", None),
        ("return 1", 1),
        ("def f(a, b):\n\treturn a\n        return b", 3),
        ("x = " + "(" * 300 + ")" * 300, 1),
        ("x = " + "-" * 100_000 + "1", None),
        ("x = '\ud800'", None),
        ("x = 1_000__0", 1),
        ("print 'hello'", 1),
    ],
)
def test_what_does_not_compile_is_a_compile_error_of_the_first_test(
    judge: Judge, program: str, line: int | None
) -> None:
    verdict = judge(program)
    assert outcomes(verdict) == ["compile_error", "not_run"]
    assert verdict.outcome is Outcome.COMPILE_ERROR
    assert verdict.statements == ()
    assert verdict.tests[0].exception
    if line is not None:
        assert verdict.tests[0].line == line


@pytest.mark.parametrize("program", ["", "# nothing", "def g(a, b):\n    return a + b", "f = 3"])
def test_a_missing_entry_point_is_a_runtime_error_that_says_so(judge: Judge, program: str) -> None:
    verdict = judge(program)
    assert outcomes(verdict) == ["runtime_error", "runtime_error"]
    assert "entry point 'f'" in (verdict.tests[0].exception or "")


def test_a_class_is_built_anew_for_each_call(judge: Judge) -> None:
    program = """
        class Solution:
            def __init__(self):
                self.calls = 0
            def count(self, a, b):
                self.calls += 1
                return self.calls
    """
    tests = (CallTest.of((0, 0), 1), CallTest.of((0, 0), 1))
    assert judge(program, tests, "Solution.count").passed
    assert "no_such" in (judge(program, tests, "Solution.no_such").tests[0].exception or "")


def test_keyword_arguments_reach_the_program(judge: Judge) -> None:
    assert judge("def f(a, *, b):\n    return a - b", (CallTest.of((5,), 2, {"b": 3}),)).passed


def test_values_of_every_kind_reach_the_program_and_come_back(judge: Judge) -> None:
    value = [None, True, 10**30, 1.5, float("inf"), "é\n", b"\0", (1, (2,)), {3: {4}}, frozenset({5}), 1j, {"$int": 1}]
    program = "def f(a, b):\n    assert type(a[7]) is tuple and type(a[8][3]) is set\n    return a"
    assert judge(program, (CallTest.of((value, 0), value),)).passed


def test_cpu_time_over_the_limit_is_a_timeout_and_the_next_test_still_runs(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    while a == 1: pass\n    return a + b")
    assert outcomes(verdict) == ["timeout", "pass"]
    assert verdict.tests[0].detail == "more than 0.3 s of CPU time"
    assert 0.3 <= verdict.tests[0].cpu_seconds < 0.6
    assert [statement.executed for statement in verdict.statements] == [True, True, True, True]


def test_sleeping_over_the_wall_clock_limit_is_a_timeout(judge: Judge) -> None:
    limits = replace(TIGHT, wall_seconds=0.5)
    verdict = judge("import time\ndef f(a, b):\n    if a == 1: time.sleep(9)\n    return a + b", limits=limits)
    assert outcomes(verdict) == ["timeout", "pass"]
    assert verdict.tests[0].detail == "more than 0.5 s of wall-clock time"


def test_a_module_level_that_hangs_is_not_run_once_for_each_test(judge: Judge) -> None:
    verdict = judge("while True: pass", tests=ADD * 20)
    assert outcomes(verdict) == ["timeout"] * 40
    assert [statement.executed for statement in verdict.statements] == [True, True]


@pytest.mark.parametrize("program", ["[0] * 10**9", "bytearray(10**10)", "list(range(10**8))"])
def test_memory_over_the_limit(judge: Judge, program: str) -> None:
    verdict = judge(f"def f(a, b):\n    x = {program}\n    return a + b")
    assert outcomes(verdict) == ["memory", "memory"]


def test_output_over_the_limit(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    while True: print('x' * 1000)")
    assert outcomes(verdict) == ["output_limit", "output_limit"]
    verdict = judge("def f(a, b):\n    return 'x' * 70_000")
    assert outcomes(verdict) == ["output_limit", "output_limit"]
    verdict = judge("def f():\n    print('x' * 70_000)", SUM)
    assert outcomes(verdict) == ["output_limit", "output_limit"]


def test_the_output_limit_is_for_each_test(judge: Judge) -> None:
    assert judge("def f(a, b):\n    print('x' * 60_000)\n    return a + b").passed


def test_a_killed_child_is_a_runtime_error_that_names_the_signal(judge: Judge) -> None:
    verdict = judge("import os\ndef f(a, b):\n    if a == 1: os.kill(os.getpid(), 11)\n    return a + b")
    assert outcomes(verdict) == ["runtime_error", "pass"]
    assert verdict.tests[0].detail == "killed by SIGSEGV"


def test_statements_are_the_union_over_all_tests_and_children(judge: Judge) -> None:
    program = """
        import os
        def f(a, b):
            if a == 1:
                os._exit(0)
            if a == 5:
                x = 1
            else:
                x = 2
            return a + b
    """
    verdict = judge(program)
    assert outcomes(verdict) == ["runtime_error", "pass"]
    assert [s.executed for s in verdict.statements] == [True, True, True, True, True, True, False, True]


def test_without_trace_there_are_no_statements(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    return a + b", trace=False)
    assert verdict.passed
    assert verdict.statements == ()


def test_a_setting_stops_at_the_first_failure(judge: Judge) -> None:
    program = "def f(a, b):\n    return 3"
    tests = (ADD[0], ADD[1], ADD[0])
    assert outcomes(judge(program, tests)) == ["pass", "wrong_answer", "pass"]
    limits = replace(TIGHT, stop_at_first_failure=True)
    assert outcomes(judge(program, tests, limits=limits)) == ["pass", "wrong_answer", "not_run"]
    assert outcomes(judge("def f():\n    print(7)", (*SUM, SUM[0]), limits=limits)) == [
        "pass",
        "wrong_answer",
        "not_run",
    ]


def test_a_nonzero_exit_status_fails_whatever_was_printed(judge: Judge) -> None:
    verdict = judge("import sys\ndef f():\n    print(sum(map(int, sys.stdin.read().split())))\n    sys.exit(3)", SUM)
    assert outcomes(verdict) == ["runtime_error", "runtime_error"]
    assert verdict.tests[0].exception == "SystemExit: 3"
    assert verdict.tests[0].stdout_tail == "7\n"


def test_an_uncaught_exception_fails_whatever_was_printed(judge: Judge) -> None:
    verdict = judge("import sys\ndef f():\n    print(sum(map(int, sys.stdin.read().split())))\n    1 / 0", SUM)
    assert outcomes(verdict) == ["runtime_error", "runtime_error"]


def test_a_wrong_output_names_the_line(judge: Judge) -> None:
    verdict = judge("def f():\n    print(1)\n    print(3)", (StdinTest(stdin="", stdout="1\n2\n"),))
    assert verdict.tests[0].detail == "line 2: expected '2', got '3'"
    verdict = judge("def f():\n    print(1)", (StdinTest(stdin="", stdout="1\n2\n"),))
    assert verdict.tests[0].detail == "1 lines instead of 2: line 2 is missing: '2'"


def test_tests_of_both_encodings_can_stand_in_one_job(judge: Judge) -> None:
    program = "def f(*args):\n    if args: return sum(args)\n    print(sum(int(x) for x in open(0).read().split()))"
    assert outcomes(judge(program, (ADD[0], SUM[0], ADD[1], SUM[1]))) == ["pass"] * 4


def test_a_preamble_that_fails_is_told_and_no_program_passes(judge: Judge) -> None:
    program = "def f(a, b):\n    return a + b"
    verdict = judge(program, preamble="import no_such_module")
    assert outcomes(verdict) == ["runtime_error", "runtime_error"]
    assert verdict.tests[0].detail == "the preamble fails: ModuleNotFoundError: No module named 'no_such_module'"
    assert "the preamble does not compile" in judge(program, preamble="x = (").tests[0].detail


@pytest.mark.parametrize("place", ["preamble", "check"])
def test_what_is_refused_within_one_jobs_limits_is_not_refused_within_anothers(place: str) -> None:
    large = "TABLE = [" + ", ".join(f"'{number:x}'" for number in range(200_000)) + "]\n"
    job = Job("x", "def f(a, b):\n    return a + b", ADD, "f", preamble=large, limits=Limits(memory_mib=32))
    if place == "check":
        job = replace(job, preamble="", tests=(CheckTest(code=f"{large}assert candidate(1, 2) == 3"),))
    hasty = replace(job.limits, cpu_seconds=0.03)
    with open_sandbox(slots=1) as sandbox:
        refused, taken = sandbox.judge([replace(job, limits=hasty), replace(job, limits=Limits())])
    assert not refused.passed
    assert "does not compile: compiling takes more than 0.03 s" in refused.tests[0].detail
    assert taken.passed


def test_names_of_the_preamble_are_in_scope_and_have_no_statements(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    return add(a, b)", preamble="def add(a, b):\n    return a + b\n")
    assert verdict.passed
    assert len(verdict.statements) == 2
