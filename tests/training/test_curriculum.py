"""CCCS against the check values of its specification, and what must hold for every problem."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder import curriculum as cccs
from stepcoder.errors import DataError
from stepcoder.problems import CallTest, Problem, conditionals, read_problems

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "apps_plus_sample.jsonl"

SOLUTION = """\
import math
def f(n):
    total = 0
    for i in range(n):
        if i % 2:
            total += i
        elif i % 3:
            total -= 1
    while total > 100:
        total //= 2
    return total
"""


def problem(solution: str = SOLUTION, id: str = "p") -> Problem:
    return Problem(
        id=id, statement="s", starter="def f(n):\n", solution=solution, entry_point="f", tests=(CallTest.of((1,), 0),)
    )


@pytest.mark.parametrize(
    ("count", "starts"),
    [
        (0, [None]),
        (1, [None]),
        (2, [1, None]),
        (3, [2, None]),
        (4, [2, None]),
        (5, [4, 2, None]),
        (6, [4, 2, None]),
        (7, [6, 3, None]),
        (8, [6, 3, None]),
        (9, [6, 3, None]),
        (10, [9, 6, 3, None]),
        (11, [9, 6, 3, None]),
        (12, [9, 6, 3, None]),
        (16, [12, 8, 4, None]),
        (17, [16, 12, 8, 4, None]),
    ],
)
def test_start_statements_are_those_of_the_specification(count: int, starts: list[int | None]) -> None:
    levels = reversed(range(cccs.stage_count(count)))
    assert [cccs.start_statement(count, level) for level in levels] == starts


@given(st.integers(0, 5000))
def test_every_start_statement_exists_and_a_lower_level_starts_earlier(count: int) -> None:
    assert cccs.stage_count(count) == max(1, math.ceil(math.sqrt(count)))
    starts = [cccs.start_statement(count, level) for level in range(cccs.stage_count(count))]
    assert starts[0] is None
    assert all(0 < start <= count - 1 for start in starts[1:])
    assert starts[1:] == sorted(set(starts[1:]))


@pytest.mark.parametrize("level", [-1, 2])
def test_a_level_that_a_problem_does_not_have_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match="level"):
        cccs.start_statement(4, level)


def test_opened_code_is_the_reference_up_to_the_line_of_the_start_statement() -> None:
    # Conditionals by hand: for (4), if (5), elif (7), while (9): E = 4, S = 2, s = 2; level 1 starts at the elif.
    assert cccs.opened_code(problem(), 1) == "".join(SOLUTION.splitlines(keepends=True)[:6])
    assert cccs.opened_code(problem(), 0) == "def f(n):\n"


def test_a_cut_before_the_signature_opens_the_starter() -> None:
    helper = "def odd(n):\n    for d in range(n):\n        if d * 2 == n:\n            return False\n    return True\n"
    solution = f"{helper}def f(n):\n    if odd(n):\n        return 1\n    return 0\n"
    item = problem().model_copy(update={"solution": solution})
    # for (2), if (3), if (7): E = 3, S = 2, s = 2; level 1 starts at the last one.
    assert cccs.opened_code(item, 1) == f"{helper}def f(n):\n"
    longer = item.model_copy(
        update={"solution": solution.replace("    return 0", "    if n:\n        return 2\n    return 0")}
    )
    both = longer.model_copy(update={"solution": helper.replace("odd", "even") + longer.solution})
    # E = 6, S = 3, s = 2: level 1 starts in the second helper, before `def f`; level 2 at its first `if`.
    assert cccs.opened_code(both, 1) == "def f(n):\n"
    assert cccs.opened_code(both, 2).endswith("def f(n):\n")
    assert cccs.opened_code(both, 2) != "def f(n):\n"


def test_the_kind_set_of_conditional_statements_is_a_setting() -> None:
    # Only `if` and `elif` are left: E = 2, S = 2, s = 1; level 1 starts at the elif in line 7.
    assert cccs.opened_code(problem(), 1, ("if",)) == "".join(SOLUTION.splitlines(keepends=True)[:6])
    begun = cccs.begin_stage({}, [problem()], 1, 1, ("while",))
    assert begun == {"p": cccs.Progress(0)}


def test_the_moving_average_and_the_advance_follow_hand_computation() -> None:
    now = cccs.Progress(2)
    now = cccs.advance(now, 0.5, alpha=0.5, threshold=0.6)
    assert now == cccs.Progress(2, 0.25)
    now = cccs.advance(now, 0.95, alpha=0.5, threshold=0.6)
    assert now.level == 2
    assert now.pass_rate == pytest.approx(0.6)
    now = cccs.advance(cccs.Progress(2, 0.6), 1.0, alpha=0.5, threshold=0.6)  # 0.8 > 0.6
    assert now == cccs.Progress(1, 0.0)


def test_a_pass_rate_equal_to_the_threshold_does_not_advance() -> None:
    assert cccs.advance(cccs.Progress(1, 0.5), 0.5, alpha=0.5, threshold=0.5) == cccs.Progress(1, 0.5)


def test_level_zero_stays_level_zero() -> None:
    assert cccs.advance(cccs.Progress(0, 0.9), 1.0, alpha=0.5, threshold=0.6) == cccs.Progress(0, 0.0)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.01, 1), st.floats(0, 1))
def test_levels_never_rise_and_fall_by_one_at_most(shares: list[float], alpha: float, threshold: float) -> None:
    now = cccs.Progress(4)
    for share in shares:
        new = cccs.advance(now, share, alpha=alpha, threshold=threshold)
        assert now.level - 1 <= new.level <= now.level
        assert new.level >= 0
        assert 0 <= new.pass_rate <= 1
        now = new


@pytest.mark.parametrize(
    ("levels", "stages", "ceilings"),
    [(4, 1, [3]), (4, 3, [3, 1, 0]), (4, 2, [3, 0]), (2, 3, [1, 0, 0]), (1, 3, [0, 0, 0]), (5, 4, [4, 2, 1, 0])],
)
def test_ceilings_by_hand(levels: int, stages: int, ceilings: list[int]) -> None:
    assert [cccs.ceiling(levels, stage, stages) for stage in range(1, stages + 1)] == ceilings


@given(st.integers(1, 40), st.integers(2, 12))
def test_the_first_stage_has_no_ceiling_and_the_last_is_from_scratch(levels: int, stages: int) -> None:
    assert cccs.ceiling(levels, 1, stages) == levels - 1
    assert cccs.ceiling(levels, stages, stages) == 0


def test_a_level_that_a_ceiling_lowers_starts_its_average_anew_and_another_keeps_it() -> None:
    ids = [problem(id="high"), problem(id="low")]
    before = {"high": cccs.Progress(1, 0.4), "low": cccs.Progress(0, 0.3), "gone": cccs.Progress(1, 0.2)}
    assert cccs.begin_stage(before, ids, 3, 3) == {"high": cccs.Progress(0, 0.0), "low": cccs.Progress(0, 0.3)}
    assert cccs.begin_stage(before, ids, 1, 3) == {"high": cccs.Progress(1, 0.4), "low": cccs.Progress(0, 0.3)}


def test_a_curriculum_survives_the_file_and_counts_its_levels(tmp_path: Path) -> None:
    curriculum = {"b": cccs.Progress(2, 0.125), "a": cccs.Progress(0, 0.5), "c": cccs.Progress(2)}
    cccs.save(curriculum, tmp_path / "curriculum.json")
    assert cccs.load(tmp_path / "curriculum.json") == curriculum
    assert list(json.loads((tmp_path / "curriculum.json").read_text())) == ["a", "b", "c"]
    assert cccs.level_counts(curriculum) == {0: 1, 2: 2}


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_broken_curriculum_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curriculum.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"curriculum\.json"):
        cccs.load(path)


def test_every_fault_of_a_curriculum_file_is_told_with_its_problem_and_its_field(tmp_path: Path) -> None:
    faults = {
        "a": ('{"level": 1}', "pass_rate"),
        "b": ('{"level": "x", "pass_rate": 0}', "level"),
        "c": ('{"level": -1, "pass_rate": 0}', "level"),
        "d": ('{"level": 1.9, "pass_rate": 0}', "level"),
        "e": ('{"level": 1, "pass_rate": NaN}', "pass_rate"),
        "f": ('{"level": 1, "pass_rate": 1.5}', "pass_rate"),
        "g": ('{"level": 1, "pass_rate": -0.5}', "pass_rate"),
    }
    path = tmp_path / "curriculum.json"
    whole = '"whole": {"level": 1, "pass_rate": 0}, "none": [], '
    path.write_text("{" + whole + ", ".join(f'"{key}": {row}' for key, (row, _) in faults.items()) + "}")
    with pytest.raises(DataError) as error:
        cccs.load(path)
    places = [line.split(": ")[:-1] for line in str(error.value).splitlines()]
    assert places == [[str(path), "none"], *([str(path), f"{key}.{field}"] for key, (_, field) in faults.items())]
    (tmp_path / "gone").mkdir()
    with pytest.raises(DataError, match="gone"):
        cccs.load(tmp_path / "gone" / "curriculum.json")


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the real APPS+ sample is not here")
def test_stage_counts_of_the_real_problems() -> None:
    problems = [item for item in read_problems(DATA, "apps_plus") if isinstance(item, Problem)]
    counts = [cccs.stage_count(len(conditionals(item.solution))) for item in problems]
    assert {stages: counts.count(stages) for stages in set(counts)} == {1: 131, 2: 120, 3: 98, 4: 28, 5: 7, 6: 3}
    without_signature = set()
    for item, stages in zip(problems, counts, strict=True):
        for level in range(1, stages):
            opened = cccs.opened_code(item, level)
            if opened == item.starter:
                without_signature.add(item.id)
            else:
                assert item.solution.startswith(opened)
                assert f"def {item.entry_point.rpartition('.')[2]}" in opened
            assert opened.endswith("\n")
    assert len(without_signature) == 5  # helpers stand first
