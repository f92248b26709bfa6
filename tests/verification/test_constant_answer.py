import json
from pathlib import Path

import pytest
from verify_records import GOOD, record

from stepcoder.problems import AnyOf, CallTest, CheckerProgram, CheckTest, Exact, Problem, StdinTest
from stepcoder.verification import verify
from stepcoder.verification.static import has_constant_answer

PROGRAM = CheckerProgram(code="def check(arguments, expected, actual):\n    return actual > expected\n")


def calls(*expected):
    return [CallTest.of((number,), value) for number, value in enumerate(expected)]


def prints(*outputs, other=()):
    return [StdinTest(stdin=str(number), stdout=text, alternatives=other) for number, text in enumerate(outputs)]


@pytest.mark.parametrize(
    ("tests", "checker", "constant"),
    [
        (calls(2), Exact(), True),
        (calls(2, 2, 2), Exact(), True),
        (calls(2, 2, 3), Exact(), False),
        (calls(0, "0"), Exact(), False),
        (calls([1, 2], (1, 2)), Exact(), True),
        (calls(1.0, 1.0 + 1e-9), Exact(), True),
        (calls(float("nan"), float("nan")), Exact(), True),
        (calls({1: "a"}, {1: "b"}), Exact(), False),
        (prints("4\n", "4 \n\n"), Exact(), True),
        (prints("4\n", "5\n"), Exact(), False),
        (calls([1, 2, 3], [4, 3]), AnyOf(), True),
        (calls([1, 2], [3, 4]), AnyOf(), False),
        (calls([1, 2], [2, 3], [1, 3]), AnyOf(), False),
        (prints("1", "2", other=("3",)), AnyOf(), True),
        (calls(0, 0), PROGRAM, False),
        ([CheckTest(code="assert candidate(1) == 2")], Exact(), False),
        ([*calls(2), CheckTest(code="assert candidate(1) == 2")], Exact(), False),
    ],
)
def test_one_answer_passes_where_every_test_accepts_it(tests, checker, constant):
    problem = Problem(id="p", statement="", starter="", solution=GOOD, entry_point="f", tests=tests, checker=checker)
    assert has_constant_answer(problem) is constant


RECORDS = [
    record("two-answers", GOOD),
    record("one-test", GOOD, inputs=[[1]], outputs=[[2]]),
    record("one-answer", GOOD, inputs=[[3], [3]], outputs=[[6], [6]]),
    record("wrong", "def f(n):\n    return 0\n", inputs=[[1]], outputs=[[2]]),
]


def rejections(folder):
    rows = [json.loads(line) for line in (Path(folder) / "rejected.jsonl").read_text().splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}


def test_problems_with_one_answer_are_counted_and_told(configure, caplog):
    config = configure(RECORDS, validation=0, test=0)
    card = verify(config)
    assert (card.accepted, card.all.constant_answers, card.splits["test"].constant_answers) == (3, 2, 0)
    assert list(rejections(config.out)) == ["wrong"]
    (told,) = [entry.getMessage() for entry in caplog.records if "reject_constant_answers" in entry.getMessage()]
    assert "problems=2" in told


def test_problems_with_one_answer_are_rejected_on_request(configure, caplog):
    config = configure(RECORDS, validation=0, test=0, reject_constant_answers=True)
    card = verify(config)
    assert (card.accepted, card.all.constant_answers, card.reasons) == (1, 0, {"constant_answer": 3})
    assert rejections(config.out) == {
        "one-answer": ("constant_answer", "all 2 tests expect the same answer: a program that always gives it passes"),
        "one-test": ("constant_answer", "there is one test: a program that always gives it passes"),
        "wrong": ("constant_answer", "there is one test: a program that always gives it passes"),
    }
    assert "reject_constant_answers" not in "".join(entry.getMessage() for entry in caplog.records)
