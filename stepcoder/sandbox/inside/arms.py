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

from stepcoder.sandbox.inside.probes import HIT, Span

_LOAD = ast.Load()
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
    # An explicit stack: programs nest deeper than Python calls may.
    stack: list[ast.AST] = [tree]
    while stack:
        node: Any = stack.pop()
        kind = type(node)
        if kind is ast.JoinedStr:
            continue
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                stack.extend(item for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST) and name not in _PASSED_OVER:
                stack.append(value)
        if kind is ast.IfExp:
            node.body = _probed(node.body, first, spans)
            node.orelse = _probed(node.orelse, first, spans)
        elif kind is ast.BoolOp:
            node.values[1:] = [_probed(arm, first, spans) for arm in node.values[1:]]
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
    flag = ast.Name(str(index), _LOAD, **place)
    call = ast.Call(ast.Name(HIT, _LOAD, **place), [ast.Constant(index, **place)], [], **place)
    probe = ast.BoolOp(ast.And(), [flag, call], **place)
    return ast.copy_location(ast.BoolOp(ast.Or(), [probe, arm]), arm)
