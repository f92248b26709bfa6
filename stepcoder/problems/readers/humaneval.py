"""HumanEval records: a prompt that ends in a docstring, a body as the solution, tests in `check(candidate)`."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from stepcoder.problems.asserts import translate
from stepcoder.problems.code import tidy
from stepcoder.problems.faults import FaultKind
from stepcoder.problems.problem import Problem
from stepcoder.problems.readers.checks import body_of_check, parsed
from stepcoder.problems.readers.fields import Fields


def read(record: Any, identity: str, where: str) -> Problem:
    """One record as a problem.

    The starter keeps the imports and helpers of the prompt, which a solution may use; the docstring is the statement.
    Keys: `task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`. Other keys are ignored.

    Args:
        record: The decoded JSON value.
        identity: The problem's id.
        where: The record's place, for messages and for `source`.

    Raises:
        RecordError: lists every fault.
    """
    fields = Fields(record, where)
    fields.name("task_id")
    fields.no_checker("checker")
    prompt = fields.text("prompt")
    entry_point = fields.text("entry_point").strip()
    body = fields.text("canonical_solution")
    checks = body_of_check(fields, "test")
    library = parsed(fields, "prompt", prompt)
    statement, starter = _prompt(fields, prompt, library, entry_point)
    tests = translate(checks.body, entry_point, [*library, *checks.around])
    if checks.body and not tests:
        fields.fail(FaultKind.EMPTY, "test", "checks nothing")
    fields.check()
    return Problem(
        id=identity,
        statement=statement,
        starter=starter,
        solution=tidy(starter + body),
        entry_point=entry_point,
        tests=tests,
        source=where,
    )


def _prompt(fields: Fields, prompt: str, library: list[ast.stmt], entry_point: str) -> tuple[str, str]:
    """The docstring of the entry point, and the prompt without it.

    One real record imports a module between signature and docstring, so this is not `ast.get_docstring`.
    """
    functions = [node for node in library if isinstance(node, ast.FunctionDef) and node.name == entry_point]
    if not functions:
        if library and entry_point:
            fields.fail(FaultKind.SCHEMA, "prompt", f"defines no function {entry_point!r}, the entry point")
        return "", ""
    for node in functions[-1].body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            statement = inspect.cleandoc(node.value.value).strip()
            if statement:
                lines = tidy(prompt).split("\n")
                above, below = lines[: node.lineno - 1], lines[node.end_lineno :]
                on_header = lines[node.lineno - 1].encode()[: node.col_offset].decode()
                return statement, tidy("\n".join([*above, on_header, *below]))
    fields.fail(FaultKind.EMPTY, "prompt", "the entry point has no docstring, which is the statement")
    return "", ""
