"""Lenient comparison: nearly right is wrong. The rules are those of `stepcoder.sandbox.compare`."""

from __future__ import annotations

from hostile.case import WRONG, Case, exactly
from stepcoder.problems import CallTest, StdinTest
from stepcoder.sandbox import Outcome


def _value(name: str, given: str, expected: object) -> Case:
    """`f` returns what the expression `given` gives where `expected` is expected."""
    return Case(name, f"def f(a):\n    return {given}", {WRONG}, exactly(CallTest.of((1,), expected)))


def _output(name: str, given: str, expected: str) -> Case:
    """`f` prints the text `given` where `expected` is expected."""
    return Case(
        name,
        f"import sys\ndef f():\n    sys.stdout.write({given!r})",
        {WRONG},
        exactly(StdinTest(stdin="1\n", stdout=expected)),
    )


CASES = [
    _value("text of the number", "'41'", 41),
    _value("the number of the text", "41", "41"),
    _value("another order", "[2, 1]", [1, 2]),
    _value("a set for a list", "{1, 2}", [1, 2]),
    _value("a list for a set", "[1, 2]", {1, 2}),
    _value("a frozen set for a set", "frozenset({1, 2})", {1, 2}),
    _value("twice in the list", "[1, 1, 2]", [1, 2]),
    _value("a prefix of the list", "[1, 2]", [1, 2, 3]),
    _value("more than the list", "[1, 2, 3]", [1, 2]),
    _value("the list in a list", "[[1, 2]]", [1, 2]),
    _value("one element for its list", "41", [41]),
    _value("an empty list for nothing", "[]", None),
    _value("nothing for zero", "None", 0),
    _value("nothing for false", "None", False),
    _value("empty text for nothing", "''", None),
    _value("two for true", "2", True),
    _value("text of true", "'True'", True),
    _value("a float beside an integer", "41.0000001", 41),
    _value("a float that is not close enough", "1.00001", 1.0),
    _value("a small float that is not close enough", "1e-6", 0.0),
    _value("a great float beside an integer", "float(2**60)", 2**60 + 1),
    _value("an infinity of the other sign", "float('-inf')", float("inf")),
    _value("not a number for a number", "float('nan')", 1.0),
    _value("another case of the letters", "'YES'", "Yes"),
    _value("blanks around text", "' yes '", "yes"),
    _value("bytes for text", "b'yes'", "yes"),
    _value("other Unicode of the same look", "'e\\u0301'", "é"),
    _value("a dictionary for its items", "{1: 2}", [[1, 2]]),
    _value("keys of another type", "{'1': 2}", {1: 2}),
    _value("a key too many", "{'a': 1, 'b': None}", {"a": 1}),
    _value("two keys that are one", "{0.9999999999: 1, 1: 1}", {1.0: 1, 2.0: 1}),
    _value("one element that is close to two", "{1.0}", {1.0, 1.0 + 1e-12}),
    _value("a range for a list", "range(1, 3)", [1, 2]),
    _value("a subclass of list", "type('L', (list,), {})([1])", [1]),
    _value("a counter for a dictionary", "__import__('collections').Counter('a')", {"a": 1}),
    _value("an array for a list", "__import__('array').array('i', [1])", [1]),
    _value("a fraction for a float", "__import__('fractions').Fraction(1, 2)", 0.5),
    _value("a decimal for an integer", "__import__('decimal').Decimal(41)", 41),
    _value("a NumPy integer for an integer", "__import__('numpy').int64(41)", 41),
    _value("a NumPy float for a float", "__import__('numpy').float64(0.5)", 0.5),
    _value("a NumPy array for a list", "__import__('numpy').array([1, 2])", [1, 2]),
    _value("an enum member for an integer", "__import__('enum').IntEnum('E', 'A').A", 1),
    _value("a class for its instance", "int", 0),
    Case(
        "only the last test",
        "def f(a):\n    return 3 if a == 3 else 0",
        {WRONG, Outcome.PASS},
        exactly(*[CallTest.of((number,), number) for number in (1, 2, 3)]),
    ),
    _output("glued tokens", "12", "1 2\n"),
    _output("split tokens", "1 2\n", "12\n"),
    _output("one line for two", "1 2\n", "1\n2\n"),
    _output("two lines for one", "1\n2\n", "1 2\n"),
    _output("a blank too many", "1  2\n", "1 2\n"),
    _output("a blank in front", " 1\n", "1\n"),
    _output("an empty line in front", "\n1\n", "1\n"),
    _output("an empty line between", "1\n\n2\n", "1\n2\n"),
    _output("a prefix of the lines", "1\n2\n", "1\n2\n3\n"),
    _output("a line too many", "1\n2\n3\n", "1\n2\n"),
    _output("a prefix of the line", "1", "12\n"),
    _output("no output", "", "1\n"),
    _output("letters of another case", "YES\n", "Yes\n"),
    _output("a float of the same value", "1.0\n", "1\n"),
    _output("a close float", "0.3333333\n", "0.3333333333\n"),
    _output("lines in another order", "2\n1\n", "1\n2\n"),
    _output("zeros in front", "007\n", "7\n"),
    _output("a null byte behind", "7\0\n", "7\n"),
    _output("a byte-order mark in front", "\ufeff7\n", "7\n"),
    _output("a carriage return alone for a line", "1\r2\n", "1\n2\n"),
    _output("a form feed for a line", "1\f2\n", "1\n2\n"),
    _output("a line separator for a line", "1\u20282\n", "1\n2\n"),
    _output("every answer", "".join(f"{number}\n" for number in range(100)), "7\n"),
    _output("every answer on one line", " ".join(map(str, range(100))), "7\n"),
    Case(
        "the answer on standard error",
        "import sys\ndef f():\n    print(7, file=sys.stderr)",
        {WRONG},
        exactly(StdinTest(stdin="1\n", stdout="7\n")),
    ),
    Case(
        "the answer after its input, echoed",
        "def f():\n    print(input())\n    print(7)",
        {WRONG},
        exactly(StdinTest(stdin="1\n", stdout="7\n")),
    ),
]
