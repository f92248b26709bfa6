"""Assert statements as tests: arguments and value where both are literals, else a check that runs by itself.

A translated test keeps its answer away from the program; a check runs in a process of its own, so it holds what it
needs: the definitions and imports that its statements mention.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder.problems.problem import CallTest, CheckTest, Test

CANDIDATE = "candidate"


class NotLiteralError(Exception):
    """An expression is not made of literals alone."""


class _Sides(NamedTuple):
    call: ast.expr
    expected: Any


def translate(
    checks: Sequence[ast.stmt],
    name: str,
    library: Sequence[ast.stmt] = (),
    setup: Sequence[ast.stmt] = (),
) -> tuple[Test, ...]:
    """Turns the statements that check a function into tests.

    `assert f(1, k=[2]) == (3, 4)`, with `is` or `==`, `assert f(1)` and `assert not f(1)` become call tests; the last
    two expect `True` and `False`. All other statements become check tests: one an assert where asserts are all that is
    left, else one for the whole rest, since statements between asserts may prepare values for them.

    Args:
        checks: The statements, in order.
        name: What they call, besides `candidate`.
        library: Statements that checks may need; only those whose names they mention go along.
        setup: Statements that go along with every check.
    """
    tests: list[Test] = []
    rest: list[tuple[int, ast.stmt]] = []
    for statement in checks:
        if _says_nothing(statement):
            continue
        test = _call_test(statement, {name, CANDIDATE})
        if test is None:
            rest.append((len(tests), statement))
        else:
            tests.append(test)
    if all(isinstance(statement, ast.Assert) for _, statement in rest):
        for place, (index, statement) in enumerate(rest):
            tests.insert(index + place, _check([statement], name, library, setup))
    elif any(isinstance(node, ast.Assert | ast.Call) for _, statement in rest for node in ast.walk(statement)):
        tests.append(_check([statement for _, statement in rest], name, library, setup))
    return tuple(tests)


def literal(node: ast.expr) -> Any:
    """The value of an expression made of literals.

    Raises:
        NotLiteralError: it holds anything else.
    """
    if any(isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(node)):
        raise NotLiteralError
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NotLiteralError from error


def _says_nothing(statement: ast.stmt) -> bool:
    """`pass`, a string, a stray name, or an assert of a constant that holds."""
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant) and bool(statement.test.value)
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant | ast.Name)
    )


def _call_test(statement: ast.stmt, names: set[str]) -> CallTest | None:
    if not isinstance(statement, ast.Assert):
        return None
    try:
        call, expected = _sides(statement.test)
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names):
            return None
        if any(keyword.arg is None for keyword in call.keywords):
            return None
        kwargs = {str(keyword.arg): literal(keyword.value) for keyword in call.keywords}
        return CallTest.of(tuple(literal(arg) for arg in call.args), expected, kwargs)
    except (NotLiteralError, ValueError):
        return None


def _sides(test: ast.expr) -> _Sides:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            return _Sides(left, literal(right))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _Sides(operand, False)
    return _Sides(test, True)


def _check(statements: list[ast.stmt], name: str, library: Sequence[ast.stmt], setup: Sequence[ast.stmt]) -> CheckTest:
    body = [*setup, *statements]
    parts = [*_needed(body, name, library), *body]
    lines = [ast.unparse(part) for part in parts]
    if name != CANDIDATE and any(name in _mentioned(part) for part in parts):
        # A new name for the candidate, rather than a rewritten check: no local variable can be hit by mistake.
        lines.insert(0, f"{name} = {CANDIDATE}")
    return CheckTest(code="\n".join(lines) + "\n")


def _needed(body: list[ast.stmt], name: str, library: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements of the library that bind, or change, a name that the body mentions, directly or through others."""
    wanted = set[str]().union(*map(_mentioned, body))
    offered = [part for part in library if name not in _bound(part)]
    chosen: list[ast.stmt] = []
    while True:
        new = [part for part in offered if part not in chosen and _bound(part) & wanted]
        if not new:
            break
        chosen += new
        wanted = wanted.union(*map(_mentioned, new))
    known = set[str]().union(*map(_bound_anywhere, [*body, *chosen])) | set(dir(builtins)) | {name, CANDIDATE}
    if wanted - known:
        chosen += [part for part in offered if _is_star_import(part)]
    return [part for part in offered if part in chosen]


def _mentioned(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement binds where it stands, or whose attributes or items it sets."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        case ast.Assign(targets=targets):
            return set[str]().union(*map(_roots, targets))
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return _roots(target)
        case ast.For() | ast.While() | ast.If() | ast.With() | ast.Try():
            return _bound_anywhere(statement)
    return set()


def _roots(target: ast.expr) -> set[str]:
    match target:
        case ast.Name(id=name):
            return {name}
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            return _roots(value)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return set[str]().union(*map(_roots, parts))
    return set()


def _bound_anywhere(node: ast.AST) -> set[str]:
    """Names bound in a statement or inside it, parameters included."""
    found: set[str] = set()
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                found.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
                found |= _bound(part)
    return found


def _is_star_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names)
