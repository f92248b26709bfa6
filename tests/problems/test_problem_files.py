import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder.errors import DataError
from stepcoder.problems import CallTest, CheckTest, Problem, StdinTest, dump_problems, load_problems
from stepcoder.problems.files import read_rows

ROWS = [{"a": 1}, {"b": "x\u2028y"}, [3]]


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
        "\n\n".join(json.dumps(row) for row in ROWS) + "\r\n",
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS),
    ],
    ids=["lines", "blank lines", "list", "list with mark"],
)
def test_every_form_gives_the_same_values(tmp_path, text, pack):
    rows = list(read_rows(write(tmp_path / "file", pack(text.encode()))))
    assert [row.value for row in rows] == ROWS


def test_a_broken_line_is_named_and_the_others_are_read(tmp_path):
    lines = [json.dumps({"n": number}) for number in range(20)]
    lines[16] = '{"n": 16'
    rows = list(read_rows(write(tmp_path / "p.jsonl", "\n".join(lines))))
    assert len(rows) == 20
    assert [row.where for row in rows if row.fault] == [f"{tmp_path}/p.jsonl:17"]
    assert "broken JSON at column 9" in rows[16].fault


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"id,prompt\n1,hello\n", "no line is JSON"),
        (b"[]", "list is empty"),
        (b'[{"a": 1},\n {"a": 2', "line 2"),
        (b"\xff\xfe\x00", "not UTF-8 text .byte 0"),
        (gzip.compress(b'{"a": 1}\n' * 100, mtime=0)[:-12], "damaged or cut off"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_why(tmp_path, data, says):
    with pytest.raises(DataError, match=says) as caught:
        list(read_rows(write(tmp_path / "p.jsonl", data)))
    assert "p.jsonl" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: there is no such file"):
        list(read_rows(tmp_path / "nowhere.jsonl"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_rows(tmp_path))


def test_json_that_python_cannot_hold_is_a_fault_of_its_line(tmp_path):
    lines = ['{"a": 1}', "[" * 100_000 + "]" * 100_000, '{"a": ' + "9" * 5000 + "}"]
    rows = list(read_rows(write(tmp_path / "p.jsonl", "\n".join(lines))))
    assert [bool(row.fault) for row in rows] == [False, True, True]


def problem(identity="p", tests=None):
    return Problem(
        id=identity,
        statement="Say more — “two”.",
        starter="def f():\n",
        solution="def f():\n    print(2)\n",
        entry_point="f",
        tests=tests or (StdinTest(stdin="1\n", stdout="2\n"),),
    )


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
value_trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(value_trees, max_size=3), value_trees)
def test_written_problems_are_read_back_equal(tmp_path_factory, args, expected):
    path = tmp_path_factory.mktemp("problems") / "train.jsonl"
    tests = (CallTest.of(tuple(args), expected, {"key": expected}), CheckTest(code="assert candidate(1)\n"))
    problems = [problem("a", tests), problem("b")]
    dump_problems(problems, path)
    assert load_problems(path) == problems
    read = load_problems(path)[0].tests[0]
    assert repr(type(read.expected)) == repr(type(expected))


def test_an_empty_split_file_holds_no_problems(tmp_path):
    dump_problems([], tmp_path / "test.jsonl")
    assert load_problems(tmp_path / "test.jsonl") == []


def test_every_faulty_line_of_a_split_file_is_told(tmp_path):
    good = problem().model_dump_json()
    lines = [good, good.replace('"statement"', '"statment"'), good, "{"]
    with pytest.raises(DataError) as caught:
        load_problems(write(tmp_path / "train.jsonl", "\n".join(lines)))
    told = str(caught.value).split("\n")
    assert len(told) == 3
    assert "train.jsonl:2: statement: Field required; statment: Extra inputs" in told[0]
    assert f"train.jsonl:3: id 'p' is also that of {tmp_path}/train.jsonl:1" in told[1]
    assert "train.jsonl:4: broken JSON" in told[2]
