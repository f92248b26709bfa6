"""Tricks on checkers, which decide what passes where several answers are right."""

from __future__ import annotations

from hostile.case import ERROR, FAILS, OUTPUT, SECURITY, TIMEOUT, WRONG, Case, exactly, one_call
from stepcoder.problems import AnyOf, CallTest, CheckerProgram, Float, StdinTest, Unordered

LIST = exactly(CallTest.of((1,), [1, 2, 2]))
NESTED = exactly(CallTest.of((1,), [[1, 2], [3]]))
CLOSE = exactly(CallTest.of((1,), [1.0 + number * 1e-9 for number in range(2000)]))
EQUAL = CheckerProgram(code="def check(arguments, expected, actual):\n    return actual == expected\n")
SORTS = CheckerProgram(code="def check(arguments, expected, actual):\n    return sorted(actual) == sorted(expected)\n")
HOLDS = CheckerProgram(code="def check(arguments, expected, actual):\n    return expected in actual\n")

CASES = [
    Case("any order: another count", "f = lambda a: [1, 1, 2]", {WRONG}, LIST, checker=Unordered()),
    Case("any order: a set", "f = lambda a: {1, 2}", {WRONG}, LIST, checker=Unordered()),
    Case("any order: a dictionary", "f = lambda a: {1: 0, 2: 0, 3: 0}", {WRONG}, LIST, checker=Unordered()),
    Case("any order: numbers as text", "f = lambda a: ['1', '2', '2']", {WRONG}, LIST, checker=Unordered()),
    Case("any order: deeper than is said", "f = lambda a: [[2, 1], [3]]", {WRONG}, NESTED, checker=Unordered()),
    Case("any order: not numbers", "f = lambda a: [float('nan')] * 3", {WRONG}, LIST, checker=Unordered()),
    Case(
        "any order: what is close to all",
        "f = lambda a: [1.0 + number * 1e-9 + 5e-7 * (-1) ** number for number in range(1999)] + [2.0]",
        {WRONG, TIMEOUT, OUTPUT},
        CLOSE,
        "the judge computes for long",
        checker=Unordered(),
    ),
    Case(
        "close: not a number", "f = lambda a: float('nan')", {WRONG}, exactly(CallTest.of((1,), 0.5)), checker=Float()
    ),
    Case("close: infinity", "f = lambda a: 1e999", {WRONG}, exactly(CallTest.of((1,), 1e308)), checker=Float()),
    Case(
        "close: infinity on output",
        "def f():\n    print('inf 1e999 nan 1_000')",
        {WRONG},
        exactly(StdinTest(stdin="", stdout="1.5 2.5 3.5 1000\n")),
        checker=Float(),
    ),
    Case(
        "close: the digits of another script",
        "def f():\n    print('\\u0661.\\u0665')",
        {WRONG},
        exactly(StdinTest(stdin="", stdout="1.5\n")),
        checker=Float(),
    ),
    Case(
        "one of several: all of them",
        "f = lambda a: [41, 42]",
        {WRONG},
        exactly(CallTest.of((1,), [41, 42])),
        checker=AnyOf(),
    ),
    Case(
        "a program that checks: equals everything",
        "class Any:\n    __eq__ = __contains__ = lambda s, o: True\nf = lambda a: Any()",
        {WRONG, SECURITY, ERROR},
        checker=EQUAL,
    ),
    Case(
        "a program that checks: holds everything",
        "class Any(str):\n    __contains__ = lambda s, o: True\nf = lambda a: Any()",
        {WRONG, SECURITY, ERROR},
        checker=HOLDS,
    ),
    Case(
        "a program that checks: a value that it cannot use",
        "f = lambda a: [None, 1, 'x', {}]",
        {WRONG},
        exactly(CallTest.of((1,), [1, 2])),
        checker=SORTS,
    ),
    Case(
        "a program that checks: values that collide",
        "f = lambda a: {number * (2**61 - 1): 0 for number in range(1200)}",
        {WRONG, OUTPUT, TIMEOUT, SECURITY},
        checker=EQUAL,
    ),
    Case(
        "a program that checks: a claim that it passed",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"passed":true,"value":true}\')\n    os._exit(0)',
        {SECURITY},
        checker=EQUAL,
    ),
    Case(
        "a program that checks: keys that cannot be keys",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":{"$dict":[[[],1],[{},2]]}}\')\n    os._exit(0)',
        {SECURITY, WRONG, ERROR},
        checker=EQUAL,
    ),
    Case(
        "a program that checks: sets of what cannot be in sets",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":{"$set":[[1],{"a":1}]}}\')\n    os._exit(0)',
        {SECURITY, WRONG, ERROR},
        checker=EQUAL,
    ),
    Case(
        "a program that checks: nested as deep as the judge can just read",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":%d,"value":' % (a - 930) + b"[" * a + b"]" * a + b"}")
            os._exit(0)
        """,
        {SECURITY, WRONG, ERROR},
        lambda answer: tuple(CallTest.of((930 + number,), answer) for number in range(70)),
        checker=EQUAL,
    ),
    Case(
        "a program that checks: reads the process beside it",
        """
        @SEARCH@
        def f(a):
            for pid in range(os.getpid() - 3, os.getpid() + 4):
                try: found = memory_of(pid)
                except OSError: continue
                if found: return found
        """,
        FAILS,
        one_call,
        "the checker's process, which holds the answer, is read",
        checker=EQUAL,
    ),
]
