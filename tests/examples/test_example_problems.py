"""What holds for the problems that ship, read from the committed file."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.inputs import arguments, as_stdin, task_arguments, task_stdin
from examples.long_parts import ORIGINS
from examples.mutants import Runner, mutants, outcome
from stepcoder.problems import Problem, StdinTest, conditionals, read_problems, split_of
from stepcoder.sandbox import job_of, open_sandbox

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "problems.jsonl"
IDIOM = {0, 1, 2, 10, 60}
"""Integers that a solution may hold without the statement: counting, digits, minutes of an hour."""


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return list(read_problems(FILE, "apps_plus"))


def is_stdin(problem: Problem) -> bool:
    return isinstance(problem.tests[0], StdinTest)


def length(problem: Problem) -> int:
    """Characters of the statement, the starter and the solution, which begins with the starter."""
    return len(problem.statement) + len(problem.starter) + len(problem.solution)


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    again = tmp_path / "problems.jsonl"
    command = [sys.executable, "-m", "examples.generate", "--out", str(again)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONHASHSEED": "4711"}, capture_output=True)
    assert again.read_bytes() == FILE.read_bytes(), "run `python -m examples.generate` and commit the file"


def test_there_are_enough_problems_of_every_sort(problems: list[Problem]) -> None:
    short = [problem for problem in problems if length(problem) <= 330]
    assert len(short) >= 500
    assert sum(length(problem) > 400 for problem in problems) >= 200
    assert min(Counter(problem.difficulty for problem in problems).values()) >= 100
    for some in (problems, short):
        share = sum(map(is_stdin, some)) / len(some)
        assert 0.3 < share < 0.7


def test_the_readme_states_the_counts(problems: list[Problem]) -> None:
    short = [problem for problem in problems if length(problem) <= 400]
    long = [problem for problem in problems if length(problem) > 400]
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    counts = [f"{len(some)} / {len({problem.family for problem in some})}" for some in (short, long)]
    assert f"| {counts[0]} | {counts[1]} |" in readme, "bring the table of examples/README.md up to date"
    assert f"holds {len(problems)} programming problems" in readme


def test_the_two_records_of_the_readme_are_judged_right(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "two.jsonl").write_text(block, encoding="utf-8")
    shown = read_problems(tmp_path / "two.jsonl", "apps_plus")
    assert [problem.tests[0].kind for problem in shown] == ["call", "stdin"]
    with open_sandbox(slots=1) as sandbox:
        assert all(sandbox.submit(job_of(problem, problem.solution)).result().passed for problem in shown)


def test_conditional_statements_run_from_none_to_nine(problems: list[Problem]) -> None:
    counts = Counter(len(conditionals(problem.solution)) for problem in problems)
    assert set(counts) == set(range(10))
    assert min(counts.values()) >= 15
    assert counts[2] + counts[3] + counts[4] > len(problems) / 2


def test_ids_and_statements_are_unique(problems: list[Problem]) -> None:
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({" ".join(problem.statement.split()).lower() for problem in problems}) == len(problems)


def test_every_problem_has_four_to_six_different_tests(problems: list[Problem]) -> None:
    for problem in problems:
        given = [test.model_dump_json() for test in problem.tests]
        assert 4 <= len(set(given)) == len(given) <= 6, problem.id


def test_scope_is_what_ast_says(records: list[dict[str, Any]]) -> None:
    kinds = {"if": "If Statement Body", "for": "For Loop Body", "while": "While Loop Body"}
    for record in records:
        blocks = [tuple(block) for block in record["scope"] if block[0] in kinds.values()]
        found = [(kinds[kind], first, last) for kind, first, last in conditionals(record["canonical_solution"])]
        assert sorted(blocks) == sorted(found), record["id"]


def test_the_statement_names_every_constant(problems: list[Problem]) -> None:
    for problem in problems:
        constants = [node.value for node in ast.walk(ast.parse(problem.solution)) if isinstance(node, ast.Constant)]
        numbers = {value for value in constants if type(value) is int} - IDIOM
        assert numbers <= {int(word) for word in re.findall(r"\d+", problem.statement)}, problem.id
        words = {value for value in constants if isinstance(value, str) and value.isalpha()}
        assert words <= set(re.findall(r"[a-z]+", problem.statement)), problem.id


def test_every_part_is_in_six_families_that_train(problems: list[Problem]) -> None:
    families: dict[str, set[str]] = defaultdict(set)
    parts: set[str] = set()
    for problem in problems:
        assert problem.family is not None
        parts |= set(problem.family.split("/"))
        if split_of(problem) == "train":
            for part in problem.family.split("/"):
                families[part].add(problem.family)
    assert {part: len(families[part]) for part in parts if len(families[part]) < 6} == {}
    assert len(parts) > 100


def test_every_reference_passes_its_tests_in_the_sandbox(problems: list[Problem]) -> None:
    with open_sandbox() as sandbox:
        verdicts = sandbox.judge([job_of(problem, problem.solution, trace=False) for problem in problems])
    assert [(verdict.id, verdict.outcome) for verdict in verdicts if not verdict.passed] == []


def test_the_tests_fail_nearly_all_mutants(problems: list[Problem]) -> None:
    """Mutants that differ from the reference on fresh inputs, of every third problem: 97 % fail a test."""
    origins = {origin.name for origin in ORIGINS}
    differing, missed = 0, []
    for problem in problems[::3]:
        source = str(problem.family).split("/")[0]
        rng = Random(f"fresh {problem.id}")
        constants = re.findall(r"\b(?:\d+|[a-z])\b", problem.statement.split("Example")[0])
        fresh: list[Any] = []
        for turn in range(100):
            if source in origins:
                values = task_arguments(source, rng, [int(word) for word in constants if word.isdigit()], turn)
                fresh.append(task_stdin(source, values) if is_stdin(problem) else values)
            else:
                values = arguments(source, rng, constants, turn)
                fresh.append(as_stdin(values) if is_stdin(problem) else values)
        right = shown(problem.solution, problem, fresh)
        tests = [test.stdin if isinstance(test, StdinTest) else list(test.args) for test in problem.tests]
        expected = shown(problem.solution, problem, tests)
        for what, program in mutants(problem.solution):
            fails = shown(program, problem, tests) != expected
            if fails or shown(program, problem, fresh) != right:
                differing += 1
                missed += [] if fails else [f"{problem.id} {what}"]
    assert differing > 5000
    assert len(missed) <= 0.03 * differing, missed


def shown(program: str, problem: Problem, given: list[Any]) -> list[tuple[str, Any]]:
    """What a program shows on some inputs, up to the first endless run."""
    state, machine = outcome(lambda code: Runner(code, problem.entry_point), program)
    if state == "error":
        return [(state, machine)]
    run = machine.feed if is_stdin(problem) else machine.call
    results: list[tuple[str, Any]] = []
    for one in given:
        results.append(outcome(run, one))
        if results[-1] == ("error", "EndlessError"):
            break
    return results
