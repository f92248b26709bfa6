"""Small records, one for every reason to be rejected."""

import json


def record(identity, body, **other):
    """A call record whose function `f(n)` must double its argument."""
    return {
        "id": identity,
        "prompt": f'def f(n):\n    """Double n ({identity}).\n    """\n',
        "canonical_solution": body,
        "inputs": [[1], [2]],
        "outputs": [[2], [4]],
        "starter_code": "def f(n):\n",
        "difficulty": "introductory",
    } | other


GOOD = "def f(n):\n    return n * 2\n"
STATEMENT = {"prompt": 'def f(n):\n    """Double n.\n    """\n'}

# id -> (record, reason, part of the detail)
CASES = {
    "no-tests": (record("no-tests", GOOD, inputs=[], outputs=[]), "empty_field", "inputs: is empty"),
    "no-key": (
        {key: value for key, value in record("no-key", GOOD).items() if key != "outputs"},
        "schema",
        "outputs: is missing",
    ),
    "syntax": (record("syntax", "def f(n):\n    retrun n n\n"), "syntax_error", "solution: line 2"),
    "outside": (record("outside", GOOD + "return 3\n"), "syntax_error", "line 3: 'return' outside function"),
    "scope": (record("scope", GOOD, scope=[["For Loop Body", 1, 2]]), "scope_mismatch", "lists `for` in lines 1-2"),
    "long": (record("long", GOOD + "#" * 900), "too_long", "max_chars is 900"),
    "cut": (record("cut", "def f(n):\n    return (n *\n"), "incomplete_code", "breaks off"),
    "half-line": (record("half-line", "def f(n):\n    return n *"), "incomplete_code", "breaks off"),
    "empty": (record("empty", 'def f(n):\n    """Later."""\n    pass\n'), "incomplete_code", "'f' does nothing"),
    "ellipsis": (record("ellipsis", "def f(n): ...\n"), "incomplete_code", "'f' does nothing"),
    "other-name": (record("other-name", "def g(n):\n    return 2 * n\n"), "incomplete_code", "does not define 'f'"),
    "library": (
        record("library", "def f(n):\n    if n > 9:\n        import no_such_thing\n    return 2 * n\n"),
        "missing_library",
        "no_such_thing (ModuleNotFoundError",
    ),
    "wrong": (
        record("wrong", "def f(n):\n    return 2\n"),
        "wrong_answer",
        "test 1 of 2 (from 0): wrong_answer; expected 4, got 2",
    ),
    "raises": (record("raises", "def f(n):\n    return 2 // (n - 1)\n"), "runtime_error", "ZeroDivisionError"),
    "name": (
        record(
            "name", "try:\n    import no_such_thing\nexcept ImportError:\n    pass\ndef f(n):\n    import nothing_too\n"
        ),
        "missing_library",
        "nothing_too",
    ),
    "endless": (record("endless", "def f(n):\n    while n:\n        pass\n"), "timeout", "test 0 of 2"),
    "greedy": (record("greedy", "def f(n):\n    return len(bytearray(10 ** 10))\n"), "memory", "test 0 of 2"),
    "talkative": (
        record(
            "talkative",
            "def f():\n    print('x' * 100000)\n",
            starter_code="def f():\n",
            inputs=[""],
            outputs=["x"],
        ),
        "output_limit",
        "test 0 of 1",
    ),
    "coin": (
        record(
            "coin",
            "import random\ndef f(n):\n    return random.getrandbits(1)\n",
            inputs=[[number] for number in range(40)],
            outputs=[[0]] * 40,
        ),
        "flaky",
        "in 3 runs of the same program",
    ),
    "any-answer": (
        record(
            "any-answer",
            GOOD,
            checker={"name": "program", "code": "def check(arguments, expected, actual):\n    return True\n"},
        ),
        "checker",
        "the checker accepts a program that always returns None",
    ),
    "vacuous": (
        record(
            "vacuous",
            "def f(n):\n    return [n, n]\n",
            outputs=[[[1, 1]], [[2, 2]]],
            checker={
                "name": "program",
                "code": "def check(arguments, expected, actual):\n    return all(x in expected for x in actual)\n",
            },
        ),
        "checker",
        "always returns []",
    ),
    "any-output": (
        record(
            "any-output",
            "def f():\n    print(4)\n",
            starter_code="def f():\n",
            inputs=["1"],
            outputs=["4"],
            checker={"name": "program", "code": "def check(*answers):\n    return True\n"},
        ),
        "checker",
        "prints nothing",
    ),
    "any-number": (
        record("any-number", GOOD, outputs=[[2.0], [4.0]], checker={"name": "float", "absolute": 10}),
        "checker",
        "always returns 0",
    ),
    "its-checker-fails": (
        record(
            "its-checker-fails",
            GOOD,
            checker={"name": "program", "code": "def check(a, b, c):\n    return c['x'] == b\n"},
        ),
        "wrong_answer",
        "the checker fails: TypeError",
    ),
    "no-such-checker": (
        record("no-such-checker", GOOD, checker="sorted"),
        "schema",
        "checker: Input tag 'sorted' found",
    ),
    "not-in-this-order": (
        record("not-in-this-order", "def f(n):\n    return [2, 1]\n", outputs=[[[1, 2]], [[1, 2]]]),
        "wrong_answer",
        "expected [1, 2], got [2, 1]",
    ),
    "twin-2": (
        record("twin-2", "def f(n):\n    return n + n\n", **STATEMENT),
        "duplicate",
        "same statement as 'twin-1'",
    ),
    "same-id": (record("same-id", GOOD), "duplicate_id", "2 different records have the id 'same-id'"),
    "drop": (record("drop", GOOD), "dropped", "two answers are right"),
}
ACCEPTED = {
    "fine": record("fine", GOOD),
    "guarded": record("guarded", "try:\n    import no_such_thing\nexcept ImportError:\n    no = 1\n" + GOOD),
    "assigned": record("assigned", "from operator import mul\nf = lambda n: mul(n, 2)\n"),
    "twin-1": record("twin-1", GOOD, **STATEMENT),
    # Its statement is that of the twins, and its id comes first, but it does not work: it takes nobody's place.
    "corrected": record("corrected", GOOD, outputs=[[2], [5]]),
    "any-order": record(
        "any-order", "def f(n):\n    return [2, 1]\n", outputs=[[[1, 2]], [[2, 1]]], checker="unordered"
    ),
    "half-or-double": record(
        "half-or-double",
        GOOD,
        outputs=[[0.5, 2], [1, 4]],
        checker="any_of",
    ),
    "its-checker-knows": record(
        "its-checker-knows",
        GOOD,
        outputs=[[0], [0]],
        checker={
            "name": "program",
            "code": "def check(arguments, expected, actual):\n    return actual == 2 * arguments[0]\n",
        },
    ),
    **{f"more-{number}": record(f"more-{number}", GOOD) for number in range(8)},
}
CORRECTIONS = [
    {"id": "drop", "action": "drop", "why": "two answers are right"},
    {"id": "corrected", "action": "outputs", "outputs": {"1": 4}, "why": "2 * 2 is 4"},
]
BROKEN_LINE = '{"id": "broken", "prompt": '
BROKEN_TWIN = record("a-twin", "def f(n):\n    return 3\n", **STATEMENT)


def lines():
    """All of them as the lines of a file."""
    rows = [found for found, _, _ in CASES.values()] + list(ACCEPTED.values())
    rows += [record("same-id", "def f(n):\n    return n + n\n"), BROKEN_TWIN, ACCEPTED["fine"]]
    return [json.dumps(row) for row in rows] + [BROKEN_LINE]
