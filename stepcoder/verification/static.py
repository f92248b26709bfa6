"""What can be told about a record's code and tests without running anything."""

from __future__ import annotations

import ast
import codeop
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from stepcoder.problems import AnyOf, CallTest, Checker, CheckerProgram, Problem, StdinTest, values
from stepcoder.problems.code import syntax_fault
from stepcoder.problems.problem import Test
from stepcoder.sandbox import compare
from stepcoder.verification.config import VerifyConfig
from stepcoder.verification.reasons import Reason, Rejection


def check(problem: Problem, config: VerifyConfig) -> Rejection | None:
    """The first fault among length, syntax, completeness and, where it is one, a constant answer."""
    if config.max_chars is not None and problem.characters > config.max_chars:
        length = f"{problem.characters} characters"
        detail = f"statement, starter and solution have {length}; max_chars is {config.max_chars}"
        return Rejection(Reason.TOO_LONG, detail)
    for name, code in (("preamble", problem.preamble), ("solution", problem.solution)):
        fault = syntax_fault(code)
        if fault is not None:
            breaks_off = name == "solution" and _breaks_off(code)
            reason = Reason.INCOMPLETE_CODE if breaks_off else Reason.SYNTAX_ERROR
            return Rejection(reason, f"{name}: {'breaks off: ' if breaks_off else ''}{fault}")
    incomplete = _incomplete(problem)
    if incomplete is None and config.reject_constant_answers and has_constant_answer(problem):
        count = len(problem.tests)
        what = "there is one test" if count == 1 else f"all {count} tests expect the same answer"
        return Rejection(Reason.CONSTANT_ANSWER, f"{what}: a program that always gives it passes")
    return incomplete


def has_constant_answer(problem: Problem) -> bool:
    """Whether every test expects the same answer, by the exact rules: a program that always gives it passes.

    Check tests and checker programs hold their answers in code: with one of them it is not known, and False.
    """
    if isinstance(problem.checker, CheckerProgram):
        return False
    first, *others = (_right_answers(test, problem.checker) for test in problem.tests)
    claims = map(values.encode, first)
    return any(all(any(compare.matches(right, claim) for right in other) for other in others) for claim in claims)


def _right_answers(test: Test, checker: Checker) -> Sequence[Any]:
    """The values, or the lines of each output; none of a check test, so that no answer is right for it."""
    match test:
        case CallTest(expected=expected):
            return tuple(expected) if isinstance(checker, AnyOf) else (expected,)
        case StdinTest():
            return [compare.lines_of(output) for output in (test.stdout, *test.alternatives)]
    return ()


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
