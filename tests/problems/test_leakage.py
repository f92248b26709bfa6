import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems.leakage import line_pool, overlap, solution_lines


def test_lines_are_compared_without_blanks_indents_and_comments():
    assert solution_lines("# read\n\n    x  =   1\n\tprint( x )  \n  # done\n") == ["x = 1", "print( x )"]


def test_overlap_is_the_share_of_lines_found():
    pool = line_pool(["def f(x):\n    y = x\n    return y\n", "z = 0\n"])
    assert overlap("def g(x):\n    y = x\n    z = 0\n    return y\n", pool) == 0.75


def test_a_repeated_line_counts_each_time():
    assert overlap("a = 1\na = 1\nb = 2\n", line_pool(["a = 1\n"])) == pytest.approx(2 / 3)


def test_nothing_leaks_from_nothing():
    assert overlap("", line_pool(["a = 1"])) == 0


@given(st.lists(st.sampled_from(["a = 1", "b = 2", "c = 3", "d = 4"]), min_size=1))
def test_a_program_overlaps_itself_wholly(lines):
    source = "\n".join(lines)
    assert overlap(source, line_pool([source])) == 1
