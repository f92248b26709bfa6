"""Probes record exactly the statements that ran, and change nothing else of a program."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import mmap
import sys
from itertools import pairwise
from types import CodeType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcoder.sandbox.inside import compiler, probes

Span = tuple[int, int, int, int]


def run(code: CodeType) -> str:
    """What a program prints; the type and line of an exception that ends it are its last line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(code, {"__name__": "solution"})
        except BaseException as error:
            trace, line = error.__traceback__, None
            while trace is not None:
                line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "<program>" else line
                trace = trace.tb_next
            print(type(error).__name__, line)
    return out.getvalue()


def probed(source: str) -> tuple[dict[Span, bool], str]:
    """Each statement's span and whether it ran, and what the program printed."""
    request = {"source": source, "filename": "<program>", "entry_point": "", "traced": True}
    code, report = compiler.translate(request)
    memory = mmap.mmap(-1, max(1, len(report["spans"])))
    before = set(vars(builtins))
    probes.install(memory, len(report["spans"]))
    try:
        printed = run(code)
    finally:
        for name in set(vars(builtins)) - before:
            delattr(builtins, name)
    return {tuple(span): bool(memory[i]) for i, span in enumerate(report["spans"])}, printed


def traced(source: str) -> tuple[set[int], str]:
    """The oracle: lines that `sys.settrace` saw, and what the program printed."""
    lines: set[int] = set()

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != "<program>":
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    code = compile(source, "<program>", "exec")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        printed = run(code)
    finally:
        sys.settrace(before)
    return lines, printed


def silent_lines(source: str) -> set[int]:
    """Lines of statements without any instruction, for which no line event comes."""
    return {
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Global | ast.Nonlocal)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    }


def check_against_the_oracle(source: str) -> None:
    statements, printed = probed(source)
    lines, plainly_printed = traced(source)
    assert printed == plainly_printed
    silent = silent_lines(source)
    for (line, *_), executed in statements.items():
        if line not in silent:
            assert executed == (line in lines), f"line {line} of\n{source}"


AUTO = """
class Auto(dict):
    def __missing__(self, name):
        if name.startswith("__"):
            raise KeyError(name)
        self[name] = len(self)
        return self[name]
class Meta(type):
    def __prepare__(name, bases):
        return Auto()
"""
"""A metaclass whose classes' namespace has an answer for any name."""

PROGRAMS = {
    "a class with a namespace of its own": f"""{AUTO}
    def __new__(cls, name, bases, namespace):
        return type.__new__(cls, name, bases, dict(namespace))
class Colour(metaclass=Meta):
    "Colours."
    RED
    GREEN
    for _ in (1, 2):
        BLUE
    class Inner(metaclass=Meta):
        ONE
        if False:
            TWO
    def f(self):
        return 1
print(sorted(name for name in vars(Colour) if name.isidentifier()), Colour.BLUE, Colour().f(), Colour.Inner.ONE)
print([name for name in vars(Colour) if not name.isidentifier()])
""",
    "globals named by numbers": """
class Odd:
    def __bool__(self):
        raise ValueError
for i in range(30):
    globals()[str(i)] = Odd()
print(i)
""",
    "branches": """
def f(n):
    if n > 3:
        return 1
    elif n > 2:
        return 2
    elif n > 1:
        n += 1
    else:
        n -= 1
    return n
print(f(2), f(4))
""",
    "loops": """
for i in range(3):
    if i == 1:
        continue
    print(i)
else:
    print('end')
while True:
    break
    print('never')
else:
    print('never')
""",
    "exceptions": """
def f(x):
    try:
        y = 1 / x
        print('fine')
    except ZeroDivisionError as error:
        print('zero')
        raise ValueError from error
    except KeyError:
        print('no')
    else:
        print('else')
    finally:
        print('finally')
    return y
f(1)
f(0)
print('unreached')
""",
    "classes": '''
"""Module."""
from __future__ import annotations
import functools
class A:
    """Doc."""
    x: int = 3
    def method(self):
        """Doc."""
        return self.x
    @property
    def unused(self):
        return 1
@functools.lru_cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(A().method(), fib(20))
''',
    "match": """
def f(v):
    match v:
        case [1, x] if x > 2:
            return 'a'
        case {'k': y}:
            return y
        case _:
            pass
    return None
print(f([1, 3]), f(5))
""",
    "with and async": """
import asyncio, contextlib
@contextlib.contextmanager
def manager():
    print('in')
    yield 3
    print('out')
async def numbers():
    for i in range(2):
        yield i
async def main():
    async for n in numbers():
        print(n)
    with manager() as m, manager():
        print(m)
    return 1
    print('no')
coroutine = main()
try:
    coroutine.send(None)
except StopIteration as stop:
    print(stop.value)
""",
    "generators": """
def g():
    yield 1
    yield 2
    yield 3
it = g()
print(next(it), next(it))
squares = [x * x for x in range(3) if x]
f = lambda x: x + 1
print(f(1))
""",
    "global and nonlocal": """
n = 0
def f():
    global n
    n += 1
    def g():
        nonlocal m
        m += 1
        if m > 100:
            return m
    m = 1
    g()
    return m
print(f(), n)
""",
    "recursion": """
def f(n):
    if n == 0:
        return 0
    return 1 + f(n - 1)
print(f(100))
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_executed_statements_are_those_that_settrace_sees(name: str) -> None:
    check_against_the_oracle(PROGRAMS[name])


def blocks(depth: int) -> st.SearchStrategy[list[str]]:
    simple = st.sampled_from(["n += 1", "n -= 2", "print(n)", "pass", "out.append(n)", "n = n * n % 7", "1 // (n % 3)"])
    leaves = simple.map(lambda text: [text])
    if depth == 0:
        return leaves
    inner = st.lists(blocks(depth - 1), min_size=1, max_size=3).map(
        lambda parts: ["    " + line for part in parts for line in part]
    )
    condition = st.sampled_from(["n % 2", "n > 3", "len(out) < 2", "not n", "n // (n % 4)"])
    ends = st.sampled_from(["break", "continue", "return n", "raise KeyError(n)", "pass"]).map(lambda t: ["    " + t])
    return st.one_of(
        leaves,
        st.tuples(condition, inner, inner).map(lambda p: [f"if {p[0]}:", *p[1], "else:", *p[2]]),
        st.tuples(condition, inner, condition, inner).map(lambda p: [f"if {p[0]}:", *p[1], f"elif {p[2]}:", *p[3]]),
        st.tuples(inner, ends).map(lambda p: ["for i in range(3):", *p[0], *p[1]]),
        st.tuples(condition, inner, ends, inner).map(
            lambda p: ["for i in range(3):", f"    if {p[0]}:", *("    " + x for x in p[2]), *p[1], "else:", *p[3]]
        ),
        # No `finally`: when an exception leaves it, CPython 3.11 reports its last line whether it ran or not.
        st.tuples(inner, inner, inner).map(
            lambda p: ["try:", *p[0], "except ZeroDivisionError:", *p[1], "else:", *p[2]]
        ),
        st.tuples(inner).map(lambda p: ["with open(__file__) if False else nothing() as _:", *p[0]]),
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(blocks(3), min_size=1, max_size=3), st.integers(0, 5))
def test_executed_statements_of_any_program_are_those_that_settrace_sees(parts: list[list[str]], n: int) -> None:
    body = [line for part in parts for line in part]
    source = "\n".join(
        [
            "from contextlib import nullcontext as nothing",
            "def f(n):",
            "    out = []",
            *("    " + line for line in body),
            "    return out",
            f"print(f({n}))",
        ]
    )
    check_against_the_oracle(source + "\n")


def spans_of(source: str) -> list[str]:
    """The source text of each statement's span, in order."""
    encoded = source.encode().split(b"\n")
    texts = []
    for line, column, end_line, end_column in sorted(probed(source)[0]):
        if line == end_line:
            texts.append(encoded[line - 1][column:end_column])
        else:
            middle = encoded[line : end_line - 1]
            texts.append(b"\n".join([encoded[line - 1][column:], *middle, encoded[end_line - 1][:end_column]]))
    return [text.decode() for text in texts]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1; y = 2", ["x = 1", "y = 2"]),
        ("if 1: x = 1; y = 2", ["if 1:", "x = 1", "y = 2"]),
        ("if 0:\n    a = 1\nelif 1:\n    b = 1\nelse:\n    c = 1", ["if 0:", "a = 1", "elif 1:", "b = 1", "c = 1"]),
        ("for i in [1,\n  2]:  # why: not\n    pass", ["for i in [1,\n  2]:", "pass"]),
        ("while (0  # a: b\n  ) :\n    pass", ["while (0  # a: b\n  ) :", "pass"]),
        (
            'def f(a: int = {1: 2}[1], *b, c=":") -> "x:y":\n    "doc"\n    return 1',
            ['def f(a: int = {1: 2}[1], *b, c=":") -> "x:y":\n    "doc"', "return 1"],
        ),
        ('def f():\n    "only"', ['def f():\n    "only"']),
        ("@max\n@min\ndef f(): pass", ["def f():", "pass"]),
        ("class A(int, metaclass=type):\n    'doc'\n    x = 1", ["class A(int, metaclass=type):\n    'doc'", "x = 1"]),
        ("try:\n    x\nexcept (A, B) as e:\n    y\nelse:\n    z\nfinally:\n    w", ["try:", "x", "y", "z", "w"]),
        ("with a() as b, c():\n    pass", ["with a() as b, c():", "pass"]),
        ("with (\n    a() as b,\n):\n    pass", ["with (\n    a() as b,\n):", "pass"]),
        ("match x:\n    case {'a': 1} if y:\n        pass", ["match x:", "pass"]),
        ("async def f():\n    async for x in y:\n        pass", ["async def f():", "async for x in y:", "pass"]),
        ("f = lambda x: [y for y in x]", ["f = lambda x: [y for y in x]"]),
        ("x = (1 +\n     2)", ["x = (1 +\n     2)"]),
        (
            '"""Doc."""\nfrom __future__ import annotations\nx = 1',
            ['"""Doc."""', "from __future__ import annotations", "x = 1"],
        ),
        ("é = 'ü'; x = é", ["é = 'ü'", "x = é"]),
        ("if 'ü:' in 'é': x = 1", ["if 'ü:' in 'é':", "x = 1"]),
        ("if 1: \\\n  x = 1", ["if 1:", "x = 1"]),
    ],
)
def test_spans_are_headers_and_simple_statements(source: str, expected: list[str]) -> None:
    assert spans_of(source) == expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_spans_come_in_order_and_never_overlap(name: str) -> None:
    spans = sorted(probed(PROGRAMS[name])[0])
    for (_, _, *end), (*start, _, _) in pairwise(spans):
        assert end <= start


def test_columns_count_a_byte_order_mark() -> None:
    assert sorted(probed("\ufeffx = 1\ny = 2")[0]) == [(1, 3, 1, 8), (2, 0, 2, 5)]


def test_statements_of_one_line_count_by_themselves() -> None:
    statements, _ = probed("def f(x):\n    if x: return 1\n    return 2\nf(0)")
    assert [executed for _, executed in sorted(statements.items())] == [True, True, False, True, True]


def test_a_program_cannot_see_or_spell_the_probes() -> None:
    _, printed = probed("x = 1\nprint(sorted(globals()))\nprint([n for n in dir() if not n.startswith('_')])")
    assert printed == "['__builtins__', '__name__', 'x']\n['x']\n"
    _, printed = probed("print([n for n in dir(__builtins__) if n.isidentifier() and 'hit' in n])")
    assert printed == "[]\n"


def test_docstrings_and_annotations_stay_what_they_are() -> None:
    source = '''"""M."""
from __future__ import annotations
def f(a: missing):
    """F."""
class C:
    """C."""
    x: missing
print(__doc__, f.__doc__, C.__doc__, f.__annotations__, C.__annotations__)
'''
    assert probed(source)[1] == "M. F. C. {'a': 'missing'} {'x': 'missing'}\n"


def test_a_long_chain_of_branches_compile() -> None:
    source = "x = 1500\nif x == 0:\n    pass\n" + "".join(f"elif x == {i}:\n    y = {i}\n" for i in range(1, 700))
    statements, _ = probed(source)
    assert sum(statements.values()) == 701
