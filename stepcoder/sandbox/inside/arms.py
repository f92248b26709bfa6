"""Which arms of conditional expressions and short-circuits of a program ran: probes inside its expressions.

An arm `a` with probe `k` becomes `<flag k> and <hit>(k) or a`. `hit` returns None and lowers the flag, so what comes
before the `or` is false in either case: the value is that of `a`, evaluated once and where it stood. Flags and `hit`
are those of `probes`, and the numbers go on after those of the statements.

Without probes stay annotations, which may be turned into text instead of being evaluated, and f-strings, inside which
Python 3.11 does not know the places of expressions.
"""

from __future__ import annotations

import ast
from typing import Any

from stepcoder.sandbox.inside.probes import HIT, Span, declaration, flag

_LOAD = ast.Load()
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_PASSED_OVER = frozenset({"annotation", "returns", "ctx", "op", "ops"})


def instrument(tree: ast.Module, first: int) -> list[Span]:
    """Puts a probe into each arm of `tree`, in place.

    Args:
        tree: a module as `ast.parse` gives it, or with the probes of its statements.
        first: the number of the first probe.

    Returns:
        The span of the arm with probe `first + k` at place `k`, as `ast` counts: without brackets around it.
    """
    spans: list[Span] = []
    # An explicit stack: programs nest deeper than Python calls may. With each node goes the declaration of the class
    # in whose body it is, if there is no function between.
    stack: list[tuple[ast.AST, ast.Global | None]] = [(tree, None)]
    while stack:
        node: Any
        node, declared = stack.pop()
        kind = type(node)
        if kind is ast.JoinedStr:
            continue
        inner = declaration(node) if kind is ast.ClassDef else None
        for name, value in ast.iter_fields(node):
            scope = inner if name == "body" and kind in _SCOPES else declared
            if isinstance(value, list):
                stack.extend((item, scope) for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST) and name not in _PASSED_OVER:
                stack.append((value, scope))
        before = len(spans)
        if kind is ast.IfExp:
            node.body = _probed(node.body, first, spans)
            node.orelse = _probed(node.orelse, first, spans)
        elif kind is ast.BoolOp:
            node.values[1:] = [_probed(arm, first, spans) for arm in node.values[1:]]
        if declared is not None:
            declared.names += [flag(first + index) for index in range(before, len(spans))]
    return spans


def _probed(arm: ast.expr, first: int, spans: list[Span]) -> ast.expr:
    index = first + len(spans)
    spans.append((arm.lineno, arm.col_offset, arm.end_lineno or arm.lineno, arm.end_col_offset or arm.col_offset))
    place: dict[str, Any] = {
        "lineno": arm.lineno,
        "col_offset": arm.col_offset,
        "end_lineno": arm.lineno,
        "end_col_offset": arm.col_offset,
    }
    call = ast.Call(ast.Name(HIT, _LOAD, **place), [ast.Constant(index, **place)], [], **place)
    probe = ast.BoolOp(ast.And(), [ast.Name(flag(index), _LOAD, **place), call], **place)
    return ast.copy_location(ast.BoolOp(ast.Or(), [probe, arm]), arm)
