import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems import Conditional, conditionals

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
APPS = DATA / "apps_plus_sample.jsonl"

SCOPES = {"If Statement Body": "if", "For Loop Body": "for", "While Loop Body": "while"}


def test_an_elif_is_an_if_of_its_own_and_else_is_none():
    source = "if a:\n    x = 1\nelif b:\n    x = 2\nelse:\n    x = 3\n"
    assert conditionals(source) == [Conditional("if", 1, 6), Conditional("if", 3, 6)]


def test_async_for_counts_as_for_and_expressions_do_not_count():
    source = "async def f(a):\n    async for x in a:\n        pass\n    return [i for i in a if i], 1 if a else 2\n"
    assert conditionals(source) == [Conditional("for", 2, 3)]


def test_statements_on_one_line_keep_their_order():
    assert conditionals("for i in a: pass\nwhile b: break\nif c: pass\n") == [
        Conditional("for", 1, 1),
        Conditional("while", 2, 2),
        Conditional("if", 3, 3),
    ]


def test_the_kind_set_is_a_parameter():
    source = "for i in a:\n    while i:\n        if i:\n            break\n"
    assert conditionals(source, kinds=("while",)) == [Conditional("while", 2, 4)]


def test_loops_with_else_end_with_their_else():
    assert conditionals("for i in a:\n    pass\nelse:\n    pass\n") == [Conditional("for", 1, 4)]


@given(st.lists(st.sampled_from(["if x:", "for i in x:", "while x:"]), max_size=8), st.integers(0, 3))
def test_a_nest_of_statements_starts_one_line_after_another(headers, before):
    lines = ["pass"] * before
    lines += ["    " * depth + header for depth, header in enumerate(headers)]
    lines.append("    " * len(headers) + "pass")
    found = conditionals("\n".join(lines))
    assert [item.first_line for item in found] == list(range(before + 1, before + 1 + len(headers)))
    assert all(item.last_line == len(lines) for item in found)
    assert [item.kind for item in found] == [header.split()[0].rstrip(":") for header in headers]


def _records():
    return [json.loads(line) for line in APPS.read_text().splitlines()]


@pytest.mark.data
@pytest.mark.skipif(not APPS.exists(), reason=f"{APPS} is not there")
def test_real_records_have_the_known_counts():
    counts = [len(conditionals(record["canonical_solution"])) for record in _records()]
    assert sum(counts) == 1576
    assert round(sum(counts) / len(counts), 2) == 4.07
    assert max(counts) == 30
    assert counts.count(0) == 82


@pytest.mark.data
@pytest.mark.skipif(not APPS.exists(), reason=f"{APPS} is not there")
def test_they_equal_the_scope_of_every_real_record():
    for record in _records():
        listed = sorted((SCOPES[kind], first, last) for kind, first, last in record["scope"] if kind in SCOPES)
        assert sorted(map(tuple, conditionals(record["canonical_solution"]))) == listed, record["id"]
