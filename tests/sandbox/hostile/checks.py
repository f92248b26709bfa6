"""Tricks on checks: statements of a problem that call the program from another process."""

from __future__ import annotations

from hostile.case import ERROR, OUTPUT, SECURITY, TIMEOUT, WRONG, Case, Tests
from stepcoder.problems import CheckTest, Test


def _check(code: str) -> Tests:
    """A check of which `ANSWER` is the secret."""

    def tests(answer: str) -> tuple[Test, ...]:
        return (CheckTest(code=code.replace("ANSWER", repr(answer))),)

    return tests


EQUAL = _check("assert candidate(1) == ANSWER")
TWICE = _check("assert candidate(1) == candidate(2) == ANSWER")
RAISES = _check(
    "try:\n    candidate(1)\nexcept ValueError as error:\n    assert str(error) == ANSWER\nelse:\n    assert 0"
)

CASES = [
    Case(
        "equals everything",
        "class Any:\n    __eq__ = lambda s, o: True\n    __hash__ = None\nf = lambda a: Any()",
        {WRONG, SECURITY},
        EQUAL,
    ),
    Case(
        "equals everything under the name of a plain type",
        """
        class Any(str): __eq__ = lambda s, o: True
        Any.__name__ = Any.__qualname__ = "str"
        f = lambda a: Any()
        """,
        {WRONG, SECURITY},
        EQUAL,
    ),
    Case(
        "the check's own code",
        """
        import gc, sys
        def f(a):
            frame = sys._getframe()
            while frame:
                for value in frame.f_locals.values():
                    if type(value) is str and value.startswith("answer-"): return value
                frame = frame.f_back
            return [o for o in gc.get_objects() if type(o) is tuple and "answer-" in map(str, o)][:0]
        """,
        {WRONG},
        EQUAL,
    ),
    Case("ends the check", "def f(a):\n    raise SystemExit(0)", {ERROR}, EQUAL),
    Case("an assertion of its own", "def f(a):\n    raise AssertionError", {ERROR, WRONG}, EQUAL),
    Case("an exception that the check expects", "def f(a):\n    raise ValueError('x')", {WRONG, ERROR}, RAISES),
    Case(
        "an exception of a builtin that ends checks",
        "def f(a):\n    raise type('SystemExit', (Exception,), {})('0')",
        {ERROR, WRONG},
        EQUAL,
    ),
    Case(
        "claims in place of the check",
        "@FORGE@\ndef f(a):\n    forge(b'{\"test\":0}')\n    return 0",
        {SECURITY},
        EQUAL,
    ),
    Case(
        "calls in place of the check",
        "@FORGE@\ndef f(a):\n    forge(b'{\"roots\":[],\"heap\":[]}', b'A')\n    return 0",
        {SECURITY},
        EQUAL,
    ),
    Case(
        "a graph that is none",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"graph":{"roots":[{"$ref":9}],"heap":[]}}\')\n    os._exit(0)',
        {SECURITY},
        EQUAL,
    ),
    Case(
        "a graph that names classes of the check",
        """
        @FORGE@
        def f(a):
            forge(json.dumps({"test": 0, "graph": {"roots": [{"$ref": 2}], "heap": [
                ["list", []], ["dict", []], ["object", "candidate", {"__class__": 1}]]}}).encode())
            os._exit(0)
        """,
        {SECURITY, WRONG},
        EQUAL,
    ),
    Case(
        "a graph with types for values",
        "@FORGE@\ndef f(a):\n    return str",
        {WRONG, SECURITY},
        EQUAL,
    ),
    Case(
        "a set whose elements collide",
        "def f(a):\n    return {number * (2**61 - 1) for number in range(1500)}",
        {WRONG, SECURITY, OUTPUT, TIMEOUT},
        EQUAL,
        "the check computes for long",
    ),
    Case(
        "a different value each time",
        "n = 0\ndef f(a):\n    global n\n    n += 1\n    return [n] * n",
        {WRONG},
        TWICE,
    ),
    Case(
        "arguments that it changed",
        "def f(a):\n    a.clear()\n    a.append('x')\n    return a",
        {WRONG},
        _check("x = [1, 2]\nassert candidate(x) == [1, 2] and x == [1, 2]"),
    ),
    Case(
        "a class that the check looks for, with attributes of its own",
        """
        class Node:
            def __init__(self): self.__dict__.update(__eq__=1, val="x", next=self)
            __eq__ = lambda s, o: True
        f = lambda a: Node()
        """,
        {WRONG, SECURITY},
        EQUAL,
    ),
    Case(
        "a graph nested as deep as the judge can just read",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":%d,"graph":{"roots":[' % (a - 930) + b"[" * a + b"]" * a + b'],"heap":[]}}')
            os._exit(0)
        """,
        {SECURITY, WRONG, ERROR},
        lambda answer: tuple(CheckTest(code=f"assert candidate({930 + n}) == {answer!r}") for n in range(70)),
    ),
    Case(
        "exceptions of every builtin type",
        """
        import builtins
        KINDS = [k for k in vars(builtins).values() if isinstance(k, type) and issubclass(k, BaseException)]
        def f(a):
            if a < len(KINDS): raise type(KINDS[a].__name__, (Exception,), {})("x")
        """,
        {WRONG, ERROR},
        lambda answer: tuple(CheckTest(code=f"assert candidate({n}) == {answer!r}") for n in range(70)),
    ),
]
