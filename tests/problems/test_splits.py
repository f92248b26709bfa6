import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems import Problem, StdinTest, split_of


def problem(statement="Add the numbers.", starter="def f():\n", family=None, **other):
    given = {"id": "x", "solution": "def f():\n    print(1)\n", "entry_point": "f"} | other
    return Problem(
        statement=statement, starter=starter, family=family, tests=(StdinTest(stdin="", stdout="1"),), **given
    )


def test_a_split_is_frozen_for_good():
    # From `printf 'problem\0statement 0\0def f():' | sha256sum`: its first 12 digits over 16 ** 12.
    found = [split_of(problem(f"statement {number}")) for number in range(12)]
    assert found == FROZEN


FROZEN = [
    *("test", "train", "test", "validation", "train", "train"),
    *("validation", "validation", "test", "train", "validation", "test"),
]


@given(st.text(min_size=1), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_id_solution_and_source_do_not_move_a_problem(statement, source, identity, solution):
    moved = problem(statement, id=identity, solution=solution, source=source)
    assert split_of(moved) == split_of(problem(statement))


def test_white_space_and_case_of_the_statement_do_not_move_a_problem():
    for number in range(50):
        assert split_of(problem(f" Sum  of\n{number} ")) == split_of(problem(f"sum of {number}"))


@given(st.text(min_size=1), st.lists(st.text(), min_size=2, max_size=6))
def test_a_family_stays_together(family, statements):
    assert len({split_of(problem(statement, family=family)) for statement in statements}) == 1


def test_shares_are_met_within_three_standard_errors():
    found = [split_of(problem(f"problem {number}"), validation=0.3, test=0.1) for number in range(4000)]
    # sqrt(0.3 * 0.7 / 4000) = 0.00725, sqrt(0.1 * 0.9 / 4000) = 0.00474
    assert abs(found.count("validation") / 4000 - 0.3) < 0.0218
    assert abs(found.count("test") / 4000 - 0.1) < 0.0143


def test_a_larger_test_share_only_takes_problems_in():
    for number in range(300):
        if split_of(problem(f"p{number}"), 0.2, 0.1) == "test":
            assert split_of(problem(f"p{number}"), 0.2, 0.4) == "test"


def test_no_shares_train_on_everything():
    assert {split_of(problem(f"p{number}"), 0, 0) for number in range(100)} == {"train"}


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.2, -0.1), (0.7, 0.4)])
def test_impossible_shares_are_refused(validation, test):
    with pytest.raises(ValueError, match="shares"):
        split_of(problem(), validation, test)
