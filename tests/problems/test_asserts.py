import ast

import pytest

from stepcoder.problems import CallTest, CheckTest
from stepcoder.problems.asserts import translate


def statements(code):
    return ast.parse(code).body


def translated(code, name="f", library="", setup=""):
    return translate(statements(code), name, statements(library), statements(setup))


@pytest.mark.parametrize(
    ("code", "args", "kwargs", "expected"),
    [
        ("assert f(1, -2.5) == 3", (1, -2.5), {}, 3),
        ("assert candidate(nums = [2, 7], target = 9) == [0, 1]", (), {"nums": [2, 7], "target": 9}, [0, 1]),
        ("assert f('a', b'b', None, True) == 'c', 'message'", ("a", b"b", None, True), {}, "c"),
        ("assert f(({1, 2}, (3,))) == {1: (2, 3)}", (({1, 2}, (3,)),), {}, {1: (2, 3)}),
        ("assert 5 == 5 and 1 == 1", None, None, None),
        ("assert (f(1)) is None", (1,), {}, None),
        ("assert f(1) is True", (1,), {}, True),
        ("assert f(1)", (1,), {}, True),
        ("assert not f(1)", (1,), {}, False),
        ("assert f() == set()", (), {}, set()),
    ],
)
def test_plain_asserts_become_arguments_and_value(code, args, kwargs, expected):
    (test,) = translated(code)
    if args is None:
        assert isinstance(test, CheckTest)
    else:
        assert (test.args, test.kwargs, test.expected) == (args, kwargs, expected)
        assert type(test.expected) is type(expected)


@pytest.mark.parametrize(
    "code",
    [
        "assert abs(f(1) - 1.5) < 1e-6",
        "assert f(1.0 / 3) == 0.5",
        "assert f(1) == 2 * 3",
        "assert f(1) != 2",
        "assert f(1) is not None",
        "assert f(*[1, 2]) == 3",
        "assert f(**{'a': 1}) == 3",
        "assert f(int) == 3",
        "assert g(1) == 3",
        "assert f(1).x == 3",
        "assert f(1) == 2 == 2",
        "assert f(...) == 3",
        "assert f(1) in (1, 2)",
        "assert f({[]}) == 3",
    ],
)
def test_everything_else_becomes_a_check(code):
    (test,) = translated(code)
    assert isinstance(test, CheckTest)
    assert ast.parse(test.code)


def test_a_check_names_the_candidate_as_its_statements_do():
    (test,) = translated("assert abs(f(1) - 1.5) < 1e-6")
    assert test.code == "f = candidate\nassert abs(f(1) - 1.5) < 1e-06\n"
    (test,) = translated("assert abs(candidate(1) - 1.5) < 1e-6")
    assert test.code == "assert abs(candidate(1) - 1.5) < 1e-06\n"


LIBRARY = """
from heapq import *
import math, sys
LIMIT = 3
class Node:
    def __init__(self, value):
        self.value = twice(value)
def twice(value):
    return value * 2
def unused():
    return LIMIT
def f(node):
    return node.value
"""


def test_a_check_takes_along_what_it_needs_and_nothing_else():
    (test,) = translated("assert f(Node(2)) == math.pi", library=LIBRARY)
    lines = test.code.split("\n")
    assert lines[0] == "f = candidate"
    assert "import math, sys" in lines
    assert "class Node:" in lines
    assert "def twice(value):" in lines
    assert not any("unused" in line or "LIMIT" in line or "heapq" in line or "def f" in line for line in lines)


def test_a_star_import_goes_along_where_a_name_is_left_open():
    (test,) = translated("assert f(nlargest(1, [2])) == 1", library=LIBRARY)
    assert test.code == "f = candidate\nfrom heapq import *\nassert f(nlargest(1, [2])) == 1\n"


def test_setup_goes_along_whole_with_every_check():
    tests = translated("assert f(a) == 1\nassert f(b) == 2", setup="a = Node(1)\na.next = b = Node(2)", library=LIBRARY)
    assert len(tests) == 2
    assert all("a = Node(1)\na.next = b = Node(2)\n" in test.code and "class Node" in test.code for test in tests)


def test_statements_that_change_a_needed_name_go_along():
    (test,) = translated("assert f(a) == 1", library="a = []\na[0:] = [1]\nb = 3\nb = a")
    assert test.code == "f = candidate\na = []\na[0:] = [1]\nassert f(a) == 1\n"


def test_asserts_around_a_loop_are_translated_and_the_rest_is_one_check():
    tests = translated("assert f(1) == 1\nx = 2\nfor i in range(3):\n    assert f(i) == i\nassert f(2) == 2")
    assert [test.kind for test in tests] == ["call", "call", "check"]
    assert tests[2].code == "f = candidate\nx = 2\nfor i in range(3):\n    assert f(i) == i\n"


def test_asserts_keep_their_order():
    tests = translated("assert f(1) < 1\nassert f(2) == 2\nassert f(3) < 3\nassert f(4) == 4")
    assert [test.kind for test in tests] == ["check", "call", "check", "call"]


def test_what_checks_nothing_is_left_out():
    assert translated("'docstring'\npass\nprint\nassert True, 'always'\nx = 1") == ()


def test_a_value_that_is_no_json_stays_itself():
    (test,) = translated("assert f({(1, 2): {3}}) == [b'x', 1j]")
    assert test == CallTest.of(({(1, 2): {3}},), [b"x", 1j])
