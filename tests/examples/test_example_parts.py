"""The tools that the generator is made of: mutants, runs, the choice of tests, the layout of a record."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.inputs import as_stdin, task_stdin
from examples.long_parts import CHANGES, MEASURES, ORIGINS, TELLINGS
from examples.mutants import EndlessError, Runner, mutants, outcome
from examples.records import Text, record, scope
from examples.short import short_problems
from examples.short_parts import FINISHES, REDUCTIONS, SOURCES, STEPS
from examples.testing import FEWEST, MOST, choose

COUNT_EVEN = """def solve(numbers):
    result = 0
    for value in numbers:
        if value % 2 == 0:
            result += 1
    return result"""


def test_every_small_change_of_a_program_is_a_mutant() -> None:
    changes = [what.split(": ")[1] for what, _ in mutants("def f(a):\n    if a > 3:\n        return a\n    return -a")]
    assert sorted(changes) == sorted(
        [
            "condition always true",
            "condition never true",
            "Gt to GtE",
            "Gt to Lt",
            "constant + 1",
            "constant - 1",
            "sign dropped",
        ]
    )


def test_mutants_differ_from_the_program_and_from_each_other() -> None:
    programs = [program for _, program in mutants(COUNT_EVEN)]
    assert len(set(programs)) == len(programs) > 10
    assert COUNT_EVEN not in programs


def test_an_endless_program_ends() -> None:
    endless = Runner("def f(n):\n    while n > 0:\n        n = n + 1", "f")
    assert outcome(endless.call, [1]) == ("error", "EndlessError")
    assert outcome(endless.call, [0]) == ("value", None)
    grows = Runner("def f(items):\n    for item in items:\n        items.append(item)", "f")
    with pytest.raises(EndlessError):
        grows.call([[1]])


def test_a_run_reads_prints_and_leaves_its_input_alone() -> None:
    program = Runner("def f():\n    a, b = input().split()\n    print(a, b, sep='-')\n    print(int(input()) + 1)", "f")
    assert program.feed("x y\n4\n") == "x-y\n5\n"
    assert outcome(program.feed, "x y\n") == ("error", "EOFError")
    items = [[3, 1]]
    sorts = Runner("class Solution:\n    def f(self, a):\n        a.sort()\n        return a", "Solution.f")
    assert sorts.call(items) == [1, 3]
    assert items == [[3, 1]]


def test_chosen_tests_catch_what_the_pool_can_tell_apart() -> None:
    pool = [[[]], *([[number, number // 3, number // 5]] for number in range(20))]
    chosen = choose(COUNT_EVEN, "solve", False, pool)
    assert chosen is not None
    assert FEWEST <= len(chosen) <= MOST
    assert chosen[0] == [[]]
    right = Runner(COUNT_EVEN, "solve")
    for what, program in mutants(COUNT_EVEN):
        wrong = Runner(program, "solve")
        differs = [given for given in pool if outcome(wrong.call, given) != ("value", right.call(given))]
        assert not differs or any(given in differs for given in chosen), what


def test_a_problem_with_an_idle_part_is_unfit() -> None:
    pool = [[[]], *([[number, number + 1, number + 3]] for number in range(20))]
    idle = COUNT_EVEN.replace("value % 2", "abs(value) % 2")
    assert choose(COUNT_EVEN, "solve", False, pool, needed=[idle]) is None


def test_a_problem_with_one_output_nearly_always_is_unfit() -> None:
    pool = [[[number]] for number in range(20)]
    assert choose("def solve(numbers):\n    return numbers[0] == 3", "solve", False, pool) is None


def test_a_record_has_the_layout_of_apps_plus() -> None:
    text = Text("Join them.", "\ndef solve(words):\n", 'def solve(words):\n    return "".join(words)')
    made = record(text, "solve", [[["a", "b'"]]], "introductory", "words/glue", "call")
    assert made == {
        "prompt": '\ndef solve(words):\n    """Join them.\n    """\n',
        "canonical_solution": 'def solve(words):\n    return "".join(words)',
        "inputs": [[["a", "b'"]]],
        "outputs": [['"ab\'"']],
        "starter_code": "\ndef solve(words):\n",
        "scope": [["Function Body", 1, 2]],
        "difficulty": "introductory",
        "id": "words.glue.call",
        "family": "words/glue",
    }


def test_scope_lists_blocks_with_their_lines() -> None:
    source = "def f(x):\n  for i in x:\n    if i:\n      return [a for a in i]\n    elif x:\n      pass"
    assert scope(source) == [
        ["Function Body", 1, 6],
        ["For Loop Body", 2, 6],
        ["If Statement Body", 3, 6],
        ["List Comprehension", 4, 4],
        ["If Statement Body", 5, 6],
    ]


@given(st.lists(st.integers(-99, 99)))
def test_a_list_can_be_read_back_from_standard_input(numbers: list[int]) -> None:
    assert [int(word) for word in as_stdin([numbers]).split()] == numbers
    count, line = task_stdin("plain", [numbers]).split("\n")[:2]
    assert int(count) == len(numbers)
    assert [int(word) for word in line.split()] == numbers


def test_no_two_parts_share_a_name() -> None:
    stock = (*SOURCES, *STEPS, *REDUCTIONS, *FINISHES, *ORIGINS, *CHANGES, *MEASURES, *TELLINGS)
    names = [part.name for part in stock]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name]


def test_more_rounds_begin_with_the_same_problems() -> None:
    assert list(islice(short_problems(7, rounds=2), 12)) == list(islice(short_problems(7), 12))
