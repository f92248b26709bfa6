"""Equality tricks: values that claim to equal whatever is expected."""

from __future__ import annotations

from hostile.case import ERROR, FAILS, WRONG, Case, a_float, a_number, a_script, exactly, one_call
from stepcoder.problems import CallTest

CASES = [
    Case(
        "equals everything",
        "class Any:\n    def __eq__(self, other): return True\ndef f(a):\n    return Any()",
        {WRONG},
    ),
    Case(
        "a number that equals everything",
        "class Any(int):\n    __eq__ = lambda s, o: True\n    __hash__ = None\ndef f(a):\n    return Any(0)",
        {WRONG},
        a_number,
    ),
    Case(
        "reflected operators",
        """
        class Any(float):
            __eq__ = __le__ = __ge__ = lambda s, o: True
            __sub__ = __rsub__ = __abs__ = lambda s, *o: 0.0
        def f(a):
            return Any(0)
        """,
        {WRONG},
        a_float,
    ),
    Case(
        "text that equals everything",
        "class Any(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\nf = lambda a: Any()",
        {WRONG},
    ),
    Case(
        "a list that equals everything",
        """
        class Any(list):
            __eq__ = __contains__ = lambda s, o: True
            __len__ = lambda s: 1
            __getitem__ = lambda s, i: s
        def f(a):
            return Any()
        """,
        {WRONG},
        exactly(CallTest.of((1,), [41])),
    ),
    Case(
        "a dictionary that holds everything",
        """
        class Any(dict):
            __eq__ = __contains__ = lambda s, o: True
            def __missing__(self, key): return self
        def f(a):
            return Any()
        """,
        {WRONG},
        exactly(CallTest.of((1,), {"x": 41})),
    ),
    Case(
        "a type of the right name",
        "def f(a):\n    return type('int', (int,), {'__module__': 'builtins'})(41)",
        {WRONG},
        exactly(CallTest.of((1,), 41)),
    ),
    Case(
        "a lie about its class",
        "class Any:\n    __class__ = str\n    __eq__ = lambda s, o: True\nf = lambda a: Any()",
        {WRONG},
    ),
    Case(
        "a metaclass that equals everything",
        """
        class Meta(type):
            __eq__ = __instancecheck__ = __subclasscheck__ = lambda c, o: True
            __hash__ = type.__hash__
        class Any(metaclass=Meta):
            __eq__ = lambda s, o: True
        f = lambda a: Any()
        """,
        {WRONG, ERROR},
    ),
    Case(
        "a metaclass that equals int and lies about its name",
        """
        class Meta(type):
            __eq__ = lambda c, o: o is int
            __hash__ = lambda c: hash(int)
        class Any(int, metaclass=Meta):
            __eq__ = lambda s, o: True
        f = lambda a: Any(0)
        """,
        {WRONG, ERROR},
        a_number,
    ),
    Case("the mock that equals everything", "from unittest.mock import ANY\nf = lambda a: ANY", {WRONG, ERROR}),
    Case("not a number", "def f(a):\n    return float('nan')", {WRONG}, a_float),
    Case("infinity", "def f(a):\n    return float('inf')", {WRONG}, a_float),
    Case("not implemented", "def f(a):\n    return NotImplemented", {WRONG}),
    Case("a generator", "def f(a):\n    yield 41", {WRONG}, exactly(CallTest.of((1,), [41]))),
    Case("an iterator", "def f(a):\n    return iter([41])", {WRONG}, exactly(CallTest.of((1,), [41]))),
    Case("a list of all numbers", "def f(a):\n    return list(range(100))", {WRONG}, a_number),
    Case("a list that holds itself", "def f(a):\n    x = []\n    x.append(x)\n    return x", {WRONG}),
    Case(
        "a number by conversion",
        "class N:\n    __int__ = __index__ = lambda s: 41\n    __float__ = lambda s: 41.0\nf = lambda a: N()",
        {WRONG},
        exactly(CallTest.of((1,), 41)),
    ),
    Case(
        "an opaque value for an opaque expectation",
        "class N: pass\nf = lambda a: {'$opaque': 'N'}",
        {WRONG},
    ),
    Case(
        "tags of the judge's own",
        "def f(a):\n    return [{'$float': 'nan'}, {'$int': '0x29'}, {'$tuple': []}]",
        {WRONG},
        exactly(CallTest.of((1,), [float("nan"), 41, []])),
    ),
    Case(
        "equality of numbers by their C slot",
        """
        import ctypes
        def f(a):
            compare = ctypes.CFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)
            f.keep = compare(lambda left, right, operator: True)
            slot = id(int) + 200  # tp_richcompare
            ctypes.c_void_p.from_address(slot).value = ctypes.cast(f.keep, ctypes.c_void_p).value
            return 0
        """,
        FAILS,
        a_number,
    ),
    Case(
        "a value of a number changed in place",
        """
        import ctypes
        def f(a):
            ctypes.c_uint32.from_address(id(1) + 24).value = 7
            return 1
        """,
        FAILS,
        a_number,
    ),
    Case(
        "a prefix of text by a broken length",
        """
        import ctypes
        def f(a):
            text = "answer-" + "0" * 16
            ctypes.c_ssize_t.from_address(id(text) + 16).value = 7
            return text
        """,
        {WRONG, ERROR},
        one_call,
    ),
    Case(
        "text on output that equals everything",
        "class Any(str):\n    __eq__ = lambda s, o: True\ndef f():\n    print(Any('x'))",
        {WRONG},
        a_script,
    ),
]
