"""MBPP records: one sentence, a whole program as the solution, and a list of asserts."""

from __future__ import annotations

import ast
from typing import Any

from stepcoder.problems.asserts import translate
from stepcoder.problems.code import signature, tidy
from stepcoder.problems.faults import FaultKind
from stepcoder.problems.problem import Problem
from stepcoder.problems.readers.checks import parsed
from stepcoder.problems.readers.fields import Fields


def read(record: Any, identity: str, where: str) -> Problem:
    """One record as a problem.

    The entry point is the function of the solution that every assert calls, and its signature is the starter.
    Keys: `task_id`, `text`, `code`, `test_list`; optional `test_setup_code`, which goes along with tests that are not
    plain literals. `challenge_test_list` and other keys are ignored.

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
    statement = fields.text("text").replace("\r\n", "\n").strip()
    solution = tidy(fields.text("code"))
    library = parsed(fields, "code", solution)
    setup = parsed(fields, "test_setup_code", fields.text("test_setup_code", required=False))
    checks: list[ast.stmt] = []
    for index, item in enumerate(fields.items("test_list")):
        if isinstance(item, str):
            checks += parsed(fields, f"test_list[{index}]", item)
        else:
            fields.fail(FaultKind.SCHEMA, f"test_list[{index}]", "must be a string with an assert statement")
    entry_point = _entry_point(fields, library, checks) if library and checks else ""
    head = signature(solution, entry_point) if entry_point else None
    tests = translate(checks, entry_point, library, setup)
    if checks and not tests:
        fields.fail(FaultKind.EMPTY, "test_list", "checks nothing")
    fields.check()
    return Problem(
        id=identity,
        statement=statement,
        starter=head.header if head else "",
        solution=solution,
        entry_point=entry_point,
        tests=tests,
        source=where,
    )


def _entry_point(fields: Fields, library: list[ast.stmt], checks: list[ast.stmt]) -> str:
    defined = [node.name for node in library if isinstance(node, ast.FunctionDef)]
    called = [
        {
            node.func.id
            for node in ast.walk(check)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined
        }
        for check in checks
    ]
    common = set.intersection(*called)
    if len(common) != 1:
        shown = ", ".join(sorted(set(defined))) or "none"
        message = f"every test must call one and the same function of `code` (it defines: {shown})"
        fields.fail(FaultKind.SCHEMA, "test_list", message)
        return ""
    return common.pop()
