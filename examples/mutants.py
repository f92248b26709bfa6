"""Wrong programs made from a right one by one small change each, and running programs that this folder wrote.

The generator chooses tests that tell these mutants from the reference. The programs come from the generator itself,
so they run in this process; programs of unknown origin belong in `stepcoder.sandbox`.
"""

from __future__ import annotations

import ast
import builtins
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

MAX_TURNS = 2_000
"""Turns of all `while` loops of one run together; a mutant that needs more counts as endless."""

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
}
_METHODS = {"upper": "lower", "isdigit": "isalpha", "isalpha": "isdigit", "max": "min", "min": "max"}


class EndlessError(Exception):
    """A program turned more often than `MAX_TURNS`."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yields `(what was changed, program)` for every single small change of the program, duplicates left out."""
    seen = {ast.unparse(ast.parse(source))}
    for index, node in enumerate(ast.walk(ast.parse(source))):
        for variant, (what, _) in enumerate(_changes(node)):
            tree = ast.parse(source)
            changed = next(itertools.islice(ast.walk(tree), index, None))
            _, apply = list(_changes(changed))[variant]
            apply()
            program = ast.unparse(tree)
            if program not in seen:
                seen.add(program)
                yield f"line {getattr(node, 'lineno', 0)}: {what}", program


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """The changes of one node; each is applied in place by calling it."""

    def put(owner: Any, field: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(owner, field, value)

    match node:
        case ast.Compare(ops=[operator]):
            for other in _COMPARISONS.get(type(operator), ()):
                yield f"{type(operator).__name__} to {other.__name__}", put(node, "ops", [other()])
        case ast.If():
            yield "condition always true", put(node, "test", ast.Constant(True))
            yield "condition never true", put(node, "test", ast.Constant(False))
        case ast.BoolOp(op=operator):
            yield "and/or exchanged", put(node, "op", ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in _OPERATORS:
            other = _OPERATORS[type(operator)]
            yield f"{type(operator).__name__} to {other.__name__}", put(node, "op", other())
        case ast.UnaryOp(op=ast.USub()):
            yield "sign dropped", put(node, "op", ast.UAdd())
        case ast.Constant(value=bool()):
            yield "truth value flipped", put(node, "value", not node.value)
        case ast.Constant(value=int()):
            yield "constant + 1", put(node, "value", node.value + 1)
            yield "constant - 1", put(node, "value", node.value - 1)
        case ast.Constant(value=str()) if len(node.value) == 1 and node.value.isalpha():
            yield "other letter", put(node, "value", "n")
        case ast.Attribute(attr=name) if name in _METHODS:
            yield f"{name} to {_METHODS[name]}", put(node, "attr", _METHODS[name])
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if not isinstance(block, list):
            continue
        for position, statement in enumerate(block):
            yield from _statement_changes(block, position, statement)


def _statement_changes(
    block: list[ast.stmt], position: int, statement: ast.stmt
) -> Iterator[tuple[str, Callable[[], None]]]:
    def replace(other: ast.stmt) -> Callable[[], None]:
        return lambda: block.__setitem__(position, ast.copy_location(other, statement))

    if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr):
        yield f"dropped `{ast.unparse(statement)}`", replace(ast.Pass())
    if isinstance(statement, ast.Continue):
        yield "continue to break", replace(ast.Break())
    if isinstance(statement, ast.Break):
        yield "break to continue", replace(ast.Continue())
    if isinstance(statement, ast.AugAssign):
        one = copy.deepcopy(statement)
        one.value = ast.Constant(1)
        yield "counts instead", replace(one)


class _Tick(ast.NodeTransformer):
    """Counts the turns of `while` loops, so that an endless mutant ends."""

    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(ast.Call(ast.Name("_tick", ast.Load()), [], [])))
        return node


class Runner:
    """A program that can be run on many inputs."""

    def __init__(self, program: str, entry_point: str) -> None:
        tree = ast.fix_missing_locations(_Tick().visit(ast.parse(program)))
        self._turns = 0
        self._lines: Iterator[str] = iter(())
        self._printed: list[str] = []
        self._scope: dict[str, Any] = {"_tick": self._tick, "input": self._input, "print": self._print}
        exec(compile(tree, "<example>", "exec"), self._scope)
        name, _, method = entry_point.partition(".")
        self._function = getattr(self._scope[name](), method) if method else self._scope[name]

    def call(self, arguments: list[Any]) -> Any:
        """Returns what the function returns for copies of these arguments."""
        self._turns = 0
        return self._function(*copy.deepcopy(arguments))

    def feed(self, stdin: str) -> str:
        """Returns what the program prints when it reads this text."""
        self._turns = 0
        self._lines = iter(stdin.splitlines())
        self._printed = []
        self._function()
        return "".join(self._printed)

    def _tick(self) -> None:
        self._turns += 1
        if self._turns > MAX_TURNS:
            raise EndlessError

    def _input(self) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    def _print(self, *items: Any, sep: str = " ", end: str = "\n") -> None:
        self._printed.append(builtins.str(sep).join(map(str, items)) + end)


def outcome(run: Callable[[Any], Any], given: Any) -> tuple[str, Any]:
    """What a run shows: `("value", result)`, or `("error", type name)` when the program raises."""
    try:
        return "value", run(given)
    except Exception as error:
        return "error", type(error).__name__
