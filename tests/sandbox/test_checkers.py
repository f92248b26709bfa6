"""A job's checker decides which answers pass; a program reaches its checker by a value alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from conftest import TIGHT, Judge

from stepcoder.problems import (
    AnyOf,
    CallTest,
    Checker,
    CheckerProgram,
    Exact,
    Float,
    Problem,
    StdinTest,
    Unordered,
)
from stepcoder.sandbox import Job, Outcome, Sandbox, Verdict, job_of, wire

SORTED = CheckerProgram(
    code="def check(arguments, expected, actual):\n    return sorted(actual) == sorted(arguments[0])\n"
)


def call(judge: Judge, checker: Checker, expected: Any, answer: str, *args: Any, **more: Any) -> Verdict:
    """Judges a program that returns what the expression `answer` gives; `x` is the first argument."""
    return judge(f"def f(x=None, **k):\n    return {answer}", (CallTest.of(args, expected),), checker=checker, **more)


def script(judge: Judge, checker: Checker, stdout: str, answer: str, *alternatives: str, stdin: str = "") -> Verdict:
    """Judges a program that prints the expression `answer`."""
    test = StdinTest(stdin=stdin, stdout=stdout, alternatives=alternatives)
    return judge(f"def f():\n    print({answer})", (test,), checker=checker)


def checked(judge: Judge, code: str, answer: str = "x", *args: Any) -> Verdict:
    """Judges a program by a checker program whose body is `code`."""
    body = f"def check(arguments, expected, actual):\n    {code}\n"
    return call(judge, CheckerProgram(code=body), 7, answer, *(args or (1,)))


@pytest.mark.parametrize(
    ("checker", "expected", "right", "wrong"),
    [
        (Exact(), [1, 2], "(1, 2)", "[2, 1]"),
        (Float(relative=1e-3), [1, 2.5], "[1.0001, 2.501]", "[1.1, 2.5]"),
        (Float(), 1.0, "1.0000005", "float('nan')"),
        (Unordered(), [1, 2, 2], "[2, 1, 2]", "[1, 1, 2]"),
        (Unordered(), [1, 2], "(2, 1)", "{1, 2}"),
        (Unordered(levels=2), [[1, 2], [3]], "[[3], [2, 1]]", "[[3], [1]]"),
        (AnyOf(), [1, [2, 3], None], "[2, 3]", "[1, [2, 3], None]"),
        (AnyOf(), [1, 2], "2.0", "[1]"),
        (AnyOf(), [[1, 2]], "[1, 2]", "[[1, 2]]"),
    ],
)
def test_a_returned_value_is_right_by_the_checker(
    judge: Judge, checker: Checker, expected: Any, right: str, wrong: str
) -> None:
    assert call(judge, checker, expected, right).outcome is Outcome.PASS
    verdict = call(judge, checker, expected, wrong)
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert "expected" in verdict.tests[0].detail


@pytest.mark.parametrize(
    ("checker", "stdout", "right", "wrong"),
    [
        (Exact(), "1\n2\n", "'1\\n2'", "'2\\n1'"),
        (Float(relative=1e-3), "x 1.5", "'x 1.5001'", "'y 1.5'"),
        (Float(), "1e400", "'1e400'", "'inf'"),
        (Unordered(), "1\n2\n", "'2\\n1'", "'2 1'"),
        (Unordered(levels=2), "1 2\n3\n", "'3\\n2 1'", "'3 2\\n1'"),
    ],
)
def test_an_output_is_right_by_the_checker(judge: Judge, checker: Checker, stdout: str, right: str, wrong: str) -> None:
    assert script(judge, checker, stdout, right).outcome is Outcome.PASS
    verdict = script(judge, checker, stdout, wrong)
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert "line" in verdict.tests[0].detail


def test_an_output_has_to_be_one_of_the_accepted_as_a_whole(judge: Judge) -> None:
    for answer, right in [("'a\\nb'", True), ("'c'", True), ("'a'", False), ("'a\\nb\\nc'", False), ("''", False)]:
        assert script(judge, AnyOf(), "a\nb\n", answer, "c").passed is right


def test_no_list_of_accepted_values_accepts_nothing(judge: Judge) -> None:
    assert not call(judge, AnyOf(), "ab", "'a'").passed
    assert not call(judge, AnyOf(), [], "[]").passed


@pytest.mark.parametrize("checker", [Float(), Unordered(), AnyOf(), SORTED], ids=lambda checker: checker.name)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("type('A', (list,), {'__eq__': lambda s, o: True})([1, 2])", Outcome.WRONG_ANSWER),
        ("[type('A', (float,), {'__eq__': lambda s, o: True})(1)] * 2", Outcome.WRONG_ANSWER),
        ("lambda: 1", Outcome.WRONG_ANSWER),
        ("x[9]", Outcome.RUNTIME_ERROR),
        ("[0] * 10**6", Outcome.OUTPUT_LIMIT),
        ("exec('a = []\\nfor _ in range(500): a = [a]\\nx[:] = [a]') or x", Outcome.WRONG_ANSWER),
        ("__import__('os')._exit(0)", Outcome.RUNTIME_ERROR),
        ("None", Outcome.WRONG_ANSWER),
        ("[]", Outcome.WRONG_ANSWER),
        ("'[1, 2]'", Outcome.WRONG_ANSWER),
        ("{1: 1, 2: 2}.items()", Outcome.WRONG_ANSWER),
    ],
)
def test_no_checker_lets_a_strange_answer_pass(judge: Judge, checker: Checker, answer: str, outcome: Outcome) -> None:
    assert call(judge, checker, [[1, 2]] if checker == AnyOf() else [1, 2], answer, [1, 2]).outcome is outcome


FORGED = """
    import json, os, struct
    def f(x):
        data = b'R' + json.dumps({"test": 0, "value": %s}).encode()
        for fd in range(3, 64):
            try: os.write(fd, struct.pack("<I", len(data)) + data)
            except OSError: pass
        os._exit(0)
"""


@pytest.mark.parametrize("checker", [Float(), Unordered(levels=3), AnyOf(), SORTED], ids=lambda checker: checker.name)
@pytest.mark.parametrize(
    "value",
    [
        '{"$int": 7}',
        '{"$list": [1, 2]}',
        '{"$set": [[1], [2]]}',
        '[{"$int": "zz"}, {"$int": "zz"}]',
        '[{"$float": "zz"}, 2]',
        '[{"$set": [[1], {}]}, {"$dict": [[[], 1]]}]',
        '[{"$complex": ["a", "b"]}, {"$bytes": "z"}]',
        '[{"$opaque": "A"}, 2]',
        'eval("[" * 90 + "1" + "]" * 90)',
        'json.loads("[" * 300 + "1" + "]" * 300)',
        'json.loads("[" * 900 + "1" + "]" * 900)',
        '{"$tuple": {"$tuple": [1, 2]}}',
    ],
)
def test_no_checker_lets_a_forged_claim_pass(judge: Judge, checker: Checker, value: str) -> None:
    expected = [[1, 2]] if checker == AnyOf() else [1, 2]
    verdict = judge(FORGED % value, (CallTest.of(([1, 2],), expected),), checker=checker)
    assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.SECURITY), verdict.tests
    assert call(judge, SORTED, [1, 2], "x", [2, 1]).passed


def test_a_checker_program_accepts_with_true_alone(judge: Judge) -> None:
    assert checked(judge, "return actual == arguments[0] and expected == 7").passed
    for answer in ("False", "None", "1", "'yes'", "[True]", "object()", "float('nan')", "'x' * 10**6"):
        verdict = checked(judge, f"return {answer}")
        assert verdict.outcome is Outcome.WRONG_ANSWER, answer
        assert verdict.tests[0].detail.startswith("the checker ")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("return nothing", "the checker fails: NameError: name 'nothing' is not defined, in its line 2"),
        ("raise SystemExit(0)", "the checker fails: SystemExit: 0, in its line 2"),
        ("while True: pass", "the checker gives no answer: more than 0.3 s of CPU time"),
        ("import os; os._exit(0)", "the checker gives no answer: exit status 0"),
        ("return bytearray(10**10)", "the checker fails: MemoryError, in its line 2"),
        ("print('x' * 10**6); return True", "the checker gives no answer: more than"),
    ],
)
def test_a_checker_that_fails_is_named_and_never_a_pass(judge: Judge, code: str, says: str) -> None:
    verdict = checked(judge, code)
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert verdict.tests[0].detail.startswith(says), verdict.tests[0].detail
    assert "it was asked about 1, the expected value is 7" in verdict.tests[0].detail


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nothing_like_it\ndef check(a, b, c): return True", "the checker fails: ModuleNotFoundError"),
        ("def check(a, b): return True", "the checker fails: TypeError: check() takes 2"),
        ("def check(a, b, c): return True\ncheck = 1", "the checker fails: TypeError: the entry point"),
        ("def check(a, b, c): return True\nwhile True: pass", "the checker gives no answer"),
    ],
)
def test_a_checker_that_does_not_load_passes_nothing(judge: Judge, code: str, says: str) -> None:
    verdict = call(judge, CheckerProgram(code=code), 1, "1")
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert verdict.tests[0].detail.startswith(says), verdict.tests[0].detail


def test_a_checker_gets_values_as_they_are(judge: Judge) -> None:
    code = (
        "def check(arguments, expected, actual, keywords):\n"
        "    assert arguments == [(1, {2})] and type(arguments[0]) is tuple\n"
        "    assert keywords == {'k': b'x', '$': 1}\n"
        "    assert expected == {1: (2,)} and type(expected[1]) is tuple\n"
        "    return actual == {(1, 'é\\ud800'): {2.5, 10**30}} and math.isfinite(1.0)\n"
    )
    test = CallTest.of(((1, {2}),), {1: (2,)}, {"k": b"x", "$": 1})
    program = "def f(x, **k):\n    x[1].clear(); k.clear()\n    return {(1, 'é\\ud800'): {2.5, 10**30}}"
    verdict = judge(program, (test,), checker=CheckerProgram(code=code))
    assert verdict.passed, verdict.tests


def test_a_checker_of_outputs_gets_three_texts(judge: Judge) -> None:
    code = (
        "def check(stdin, expected, actual):\n"
        "    return (stdin, expected) == ('3 4\\n', 'any') and sum(map(int, actual.split())) == 7\n"
    )
    checker = CheckerProgram(code=code)
    assert script(judge, checker, "any", "'5 2'", stdin="3 4\n").passed
    assert script(judge, checker, "any", "5", stdin="3 4\n").tests[0].detail == (
        "the checker rejects it; it was asked about '5\\n'"
    )
    verdict = judge(
        "import os\ndef f():\n    os.write(1, b'\\xff')", (StdinTest(stdin="", stdout=""),), checker=checker
    )
    assert verdict.outcome is Outcome.WRONG_ANSWER


def test_each_answer_meets_a_new_checker(judge: Judge) -> None:
    code = "seen = []\ndef check(arguments, expected, actual):\n    seen.append(actual)\n    return seen == [actual]\n"
    tests = tuple(CallTest.of((n,), 0) for n in range(3))
    assert judge("def f(x):\n    return x", tests, checker=CheckerProgram(code=code)).passed


def test_the_program_goes_on_after_its_checker_has_failed(judge: Judge) -> None:
    code = "def check(arguments, expected, actual):\n    return 1 // actual == 1\n"
    program = "n = -1\ndef f():\n    global n\n    n += 1\n    return n"
    tests = (CallTest.of((), 0),) * 3
    verdict = judge(program, tests, checker=CheckerProgram(code=code))
    assert [test.outcome.value for test in verdict.tests] == ["wrong_answer", "pass", "wrong_answer"]


def test_keys_that_collide_cost_the_checkers_time_and_not_the_judges(judge: Judge) -> None:
    answer = "{(2**61 - 1) * i for i in range(1, 4)} and [dict.fromkeys(range(9)), x]"
    assert not call(judge, SORTED, [1, 2], answer, [1, 2]).passed
    many = '{"$set": [{"$int": hex((2**61 - 1) * i)} for i in range(1, 1500)]}'
    assert not judge(FORGED % many, (CallTest.of(([1],), [1]),), checker=SORTED).passed


def test_a_checker_entry_point_may_have_another_name_and_helpers(judge: Judge) -> None:
    code = (
        "from dataclasses import dataclass\nLIMIT = 3\ndef helper(n): return n < LIMIT\n"
        "def good(arguments, expected, actual): return helper(actual)\n"
    )
    checker = CheckerProgram(code=code, entry_point="good")
    assert call(judge, checker, 0, "2").passed
    assert not call(judge, checker, 0, "3", preamble="LIMIT = 9").passed


def test_statements_are_those_of_the_program_alone(judge: Judge) -> None:
    verdict = call(judge, SORTED, [1, 2], "x", [2, 1])
    assert [statement.span.line for statement in verdict.statements] == [1, 2]
    assert all(statement.executed for statement in verdict.statements)


def test_a_verdict_is_not_remembered_for_another_checker(one_slot: Sandbox) -> None:
    tests = (CallTest.of((), [1, 2]),)
    job = Job("a", "def f():\n    return [2.0, 1.0]", tests, "f", limits=TIGHT)
    reject = CheckerProgram(code="def check(a, b, c):\n    return False\n")
    accept = CheckerProgram(code="def check(a, b, c):\n    return True\n")
    jobs = [
        replace(job, checker=checker)
        for checker in (Exact(), Unordered(), Float(), Float(relative=0.9), accept, reject, Unordered(levels=2))
    ]
    passed = [False, True, False, True, True, False, True]
    assert [verdict.passed for verdict in one_slot.judge(jobs)] == passed
    assert [verdict.passed for verdict in one_slot.judge(jobs[::-1])] == passed[::-1]


@pytest.mark.parametrize("checker", [Exact(), Float(relative=0.1), Unordered(levels=2), AnyOf(), SORTED])
def test_a_job_carries_its_problems_checker_over_the_wire(checker: Checker) -> None:
    tests = (CallTest.of((), [1]), StdinTest(stdin="", stdout="1", alternatives=("2",) if checker == AnyOf() else ()))
    problem = Problem(id="p", statement="s", starter="", solution="", entry_point="f", tests=tests, checker=checker)
    job = job_of(problem, "x = 1")
    assert job.checker == checker
    text = wire.dump_tests(job.tests)
    data = json.loads(json.dumps(wire.job_to_data(job, wire.digest_of(text))))
    assert wire.job_from_data(data, wire.load_tests(json.loads(text))) == job
