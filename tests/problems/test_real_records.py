import ast
from pathlib import Path

import pytest

from stepcoder.problems import dump_problems, load_problems, read_entries

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")]

FILES = {
    "apps_plus": "apps_plus_sample.jsonl",
    "leetcode": "leetcode_v0.2.0_train.jsonl.gz",
    "humaneval": "humaneval.jsonl.gz",
    "mbpp": "mbpp.jsonl",
}


@pytest.fixture(scope="module")
def entries():
    return {format: list(read_entries(DATA / name, format)) for format, name in FILES.items()}


def problems(entries, format):
    return [entry.problem for entry in entries[format] if entry.problem]


@pytest.mark.parametrize(
    ("format", "records", "readable"),
    [("apps_plus", 387, 387), ("leetcode", 1890, 1888), ("humaneval", 164, 164), ("mbpp", 974, 974)],
)
def test_all_records_with_a_statement_can_be_read(entries, format, records, readable):
    assert len(entries[format]) == records
    assert len(problems(entries, format)) == readable


def test_the_two_leetcode_records_that_cannot_be_read_have_no_statement(entries):
    faulty = {entry.id: entry.faults for entry in entries["leetcode"] if entry.faults}
    assert set(faulty) == {"deep-dark-fraction", "guess-numbers"}
    assert all("placeholder" in str(faults[0]) for faults in faulty.values())


@pytest.mark.parametrize(
    # 146 HumanEval records have nothing but plain asserts; 129 has a stray name beside them. 1,769 LeetCode records
    # are plain, two of them without a statement.
    ("format", "translated"),
    [("apps_plus", 387), ("leetcode", 1767), ("humaneval", 147), ("mbpp", 967)],
)
def test_plain_asserts_are_translated(entries, format, translated):
    found = [all(test.kind != "check" for test in problem.tests) for problem in problems(entries, format)]
    assert found.count(True) == translated


def test_apps_plus_has_the_known_encodings(entries):
    found = problems(entries, "apps_plus")
    stdin = [problem for problem in found if problem.tests[0].kind == "stdin"]
    methods = [problem for problem in found if "." in problem.entry_point]
    assert (len(stdin), len(found) - len(stdin), len(methods)) == (245, 142, 28)
    counts = [len(problem.tests) for problem in found]
    assert [counts.count(number) for number in (1, 2, 3)] == [77, 18, 292]


@pytest.mark.parametrize("format", list(FILES))
def test_starters_are_signatures_and_checks_compile(entries, format):
    for problem in problems(entries, format):
        assert problem.statement.strip(), problem.id
        assert "\r" not in problem.starter + problem.solution
        ast.parse(problem.starter.rstrip("\n") + " pass" if problem.starter.endswith(":\n") else problem.starter)
        for test in problem.tests:
            if test.kind == "check":
                assert "candidate" in test.code
                ast.parse(test.code)


@pytest.mark.parametrize("format", list(FILES))
def test_what_is_written_is_read_back(entries, format, tmp_path):
    dump_problems(problems(entries, format), tmp_path / "train.jsonl")
    assert load_problems(tmp_path / "train.jsonl") == problems(entries, format)
