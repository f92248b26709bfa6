"""The judge step: JSON Lines in and out, faults named by line, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepcoder.errors import DataError
from stepcoder.problems import Format, read_entries
from stepcoder.sandbox import Limits, job_of, open_sandbox
from stepcoder.sandbox.judge import JudgeConfig, judge

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

RECORDS = [
    {
        "id": "add",
        "prompt": 'def f(a, b):\n    """The sum."""\n',
        "canonical_solution": "def f(a, b):\n    return a + b\n",
        "inputs": [[1, 2], [3, 4]],
        "outputs": [[3], [7]],
        "starter_code": "def f(a, b):\n",
        "scope": [["Function Body", 1, 2]],
        "difficulty": "introductory",
    },
    {
        "id": 7,
        "prompt": 'def g():\n    """Double it."""\n',
        "canonical_solution": "def g():\n    print(2 * int(input()))\n",
        "inputs": ["4\n"],
        "outputs": ["8\n"],
        "starter_code": "def g():\n",
        "scope": [["Function Body", 1, 2]],
        "difficulty": "introductory",
    },
]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


def run(problems: Path, programs: object, out: Path, **settings: Any) -> list[dict[str, Any]]:
    judge(JudgeConfig(problems=str(problems), format="apps_plus", programs=str(programs), out=str(out), **settings))
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_references_pass_in_the_order_of_the_problems(problems: Path, tmp_path: Path) -> None:
    lines = run(problems, "reference", tmp_path / "out.jsonl")
    assert [(line["id"], line["verdict"], line["passed"]) for line in lines] == [
        ("add", "pass", True),
        ("7", "pass", True),
    ]
    assert [test["outcome"] for test in lines[0]["tests"]] == ["pass", "pass"]
    assert lines[0]["statements"] == [[1, 0, 1, 12, True], [2, 4, 2, 16, True]]


def test_programs_are_judged_each_by_its_problem_also_several_for_one(problems: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs.jsonl"
    rows = [
        ("7", "def g():\n    print(8)"),
        ("add", "def f(a, b)"),
        (7, "def g():\n    1/0"),
        ("add", "def f(a, b):\n    return 3"),
    ]
    programs.write_text("\n".join(json.dumps({"id": i, "program": p}) for i, p in rows))
    lines = run(problems, programs, tmp_path / "out.jsonl", slots=2)
    assert [(line["id"], line["verdict"]) for line in lines] == [
        ("7", "pass"), ("add", "compile_error"), ("7", "runtime_error"), ("add", "wrong_answer"),
    ]  # fmt: skip
    assert lines[2]["tests"][0]["exception"] == "ZeroDivisionError: division by zero"
    assert lines[2]["tests"][0]["line"] == 2


def test_settings_reach_the_sandbox(problems: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs.jsonl"
    programs.write_text(json.dumps({"id": "add", "program": "def f(a, b):\n    while True: pass"}))
    lines = run(problems, programs, tmp_path / "o", cpu_seconds=0.2, stop_at_first_failure=True, trace=False)
    assert [test["outcome"] for test in lines[0]["tests"]] == ["timeout", "not_run"]
    assert lines[0]["tests"][0]["detail"] == "more than 0.2 s of CPU time"
    assert lines[0]["statements"] == []


def test_every_fault_of_the_programs_is_told_with_its_line(problems: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs.jsonl"
    rows = [
        '{"id": "add", "program": "x"}',
        "{broken",
        '{"id": "ad", "program": "x"}',
        '{"id": "add"}',
        "[1]",
        '{"program": "x"}',
    ]
    programs.write_text("\n".join(rows))
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        run(problems, programs, out)
    message = str(caught.value)
    for place in (
        "programs.jsonl:2: broken JSON",
        "programs.jsonl:3: id: there is no problem 'ad'; did you mean 'add'?",
        "programs.jsonl:4: program: must be a string",
        "programs.jsonl:5: must be an object",
        "programs.jsonl:6: id: must be a problem's id",
    ):
        assert place in message
    assert all(line.count("programs.jsonl") == 1 for line in message.splitlines())
    assert not out.exists()


def test_a_faulty_record_matters_only_to_the_programs_that_name_it(problems: Path, tmp_path: Path) -> None:
    problems.write_text(problems.read_text() + json.dumps({**RECORDS[0], "id": "bad", "inputs": []}) + "\n")
    assert len(run(problems, "reference", tmp_path / "out.jsonl")) == 2
    programs = tmp_path / "programs.jsonl"
    programs.write_text(json.dumps({"id": "bad", "program": "x"}))
    with pytest.raises(
        DataError, match=r"programs.jsonl:1: id: the record of problem 'bad' is faulty: .*problems.jsonl:3"
    ):
        run(problems, programs, tmp_path / "out.jsonl")


def test_an_id_that_comes_twice_is_refused(problems: Path, tmp_path: Path) -> None:
    problems.write_text(problems.read_text() + json.dumps(RECORDS[0]) + "\n")
    with pytest.raises(DataError, match=r"problems.jsonl:3: id 'add' is also that of an earlier record"):
        run(problems, "reference", tmp_path / "out.jsonl")


def test_a_folder_is_not_overwritten(problems: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        judge(JudgeConfig(problems=str(problems), format="apps_plus", programs="reference", out=str(tmp_path)))
    assert problems.exists()


@pytest.mark.parametrize("name", ["problems", "programs"])
def test_a_missing_file_is_named(problems: Path, tmp_path: Path, name: str) -> None:
    settings = {"problems": str(problems), "programs": "reference"} | {name: str(tmp_path / "nowhere.jsonl")}
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        judge(JudgeConfig(format="apps_plus", out=str(tmp_path / "out.jsonl"), **settings))  # type: ignore[arg-type]
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_line_ends_with_status_0_or_2(problems: Path, tmp_path: Path) -> None:
    def command(*more: str) -> subprocess.CompletedProcess[str]:
        arguments = ["judge", "--problems", str(problems), "--format", "apps_plus", "--out", str(tmp_path / "o"), *more]
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "stepcoder.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    done = command("--programs", "reference")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "o").read_text().splitlines()) == 2
    failed = command("--programs", str(tmp_path / "nowhere"))
    assert failed.returncode == 2
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the real problems are not at ../shared/data")
@pytest.mark.parametrize(
    ("name", "form", "only_checks", "outcomes"),
    [
        ("apps_plus_sample.jsonl", "apps_plus", False, {"pass": 387}),
        ("humaneval.jsonl.gz", "humaneval", False, {"pass": 164}),
        ("mbpp.jsonl", "mbpp", True, {"pass": 7}),
        ("leetcode_v0.2.0_train.jsonl.gz", "leetcode", True, {"pass": 121}),
        # Four return a Counter or a defaultdict where a dictionary is expected: another type.
        pytest.param("mbpp.jsonl", "mbpp", False, {"pass": 970, "wrong_answer": 4}, marks=pytest.mark.slow),
        # One gives its list of paths in the order of a set.
        pytest.param(
            "leetcode_v0.2.0_train.jsonl.gz",
            "leetcode",
            False,
            {"pass": 1887, "wrong_answer": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_reference_solutions_of_the_real_problems(
    name: str, form: Format, only_checks: bool, outcomes: dict[str, int]
) -> None:
    problems = [entry.problem for entry in read_entries(DATA / name, form) if entry.problem]
    if only_checks:
        problems = [problem for problem in problems if any(test.kind == "check" for test in problem.tests)]
    with open_sandbox() as sandbox:
        # One of them computes for close to the default of three seconds.
        limits = Limits(cpu_seconds=10, wall_seconds=40)
        verdicts = sandbox.judge([job_of(problem, problem.solution, limits=limits) for problem in problems])
    assert Counter(verdict.outcome.value for verdict in verdicts) == outcomes


def test_gzipped_problems_are_read(problems: Path, tmp_path: Path) -> None:
    packed = tmp_path / "problems.jsonl.gz"
    packed.write_bytes(gzip.compress(problems.read_bytes()))
    assert len(run(packed, "reference", tmp_path / "out.jsonl")) == 2
