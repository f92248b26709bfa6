"""What can be told about a reference solution without running it."""

from __future__ import annotations

import ast
import codeop
import warnings
from collections.abc import Iterator

from stepcoder.problems import Problem
from stepcoder.problems.code import syntax_fault
from stepcoder.verification.reasons import Reason, Rejection


def check(problem: Problem, max_chars: int | None = None) -> Rejection | None:
    """The first fault among length, syntax and completeness."""
    length = len(problem.statement) + len(problem.starter) + len(problem.solution)
    if max_chars is not None and length > max_chars:
        detail = f"statement, starter and solution have {length} characters; max_chars is {max_chars}"
        return Rejection(Reason.TOO_LONG, detail)
    for name, code in (("preamble", problem.preamble), ("solution", problem.solution)):
        fault = syntax_fault(code)
        if fault is not None:
            breaks_off = name == "solution" and _breaks_off(code)
            reason = Reason.INCOMPLETE_CODE if breaks_off else Reason.SYNTAX_ERROR
            return Rejection(reason, f"{name}: {'breaks off: ' if breaks_off else ''}{fault}")
    return _incomplete(problem)


def imported(problem: Problem) -> set[str]:
    """Top-level modules that preamble and solution import, whether or not a test gets there.

    An import inside `try` is left out: such code can do without it. A relative import gives `.`.
    """
    found: set[str] = set()
    for node in _unguarded(_parse(f"{problem.preamble}\n{problem.solution}")):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level or node.module is None else node.module.partition(".")[0])
    return found - {"__future__"}


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _unguarded(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try):
            yield child
            yield from _unguarded(child)


def _breaks_off(code: str) -> bool:
    """Whether it is the end of a code with a syntax error that is missing: an open block or bracket, half a line."""
    lines = code.rstrip().split("\n")
    try:
        return codeop.compile_command(code, "<solution>", "exec") is None
    except SyntaxError as error:
        return error.lineno == len(lines) and (error.offset or 0) > len(lines[-1])
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return False


def _incomplete(problem: Problem) -> Rejection | None:
    """No definition of the entry point, or one that does nothing."""
    names = problem.entry_point.split(".")
    body = _parse(f"{problem.preamble}\n{problem.solution}").body
    found: ast.stmt | None = None
    for place, name in enumerate(names):
        found = _definition(body, name)
        if found is None:
            if place > 0 or _binds_otherwise(body, name):
                # Inherited, assigned, imported or defined under a condition: running it will tell.
                return None
            detail = f"the solution does not define {problem.entry_point!r}, which the tests call"
            return Rejection(Reason.INCOMPLETE_CODE, detail)
        body = getattr(found, "body", [])
    if found is not None and all(_does_nothing(statement) for statement in body):
        return Rejection(Reason.INCOMPLETE_CODE, f"the body of {problem.entry_point!r} does nothing")
    return None


def _definition(body: list[ast.stmt], name: str) -> ast.stmt | None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return next((node for node in reversed(body) if isinstance(node, kinds) and node.name == name), None)


def _binds_otherwise(body: list[ast.stmt], name: str) -> bool:
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=bound, ctx=ast.Store()) | ast.FunctionDef(name=bound) | ast.ClassDef(name=bound):
                    if bound == name:
                        return True
                case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                    if any(alias.name == "*" or (alias.asname or alias.name) == name for alias in aliases):
                        return True
    return False


def _does_nothing(statement: ast.stmt) -> bool:
    """`pass`, `...`, a docstring, or `raise NotImplementedError`."""
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
    return False
