"""The process that compiles: it serves many programs, and runs none.

A process that stays is warm: compiling in each new child would cost three times as much. Source text that harms the
parser ends this process, not the judge.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import marshal
from types import CodeType
from typing import Any, NoReturn

from stepcoder.sandbox.inside import arms, faults, frames, probes

BYTE_ORDER_MARK = "\ufeff"
MEMORY_BYTES = 1 << 30
YOUNG_OBJECTS = 200_000


def serve(link: int, payload: bytes) -> NoReturn:
    """Compiles one source after another; the first request is in `payload`."""
    # A syntax tree is thousands of objects without a cycle.
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()
    while True:
        request = json.loads(payload)
        try:
            code, report = translate(request)
        except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
            frames.send(link, frames.REJECTED, json.dumps(faults.describe(error, "")).encode())
        else:
            frames.send(link, frames.COMPILED, json.dumps(report).encode())
            frames.send(link, frames.CODE, marshal.dumps(code))
        _, payload = frames.receive(link)


def translate(request: dict[str, Any]) -> tuple[CodeType, dict[str, Any]]:
    """Compiles `source` under `filename`; with `traced`, with probes for its statements, with `branches` for arms too.

    Returns:
        The code, and `spans` of its statements, `arms` of its expressions, `calls_itself` (see `_calls_itself`).

    Raises:
        SyntaxError, ValueError, MemoryError, RecursionError, OverflowError: it does not compile.
    """
    if request.get("branches"):
        with contextlib.suppress(RecursionError):  # these probes nest: what compiles without them has to compile
            return _translate(request, branches=True)
    return _translate(request, branches=False)


def _translate(request: dict[str, Any], branches: bool) -> tuple[CodeType, dict[str, Any]]:
    text = request["source"].removeprefix(BYTE_ORDER_MARK)
    source = text.encode()
    tree = ast.parse(text, request["filename"])
    calls_itself = _calls_itself(tree, request["entry_point"])
    spans = probes.instrument(tree, source) if request["traced"] else []
    found = arms.instrument(tree, len(spans)) if branches else []
    if text is not request["source"]:  # columns count from the mark on
        spans, found = _shifted(spans), _shifted(found)
    code = compile(tree, request["filename"], "exec", dont_inherit=True)
    return code, {"spans": spans, "arms": found, "calls_itself": calls_itself}


def _shifted(spans: list[probes.Span]) -> list[probes.Span]:
    shift = len(BYTE_ORDER_MARK.encode())
    return [(a, b + shift * (a == 1), c, d + shift * (c == 1)) for a, b, c, d in spans]


def _calls_itself(tree: ast.Module, entry_point: str) -> bool:
    """Whether the module level has the entry point called: bare, under `if __name__ == ...`, or by a thread."""
    statements = list(tree.body)
    for statement in tree.body:
        if isinstance(statement, ast.If) and "__name__" in _names(statement.test):
            statements += statement.body
    return any(
        isinstance(statement, ast.Expr | ast.Assign)
        and entry_point in _names(statement)
        and any(isinstance(node, ast.Call) for node in ast.walk(statement))
        for statement in statements
    )


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
