import json

import pytest

from stepcoder.errors import DataError
from stepcoder.problems import CallTest, StdinTest, conditionals, read_entries, read_problems

STDIN = {
    "prompt": '\ndef IgUhb():\n    """Print the double of n.\nUse \\le freely.\n    """\n',
    "canonical_solution": "\nimport sys\ndef IgUhb():\n    n = int(input())\n    if n:\n        print(2 * n)\n    \n",
    "inputs": ["1\n", "2\n"],
    "outputs": ["2\n", "4\n"],
    "starter_code": "\ndef IgUhb():\n",
    "scope": [["Function Body", 3, 6], ["If Statement Body", 5, 6]],
    "difficulty": "introductory",
    "id": 7,
}
CALL = {
    "prompt": '\nclass Solution:\n    def f(self, s: str, n: int) -> str:\n            """Cut s.\n    """\n',
    "canonical_solution": "class Solution:\n    def f(self, s, n):\n        return s[:n]\n",
    "inputs": [['"rab\\"bit"', 3], [["bacon", "is"], 1]],
    "outputs": [['"rab"'], [["bacon"]]],
    "starter_code": "\nclass Solution:\n    def f(self, s: str, n: int) -> str:\n",
    "difficulty": "interview",
    "family": "cut",
    "unknown": 1,
}
LEETCODE = {
    "task_id": "cut-tree",
    "prompt": "from typing import *\nclass Node:\n    def __init__(self, v):\n        self.v = v\n",
    "completion": "class Solution:\n    def cut(self, node: Node) -> int:\n        return node.v\n",
    "entry_point": "Solution().cut",
    "test": "def check(candidate):\n    assert candidate(node = Node(3)) == 3\n    assert candidate(3) == 1\n",
    "query": "Cut it.\nPlease complete the following python code precisely:\n```python\nclass",
    "meta": {
        "difficulty": "Hard",
        "lang_code": "# class Node:\nclass Solution:\n    def cut(self, node: Node) -> int:",
    },
}
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": "import math\n\ndef helper(x):\n    return x\n\n\n"
    'def up(x: float) -> int:\n    """ Round up.\n    >>> up(1.5)\n    2\n    """\n',
    "entry_point": "up",
    "canonical_solution": "    return math.ceil(helper(x))\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1.5) == 2\n"
    "    assert abs(candidate(helper(2.0)) - 2) < 1\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to add one.",
    "code": "R = 1\r\ndef one(x = (lambda: 1), *, y: int = 1) :\r\n\treturn x+R",
    "test_setup_code": "",
    "test_list": ["assert one(1) == 2", "assert one(2) == 3 "],
    "challenge_test_list": ["assert one(5) == 7"],
}
RECORDS = {"apps_plus": CALL, "leetcode": LEETCODE, "humaneval": HUMANEVAL, "mbpp": MBPP}


def read(tmp_path, format, *records):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return list(read_entries(path, format))


def one(tmp_path, format, record):
    (entry,) = read(tmp_path, format, record)
    assert entry.faults == ()
    return entry.problem


def faults(tmp_path, format, record):
    (entry,) = read(tmp_path, format, record)
    assert entry.problem is None
    return [(fault.kind.value, str(fault)) for fault in entry.faults]


def test_a_standard_input_record(tmp_path):
    problem = one(tmp_path, "apps_plus", STDIN)
    assert problem.id == "7"
    assert problem.statement == "Print the double of n.\nUse \\le freely."
    assert problem.starter == "def IgUhb():\n"
    assert problem.entry_point == "IgUhb"
    assert problem.solution == "import sys\ndef IgUhb():\n    n = int(input())\n    if n:\n        print(2 * n)\n"
    assert problem.tests == (StdinTest(stdin="1\n", stdout="2\n"), StdinTest(stdin="2\n", stdout="4\n"))
    assert (problem.difficulty, problem.family, problem.source) == ("introductory", None, "apps_plus:7")


def test_a_call_record_decodes_top_level_strings_only(tmp_path):
    problem = one(tmp_path, "apps_plus", CALL)
    assert problem.tests == (CallTest.of(('rab"bit', 3), "rab"), CallTest.of((["bacon", "is"], 1), ["bacon"]))
    assert problem.entry_point == "Solution.f"
    assert problem.starter == "class Solution:\n    def f(self, s: str, n: int) -> str:\n"
    assert problem.family == "cut"


def test_a_record_without_an_id_is_known_by_its_content(tmp_path):
    shuffled = dict(reversed(CALL.items()))
    other = CALL | {"family": "other"}
    first, again, different = read(tmp_path, "apps_plus", CALL, shuffled, other)
    assert first.id == again.id != different.id
    assert len(first.id) == 16
    assert first.problem.source == f"apps_plus:{first.id}"


def test_starter_code_ends_with_its_signature(tmp_path):
    starter = "\ndef IgUhb():\n    # your code goes here\n\nif __name__ == '__main__':\n    IgUhb()"
    assert one(tmp_path, "apps_plus", STDIN | {"starter_code": starter}).starter == "def IgUhb():\n"
    starter = "@cache\ndef f(a: dict[str, int] = {1: 2},\n      b=lambda x: x):  # go\n"
    expected = "@cache\ndef f(a: dict[str, int] = {1: 2},\n      b=lambda x: x):\n"
    assert one(tmp_path, "apps_plus", CALL | {"starter_code": starter}).starter == expected


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"inputs": ...}, "schema", "inputs: is missing"),
        ({"inputs": "1"}, "schema", "inputs: must be a list, not a string"),
        ({"inputs": []}, "empty_field", "inputs: is empty"),
        ({"outputs": ["2\n"]}, "schema", "outputs: has 1 entries, `inputs` has 2"),
        ({"outputs": ["2\n", ["4"]]}, "schema", "inputs[0], outputs[0]: must be two strings in every test"),
        ({"inputs": [["ab"], [1]], "outputs": [[1], [1]]}, "schema", "inputs[0][0]: a top-level string"),
        ({"inputs": [["[1]"], [1]], "outputs": [[1], [1]]}, "schema", "inputs[0][0]: a top-level string"),
        ({"inputs": [[1], [1]], "outputs": [[1, 2], [1]]}, "schema", "inputs[0], outputs[0]: must be"),
        ({"prompt": " "}, "empty_field", "prompt: is empty"),
        ({"prompt": "def f():"}, "schema", "prompt: has no docstring"),
        ({"prompt": 'def f():\n    """ """\n'}, "empty_field", "prompt: its docstring"),
        ({"canonical_solution": None}, "schema", "canonical_solution: must be a string, not null"),
        ({"canonical_solution": ""}, "empty_field", "canonical_solution: is empty"),
        ({"starter_code": "x = 1"}, "schema", "starter_code: must be the signature"),
        ({"starter_code": "def f(a b):"}, "schema", "starter_code: must be the signature"),
        ({"starter_code": "def f(a):"}, "schema", "starter_code: has parameters"),
        ({"difficulty": "easy"}, "schema", "difficulty: must be one of introductory, interview, competition"),
        ({"id": True}, "schema", "id: must be a non-empty string or an integer, not a boolean"),
        ({"family": []}, "schema", "family: must be a non-empty string"),
        ({"scope": [["If Statement Body", 4, 6]]}, "scope_mismatch", "scope: lists `if` in lines 4-6"),
        ({"scope": []}, "scope_mismatch", "scope: lacks `if` in lines 5-6 of the solution"),
        ({"scope": [["If Statement Body", "5", 6]]}, "schema", "scope[0]: must be [kind"),
        ({"prompt": "\ud800"}, "schema", "half of a surrogate pair"),
    ],
)
def test_a_fault_names_the_field_and_what_is_wrong(tmp_path, change, kind, says):
    record = {key: value for key, value in (STDIN | change).items() if value is not ...}
    found = faults(tmp_path, "apps_plus", record)
    assert {one for one, _ in found} == {kind}
    assert says in found[0][1]


def test_all_faults_of_a_record_are_told_the_gravest_first(tmp_path):
    record = STDIN | {"prompt": "", "difficulty": 3, "outputs": ["2\n"]}
    assert [kind for kind, _ in faults(tmp_path, "apps_plus", record)] == ["schema", "schema", "empty_field"]
    assert [kind for kind, _ in faults(tmp_path, "apps_plus", {})] == ["schema"] * 6
    assert faults(tmp_path, "apps_plus", 1) == [("schema", "must be a JSON object, not a number")]


def test_a_leetcode_record(tmp_path):
    problem = one(tmp_path, "leetcode", LEETCODE)
    assert (problem.id, problem.entry_point, problem.difficulty) == ("cut-tree", "Solution.cut", "competition")
    assert problem.statement == "Cut it."
    assert problem.preamble == LEETCODE["prompt"]
    assert problem.starter == LEETCODE["meta"]["lang_code"] + "\n"
    assert problem.tests[1] == CallTest.of((3,), 1)
    assert problem.tests[0].kind == "check"
    assert "class Node" in problem.tests[0].code


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"entry_point": "Solution.cut"}, "entry_point: must be `Class().method`"),
        ({"entry_point": "Solution().other"}, "meta.lang_code: must be the signature of Solution.other"),
        ({"test": "def check(candidate):\n  assert candidate("}, "test: line 2"),
        ({"test": "x = 1"}, "test: must define `check(candidate)`"),
        ({"test": "def check(candidate):\n    pass"}, "test: checks nothing"),
        ({"meta": {"difficulty": "Easy as pie"}}, "meta.difficulty: must be one of Easy, Medium, Hard"),
        ({"meta": 1}, "meta: must be an object, not a number"),
        ({"query": "English description is not available for the problem."}, "query: holds no statement"),
    ],
)
def test_a_fault_of_a_leetcode_record_names_the_field(tmp_path, change, says):
    assert [message for _, message in faults(tmp_path, "leetcode", LEETCODE | change) if says in message]


def test_of_a_section_that_is_not_there_one_fault_is_enough(tmp_path):
    record = {key: value for key, value in LEETCODE.items() if key != "meta"}
    assert faults(tmp_path, "leetcode", record) == [("schema", "meta: is missing")]


def test_a_humaneval_record(tmp_path):
    problem = one(tmp_path, "humaneval", HUMANEVAL)
    assert problem.statement == "Round up.\n>>> up(1.5)\n2"
    assert problem.starter == "import math\n\ndef helper(x):\n    return x\n\n\ndef up(x: float) -> int:\n"
    assert problem.solution == problem.starter + "    return math.ceil(helper(x))\n"
    assert problem.tests[0] == CallTest.of((1.5,), 2)
    assert problem.tests[1].code == ("def helper(x):\n    return x\nassert abs(candidate(helper(2.0)) - 2) < 1\n")


def test_a_humaneval_statement_may_stand_on_the_header_or_after_an_import(tmp_path):
    problem = one(tmp_path, "humaneval", HUMANEVAL | {"prompt": 'def up(x): "Round ü up."\n'})
    assert (problem.statement, problem.starter) == ("Round ü up.", "def up(x):\n")
    prompt = 'def up(x):\n    import math\n    """Round up."""\n'
    problem = one(tmp_path, "humaneval", HUMANEVAL | {"prompt": prompt})
    assert problem.starter == "def up(x):\n    import math\n"


def test_an_mbpp_record_has_unix_lines_and_the_signature_that_the_tests_call(tmp_path):
    problem = one(tmp_path, "mbpp", MBPP)
    assert problem.id == "11"
    assert problem.solution == "R = 1\ndef one(x = (lambda: 1), *, y: int = 1) :\n\treturn x+R\n"
    assert problem.starter == "def one(x = (lambda: 1), *, y: int = 1) :\n"
    assert problem.tests == (CallTest.of((1,), 2), CallTest.of((2,), 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code": "def one(x)\n  pass"}, "code: line 1"),
        ({"code": "def two(x):\n  pass"}, "test_list: every test must call one and the same function of `code`"),
        ({"test_list": [1]}, "test_list[0]: must be a string"),
        ({"test_list": ["assert one(1) =="]}, "test_list[0]: line 1"),
    ],
)
def test_a_fault_of_an_mbpp_record_names_the_field(tmp_path, change, says):
    assert any(says in message for _, message in faults(tmp_path, "mbpp", MBPP | change))


@pytest.mark.parametrize("format", list(RECORDS))
def test_line_ends_do_not_matter(tmp_path, format):
    unix = one(tmp_path, format, RECORDS[format] | {"id": "x"})

    def dos(value):
        if isinstance(value, dict):
            return {key: dos(item) for key, item in value.items()}
        return value.replace("\r\n", "\n").replace("\n", "\r\n") if isinstance(value, str) else value

    windows = one(tmp_path, format, dos(RECORDS[format]) | {"id": "x"})
    assert windows == unix


@pytest.mark.parametrize("format", list(RECORDS))
def test_every_reader_gives_code_that_parses_and_lines_that_count(tmp_path, format):
    problem = one(tmp_path, format, RECORDS[format])
    assert problem.starter.endswith(":\n")
    assert conditionals(problem.solution) == []
    compile(problem.preamble + problem.solution, "solution", "exec")


def test_a_strict_reading_lists_every_faulty_record_and_repeated_id(tmp_path):
    path = tmp_path / "records.jsonl"
    rows = [json.dumps(STDIN), json.dumps(CALL | {"id": "7"}), '{"id": ', json.dumps(CALL | {"inputs": 1})]
    path.write_text("\n".join(rows))
    with pytest.raises(DataError) as caught:
        read_problems(path, "apps_plus")
    told = str(caught.value).split("\n")
    assert told[0] == f"{path}:2: id '7' is also that of {path}:1"
    assert "records.jsonl:3: broken JSON" in told[1]
    assert "records.jsonl:4: inputs: must be a list" in told[2]
    assert len(told) == 3


def test_an_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="'apps': choose one of apps_plus, leetcode, humaneval, mbpp"):
        read(tmp_path, "apps", STDIN)
