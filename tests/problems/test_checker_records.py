"""A record names its checker; what cannot decide its tests is told with record and field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from stepcoder.errors import DataError
from stepcoder.problems import (
    AnyOf,
    CallTest,
    CheckerProgram,
    CheckTest,
    Exact,
    Float,
    Problem,
    StdinTest,
    Unordered,
    dump_problems,
    load_problems,
    read_problems,
)
from stepcoder.problems.checker import parse_checker

CALL = {
    "id": "c",
    "prompt": 'def f(n):\n    """Say n.\n    """\n',
    "canonical_solution": "def f(n):\n    return n\n",
    "inputs": [[1], [2]],
    "outputs": [[1], [2]],
    "starter_code": "def f(n):\n",
    "difficulty": "introductory",
}
STDIN = CALL | {
    "id": "s",
    "canonical_solution": "def f():\n    print(1)\n",
    "inputs": ["1\n", ""],
    "outputs": ["1\n", "1\n"],
    "starter_code": "def f():\n",
}
CODE = "def check(arguments, expected, actual):\n    return expected == actual\n"
EVERY = (
    Exact(),
    Float(relative=1e-4, absolute=0.0),
    Unordered(levels=2),
    AnyOf(),
    CheckerProgram(code=CODE),
)


def problem(checker: Any, *tests: Any) -> Problem:
    return Problem(
        id="p",
        statement="s",
        starter="def f():\n",
        solution="def f():\n    pass\n",
        entry_point="f",
        tests=tests,
        checker=checker,
    )


def read(tmp_path: Any, *records: dict[str, Any]) -> list[Problem]:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return read_problems(path, "apps_plus")


@pytest.mark.parametrize(
    ("data", "checker"),
    [
        ("exact", Exact()),
        ("float", Float(relative=1e-6, absolute=1e-6)),
        ({"name": "float", "relative": 1e-4, "absolute": 1e-4}, Float(relative=1e-4, absolute=1e-4)),
        ("unordered", Unordered(levels=1)),
        ({"name": "unordered", "levels": 2}, Unordered(levels=2)),
        ("any_of", AnyOf()),
        ({"name": "program", "code": CODE}, CheckerProgram(code=CODE, entry_point="check")),
    ],
)
def test_a_checker_has_a_short_form_and_one_with_settings(data: Any, checker: Any) -> None:
    assert parse_checker(data) == checker
    assert parse_checker(checker.model_dump(mode="json")) == checker


@pytest.mark.parametrize(
    "data",
    [
        "Exact",
        "sorted",
        "",
        None,
        3,
        ["float"],
        {},
        {"name": "unordered", "level": 2},
        {"name": "unordered", "levels": 0},
        {"name": "float", "relative": -1},
        {"name": "float", "relative": 1},
        {"name": "float", "absolute": "inf"},
        {"name": "float", "absolute": float("nan")},
        "program",
        {"name": "program", "code": "def check(:"},
        {"name": "program", "code": "x = 1"},
        {"name": "program", "code": "class A:\n    def check(self): pass\n"},
        {"name": "program", "code": CODE, "entry_point": "checks"},
        {"name": "program", "code": CODE, "entry_point": "a.b"},
        {"name": "program", "code": CODE, "entry_point": "None"},
    ],
)
def test_what_is_no_checker_is_refused(data: Any) -> None:
    with pytest.raises(ValidationError):
        parse_checker(data)


@pytest.mark.parametrize("checker", EVERY, ids=lambda checker: checker.name)
def test_checkers_are_written_and_read_back(tmp_path: Any, checker: Any) -> None:
    tests = (CallTest.of((1,), [(1, 2), {3}], {"k": b"x"}), StdinTest(stdin="1", stdout="2"))
    if isinstance(checker, AnyOf):
        tests = (tests[0], StdinTest(stdin="1", stdout="2", alternatives=("3\n", "")))
    problems = [problem(checker, *tests)]
    dump_problems(problems, tmp_path / "train.jsonl")
    assert load_problems(tmp_path / "train.jsonl") == problems


def test_a_dataset_from_before_there_were_checkers_is_exact(tmp_path: Any) -> None:
    data = json.loads(problem("exact", StdinTest(stdin="", stdout="1")).model_dump_json())
    del data["checker"], data["tests"][0]["alternatives"]
    (tmp_path / "train.jsonl").write_text(json.dumps(data))
    assert load_problems(tmp_path / "train.jsonl")[0].checker == Exact()


def test_an_unknown_checker_in_a_dataset_is_told_with_line_and_field(tmp_path: Any) -> None:
    data = json.loads(problem("exact", StdinTest(stdin="", stdout="1")).model_dump_json())
    (tmp_path / "train.jsonl").write_text(json.dumps(data | {"checker": {"name": "sorted"}}))
    with pytest.raises(DataError, match=r"train\.jsonl:1: checker: .*'sorted'.*'unordered'"):
        load_problems(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    ("checker", "says"),
    [
        ("sorted", r"records\.jsonl:2: checker: .*'sorted'.*'unordered'"),
        (7, r"records\.jsonl:2: checker: "),
        ({"name": "float", "relative": 2}, r"checker\.relative: .*less than 1"),
        ({"name": "float", "tolerance": 2}, r"checker\.tolerance: Extra inputs"),
        ({"name": "program"}, r"checker\.code: Field required"),
        ({"name": "program", "code": "def check(:\n"}, r"checker: .*code: line 1: invalid syntax"),
    ],
)
def test_a_faulty_checker_of_a_record_is_told_with_its_field(tmp_path: Any, checker: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, CALL, STDIN | {"checker": checker})


def test_an_apps_plus_record_may_name_its_checker(tmp_path: Any) -> None:
    absent, null, short, long = read(
        tmp_path,
        CALL,
        CALL | {"id": "n", "checker": None},
        STDIN | {"checker": "unordered"},
        CALL | {"id": "l", "checker": {"name": "float", "relative": 1e-3}},
    )
    assert (absent.checker, null.checker) == (Exact(), Exact())
    assert short.checker == Unordered()
    assert long.checker == Float(relative=1e-3)


def test_an_apps_plus_record_lists_all_accepted_outputs_under_any_of(tmp_path: Any) -> None:
    call, stdin = read(
        tmp_path,
        CALL | {"checker": "any_of", "outputs": [[1, 2, '"x"'], [[3]]]},
        STDIN | {"checker": "any_of", "outputs": [["1\n", "2\n"], "3"]},
    )
    assert [test.expected for test in call.tests if isinstance(test, CallTest)] == [[1, 2, "x"], [[3]]]
    assert stdin.tests == (
        StdinTest(stdin="1\n", stdout="1\n", alternatives=("2\n",)),
        StdinTest(stdin="", stdout="3"),
    )


@pytest.mark.parametrize("outputs", [[[], [1]], [1, [2]], [["1", "2"], [2]]])
def test_any_of_needs_a_list_of_accepted_values(tmp_path: Any, outputs: Any) -> None:
    with pytest.raises(DataError, match="outputs"):
        read(tmp_path, CALL | {"checker": "any_of", "outputs": outputs})


def test_a_list_of_outputs_is_none_without_any_of(tmp_path: Any) -> None:
    with pytest.raises(DataError, match="must be two strings in every test"):
        read(tmp_path, STDIN | {"outputs": [["1\n", "2\n"], ["3"]]})


@pytest.mark.parametrize(
    ("checker", "test", "says"),
    [
        ("any_of", CallTest.of((), []), r"tests\.0: expected: must be a non-empty list"),
        ("any_of", CallTest.of((), {1}), r"tests\.0: expected: must be a non-empty list"),
        ("any_of", CallTest.of((), "ab"), r"tests\.0: expected: must be a non-empty list"),
        (
            "exact",
            StdinTest(stdin="", stdout="", alternatives=("1",)),
            r"alternatives: only under the checker 'any_of'",
        ),
        ({"name": "unordered", "levels": 3}, StdinTest(stdin="", stdout=""), "two levels"),
        ("unordered", CheckTest(code="assert candidate()"), "has no test to apply to"),
    ],
)
def test_a_checker_has_to_fit_the_tests(checker: Any, test: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        problem(checker, test)


@pytest.mark.parametrize("format", ["humaneval", "mbpp", "leetcode"])
def test_a_checker_in_a_format_that_has_none_is_not_passed_over(tmp_path: Any, format: Any) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps({"task_id": "1", "checker": "unordered"}))
    with pytest.raises(DataError, match="checker: this format has no checkers"):
        read_problems(tmp_path / "records.jsonl", format)
