"""Wrong programs made from a right one by one small change each, and running programs that this folder wrote.

The generator chooses tests that tell these mutants from the reference. The programs come from the generator itself,
so they run in this process; programs of unknown origin belong in `stepcoder.sandbox`.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_TURNS = 1_500
"""Turns of all loops of one run together; a mutant that needs more counts as endless."""

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
_METHODS = {"upper": "lower", "isdigit": "isalpha", "isalpha": "isdigit"}
_FUNCTIONS = {"max": "min", "min": "max", "sum": "len"}


class EndlessError(Exception):
    """A program turned more often than `MAX_TURNS`."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yields `(what was changed, program)` for every single small change of the program, duplicates left out."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for node in list(ast.walk(tree)):
        for what, owner, key, value in list(_changes(node)):
            before = _exchange(owner, key, value)
            program = ast.unparse(tree)
            _exchange(owner, key, before)
            if program not in seen:
                seen.add(program)
                yield f"line {getattr(node, 'lineno', 0)}: {what}", program


Change = tuple[str, Any, Any, Any]
"""What is changed, its owner (a node or a list of statements), the field or index in it, and the new value."""


def _exchange(owner: Any, key: Any, value: Any) -> Any:
    """Puts a value into a node's field or a list's place, and returns what was there."""
    if isinstance(owner, list):
        before, owner[key] = owner[key], value
    else:
        before = getattr(owner, key)
        setattr(owner, key, value)
    return before


def _changes(node: ast.AST) -> Iterator[Change]:
    """The changes of one node."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in _COMPARISONS.get(type(operator), ()):
                yield f"{type(operator).__name__} to {other.__name__}", node, "ops", [other()]
        case ast.If():
            yield "condition always true", node, "test", ast.Constant(True)
            yield "condition never true", node, "test", ast.Constant(False)
        case ast.BoolOp(op=operator):
            yield "and/or exchanged", node, "op", ast.Or() if isinstance(operator, ast.And) else ast.And()
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in _OPERATORS:
            opposite = _OPERATORS[type(operator)]
            yield f"{type(operator).__name__} to {opposite.__name__}", node, "op", opposite()
        case ast.UnaryOp(op=ast.USub()):
            yield "sign dropped", node, "op", ast.UAdd()
        case ast.Constant(value=bool(truth)):
            yield "truth value flipped", node, "value", not truth
        case ast.Constant(value=int(constant)):
            yield "constant + 1", node, "value", constant + 1
            yield "constant - 1", node, "value", constant - 1
        case ast.Constant(value=str(letter)) if len(letter) == 1 and letter.isalpha():
            yield "other letter", node, "value", "n"
        case ast.Attribute(attr=name) if name in _METHODS:
            yield f"{name} to {_METHODS[name]}", node, "attr", _METHODS[name]
        case ast.Name(id=name) if name in _FUNCTIONS:
            yield f"{name} to {_FUNCTIONS[name]}", node, "id", _FUNCTIONS[name]
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if not isinstance(block, list):
            continue
        for position, statement in enumerate(block):
            yield from _statement_changes(block, position, statement)


def _statement_changes(block: list[ast.stmt], position: int, statement: ast.stmt) -> Iterator[Change]:
    if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr):
        yield f"dropped `{ast.unparse(statement)}`", block, position, ast.Pass()
    if isinstance(statement, ast.Continue):
        yield "continue to break", block, position, ast.Break()
    if isinstance(statement, ast.Break):
        yield "break to continue", block, position, ast.Continue()
    if isinstance(statement, ast.AugAssign):
        yield "counts instead", statement, "value", ast.Constant(1)


_LOOP = re.compile(r"^( *)(?:for|while) .*:$", re.MULTILINE)


class Runner:
    """A program that can be run on many inputs."""

    def __init__(self, program: str, entry_point: str) -> None:
        counted = _LOOP.sub(r"\g<0>\n\1    _tick()", program)
        self._turns = 0
        self._lines: Iterator[str] = iter(())
        self._printed: list[str] = []
        self._scope: dict[str, Any] = {"_tick": self._tick, "input": self._input, "print": self._print}
        exec(compile(counted, "<example>", "exec"), self._scope)
        name, _, method = entry_point.partition(".")
        self._function = getattr(self._scope[name](), method) if method else self._scope[name]

    def call(self, arguments: list[Any]) -> Any:
        """Returns what the function returns for copies of these arguments."""
        self._turns = 0
        return self._function(*map(_copied, arguments))

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


def _copied(value: Any) -> Any:
    """A copy of nested lists; nothing else in an argument can be changed."""
    return [_copied(item) for item in value] if isinstance(value, list) else value


def outcome(run: Callable[[Any], Any], given: Any) -> tuple[str, Any]:
    """What a run shows: `("value", result)`, or `("error", type name)` when the program raises."""
    try:
        return "value", run(given)
    except Exception as error:
        return "error", type(error).__name__
