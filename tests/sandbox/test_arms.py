"""Probes in expressions record exactly the arms that were evaluated, and change nothing else of a program."""

from __future__ import annotations

import builtins
import mmap
import sys
from typing import Any

import pytest
from conftest import ADD, Judge
from hypothesis import given
from hypothesis import strategies as st
from test_probes import AUTO, PROGRAMS, run

from stepcoder.sandbox import Job, Sandbox
from stepcoder.sandbox.inside import compiler, probes

Span = tuple[int, int, int, int]


def translate(source: str, branches: bool = True) -> tuple[Any, dict[str, Any]]:
    request = {"source": source, "filename": "<program>", "entry_point": "", "traced": True, "branches": branches}
    return compiler.translate(request)


def probed(source: str) -> tuple[dict[Span, bool], dict[Span, bool], str]:
    """Arms and statements with whether they ran, and what the program printed."""
    code, report = translate(source)
    spans = [*report["spans"], *report["arms"]]
    memory = mmap.mmap(-1, max(1, len(spans)))
    before = set(vars(builtins))
    probes.install(memory, len(spans))
    try:
        printed = run(code)
    finally:
        for name in set(vars(builtins)) - before:
            delattr(builtins, name)
    ran = [(tuple(span), bool(memory[place])) for place, span in enumerate(spans)]
    return dict(ran[len(report["spans"]) :]), dict(ran[: len(report["spans"])]), printed


def stepped(source: str) -> tuple[set[Span], str]:
    """The oracle: places of the instructions that the interpreter executed, and what the program printed."""
    places: set[Span] = set()
    tables: dict[Any, list[Any]] = {}

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != "<program>":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            table = tables.setdefault(frame.f_code, list(frame.f_code.co_positions()))
            line, end_line, column, end_column = table[frame.f_lasti // 2]
            if None not in (line, end_line, column, end_column):
                places.add((line, column, end_line, end_column))
        return trace

    code = compile(source, "<program>", "exec")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        printed = run(code)
    finally:
        sys.settrace(before)
    return places, printed


def check_against_the_interpreter(source: str) -> None:
    arms, statements, printed = probed(source)
    places, plainly_printed = stepped(source)
    assert printed == plainly_printed
    for (line, column, end_line, end_column), executed in arms.items():
        inside = any((line, column) <= place[:2] and place[2:] <= (end_line, end_column) for place in places)
        assert executed == inside, f"arm at {(line, column, end_line, end_column)} of\n{source}"
    assert statements == without_arms(source)


def without_arms(source: str) -> dict[Span, bool]:
    code, report = translate(source, branches=False)
    memory = mmap.mmap(-1, max(1, len(report["spans"])))
    before = set(vars(builtins))
    probes.install(memory, len(report["spans"]))
    try:
        run(code)
    finally:
        for name in set(vars(builtins)) - before:
            delattr(builtins, name)
    return {tuple(span): bool(memory[place]) for place, span in enumerate(report["spans"])}


def text_of(source: str, span: Span) -> str:
    lines = source.encode().split(b"\n")
    line, column, end_line, end_column = span
    part = lines[line - 1 : end_line]
    part[-1] = part[-1][:end_column]
    part[0] = part[0][column:]
    return b"\n".join(part).decode()


def arms_of(source: str) -> dict[str, bool]:
    arms, _, _ = probed(source)
    return {text_of(source, span): executed for span, executed in sorted(arms.items())}


EXPRESSIONS = {
    "a class with a namespace of its own": f"""{AUTO}
def same(x):
    return lambda f: x
class Colour(metaclass=Meta):
    a = RED or GREEN or BLUE
    b = [x and 2 or 3 for x in ((1, 2) if a else (3, 4))]
    @same(5 if a else 6)
    def f(self, y=7 if a else 8):
        return y and 9
    class Inner(metaclass=Meta):
        c = 1 and ONE
print(Colour.a, Colour.b, Colour.f, Colour.Inner.c)
""",
    "conditional": """
def f(x):
    return say('big', x) if x > 3 else say('small', x)
def say(*words):
    print(*words)
    return words
f(1)
""",
    "nested conditionals": """
def f(x):
    return (a(x) if x > 3 else b(x) if x > 2 else c(x) if x else d(x))
a = b = c = d = print
f(3), f(0)
""",
    "short circuits": """
def t(x):
    print(x)
    return x
print(t(0) and t(1), t(2) and t(3) or t(4), t(0) or t('') or t([]) or t(()), not (t(0) or t(5)) and t(6))
""",
    "conditions": """
def t(x):
    print(x)
    return x
if t(1) and (t(0) or t(2)) and t(3) and t(4):
    print('yes')
while t(0) or t(None):
    pass
assert t(1) or t(2), t(3) or t(4)
""",
    "walrus": """
def f(n):
    if (a := n) and (b := a - 1) or (c := 7):
        print([k for k, v in sorted(locals().items())])
    return [y for x in range(3) if (x and (y := x * n)) or (y := -1)]
print(f(1), f(2))
""",
    "comprehensions": """
def t(x):
    return x
n = 3
print([t(x) if x % 2 else t(-x) for x in range(n) if x or t(n)])
print({t(k): t(v) or t(n) for k, v in [(1, 0)] if k and t(v) or t(1)})
print(list(t(x) or t(n) for x in (n and range(2) or ())), {x and t(x) for x in ()})
class A:
    k = 2
    table = [k and t(x) for x in range(k or n)] if k == 2 else t(9)
print(hasattr(A, 'table'))
""",
    "class bodies": """
def t(x):
    return x
class A:
    a = t(1) and t(2)
    def m(self, d=t(0) or t(3)):
        return self.a and d or t(4)
print(A().m(), sorted(k for k in vars(A) if '__' not in k))
""",
    "lambdas and defaults": """
def t(x):
    return x
f = lambda x, y=t(0) or t(1): t(x) if y else t(y)
@(t(None) or (lambda g: g))
def g(x=t(1) if f else t(2), *, k=t(5) and t(6)):
    return x, k
print(f(2), g(), (lambda: t(1) and t(0))())
""",
    "generators": """
def t(x):
    return x
def g(x):
    y = x and (yield t(x)) or (yield t(0))
    z = (yield from h()) if y else t(3)
    return y or z
def h():
    yield t(4)
    return t(5)
print(list(g(1)), list(g(0)))
it = g(1)
next(it)
print(it.send(8))
""",
    "coroutines": """
async def v(x):
    return x
async def main(x):
    a = x and await v(x) or await v(7)
    b = (await v(1)) if x else (await v(2))
    return [a, b, [await v(y) or await v(9) for y in (x, 1)]]
for x in (0, 3):
    try:
        main(x).send(None)
    except StopIteration as stop:
        print(stop.value)
""",
    "match guards": """
def t(x):
    return x
def f(v):
    match v or t(None):
        case [x, y] if t(x) and t(y) or t(0):
            return x
        case {'k': z} if (z if t(z) else t(0)):
            return z if t(z) else t(1)
        case _:
            return None
print(f([1, 2]), f([0, 1]), f({'k': 3}), f(0))
""",
    "exceptions": """
def t(x):
    return 1 / x
def f(x):
    try:
        return x and t(x) or t(0)
    except ZeroDivisionError as e:
        raise (KeyError(x) if x else ValueError(x)) from (e if x else None)
print(f(2))
f(0)
""",
    "targets": """
class A: pass
def t(x):
    return x
a, b = A(), A()
(t(a) if a else t(b)).x = t(0) or t(5)
d = [0, 1]
d[t(0) and t(9)] += t(1) and t(2)
del d[t(0) or t(1)]
print(vars(a), vars(b), d, *(t([]) or t([7])), **(t({}) or t({})))
""",
    "recursion": """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def deep(n):
    return n and deep(n - 1) or n
print(fib(12), deep(200))
""",
    "several lines and bytes": """
é = 'ü'; x = é == 'ü' and (
    é.upper(  # and or
    )
) or (é,
      'ö')
print(x if
      é else
      ('ä' or x))
""",
    "strings": """
def t(x):
    return x
x = 0
print(f"{x or t(3)!r:>{t(5) if x else t(4)}}", f'{x and t(1)}' if x else t('no') + f"{t(2) or x}")
""",
}


@pytest.mark.parametrize("name", [*EXPRESSIONS, *PROGRAMS])
def test_arms_are_those_that_the_interpreter_evaluates(name: str) -> None:
    check_against_the_interpreter((EXPRESSIONS | PROGRAMS)[name])


def test_spans_are_those_of_the_arms() -> None:
    source = "x = 1\ny = (x, 2) if x else [3]\nz = x and (y or z) and (\n  x)\nw = 'é' or x\n"
    arms, _, _ = probed(source)
    assert [(span, text_of(source, span), arms[span]) for span in sorted(arms)] == [
        ((2, 4, 2, 10), "(x, 2)", True),
        ((2, 21, 2, 24), "[3]", False),
        ((3, 11, 3, 17), "y or z", True),
        ((3, 16, 3, 17), "z", False),
        ((4, 2, 4, 3), "x", True),
        ((5, 12, 5, 13), "x", False),
    ]


def test_columns_count_a_byte_order_mark() -> None:
    arms, _, _ = probed("\ufeffx = 1 or 2\ny = 0 or 2")
    assert arms == {(1, 12, 1, 13): False, (2, 9, 2, 10): True}


def test_annotations_stay_as_they_are_written() -> None:
    source = (
        "from __future__ import annotations\n"
        "def f(a: A if B else C, *b: D or E, k: F and G = 1 or 2) -> H or I:\n    x: J and K = 0 or 3\n    return x\n"
        "class L:\n    y: M if N else O\n"
        "print(f.__annotations__, L.__annotations__, f(1))\n"
    )
    arms, _, printed = probed(source)
    assert printed == run(compile(source, "<program>", "exec"))
    assert {text_of(source, span): hit for span, hit in arms.items()} == {"2": False, "3": True}


def test_expressions_in_f_strings_have_no_probes() -> None:
    assert arms_of("x = f'{1 and 2}' or f\"{3 if 4 else 5:{6 or 7}}\"") == {'f"{3 if 4 else 5:{6 or 7}}"': False}


@pytest.mark.parametrize("form", ["x if a else {}", "x or {}", "a and {}", "x and ({})"])
def test_what_compiles_without_probes_of_arms_compiles_with_them(form: str) -> None:
    a = 0
    for depth in (50, 150, 400, 900):
        source = "y"
        for _ in range(depth):
            source = form.format(source)
        source = f"a = x = 0\ny = 3\nz = {source}\nprint(z)\n"
        try:
            compile(source, "<program>", "exec")
            translate(source, branches=False)
        except (SyntaxError, RecursionError, MemoryError):
            continue
        _, report = translate(source)
        assert len(report["spans"]) == 4
        a += len(report["arms"]) > 0
    assert a


def test_a_long_chain_of_operands_has_all_its_arms() -> None:
    arms, _, printed = probed("print(" + " or ".join(["0"] * 3000) + " or 7)")
    assert (len(arms), all(arms.values()), printed) == (3000, True, "7\n")


class Node:
    """An expression of the property test: how it is written, and its value, its prints and its arms by hand."""

    def __init__(self, kind: str, *parts: Any) -> None:
        self.kind, self.parts = kind, parts

    def write(self, place: int) -> str:
        """The source, which starts at column `place`."""
        self.start = place
        match self.kind:
            case "leaf":
                text = f"t({self.parts[0]!r})"
            case "if":
                body, test, other = self.parts
                text = "(" + body.write(place + 1)
                text += " if " + test.write(place + len(text) + 4)
                text += " else " + other.write(place + len(text) + 6) + ")"
            case "not":
                text = "(not " + self.parts[0].write(place + 5) + ")"
            case _:
                text = "("
                for number, part in enumerate(self.parts):
                    text += f" {self.kind} " if number else ""
                    text += part.write(place + len(text))
                text += ")"
        self.end = place + len(text)
        return text

    def arm(self) -> tuple[int, int]:
        """Where it stands, without its brackets."""
        bracket = self.kind != "leaf"
        return self.start + bracket, self.end - bracket

    def arms(self) -> list[Node]:
        match self.kind:
            case "leaf":
                return []
            case "if":
                mine = [self.parts[0], self.parts[2]]
            case "not":
                mine = []
            case _:
                mine = list(self.parts[1:])
        return mine + [arm for part in self.parts for arm in part.arms()]

    def evaluate(self, seen: set[int], prints: list[Any]) -> Any:
        seen.add(id(self))
        match self.kind:
            case "leaf":
                prints.append(self.parts[0])
                return self.parts[0]
            case "if":
                body, test, other = self.parts
                if test.evaluate(seen, prints):
                    return body.evaluate(seen, prints)
                return other.evaluate(seen, prints)
            case "not":
                return not self.parts[0].evaluate(seen, prints)
        for part in self.parts:
            value = part.evaluate(seen, prints)
            if bool(value) is (self.kind == "or"):
                return value
        return value


leaves = st.sampled_from([0, 1, "", "x", None, 2.5]).map(lambda value: Node("leaf", value))
nodes = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(inner, inner, inner).map(lambda parts: Node("if", *parts))
        | st.lists(inner, min_size=2, max_size=4).map(lambda parts: Node("and", *parts))
        | st.lists(inner, min_size=2, max_size=4).map(lambda parts: Node("or", *parts))
        | inner.map(lambda part: Node("not", part))
    ),
    max_leaves=12,
)


@given(nodes)
def test_values_order_and_arms_are_those_of_an_evaluation_by_hand(node: Node) -> None:
    head = "def t(x):\n    print(repr(x))\n    return x\n"
    source = head + "print(repr(" + node.write(11) + "))"
    seen: set[int] = set()
    prints: list[Any] = []
    value = node.evaluate(seen, prints)
    arms, _, printed = probed(source)
    assert printed == "".join(f"{item!r}\n" for item in [*prints, value])
    by_hand = {(4, arm.arm()[0], 4, arm.arm()[1]): id(arm) in seen for arm in node.arms()}
    assert arms == by_hand


def test_a_truth_value_is_asked_for_as_often_as_without_probes() -> None:
    source = (
        "class A:\n    def __bool__(self):\n        print('asked')\n        return True\n"
        "a = A()\nx = a and A() and a or a\nif 0 or a:\n    print('in')\ny = A() if a else a\n"
        "print(type(0 or a) is A, (a or 1) is a, (0 or a) is a)\n"
    )
    assert probed(source)[2] == run(compile(source, "<program>", "exec"))


def test_branches_are_reported_over_all_tests_and_change_nothing_else(judge: Judge) -> None:
    program = "def f(a, b):\n    return (a + b if a < 5 else b + a) and (a + b or 9)"
    plain = judge(program)
    verdict = judge(program, branches=True)
    assert plain.branches == ()
    assert [(*branch.span, branch.executed) for branch in verdict.branches] == [
        (2, 12, 2, 17, True),
        (2, 32, 2, 37, True),
        (2, 44, 2, 54, True),
        (2, 53, 2, 54, False),
    ]
    assert (verdict.outcome, verdict.statements) == (plain.outcome, plain.statements)
    assert judge(program, branches=True, trace=False).branches == ()
    broken = judge("def f(", branches=True)
    assert (broken.branches, broken.statements) == ((), ())


def test_arms_before_a_timeout_count(judge: Judge) -> None:
    verdict = judge("def f(a, b):\n    return a and [0 for _ in iter(int, 1)] or b", branches=True)
    assert [branch.executed for branch in verdict.branches] == [True, False]


def test_a_verdict_without_branches_is_not_remembered_for_a_job_that_asks_for_them(one_slot: Sandbox) -> None:
    jobs = [Job("a", "def f(a, b):\n    return a and a + b", ADD, "f", branches=asked) for asked in (False, True)]
    assert [len(verdict.branches) for verdict in one_slot.judge(jobs)] == [0, 1]
