"""Source code inside records: the statements of a `check(candidate)` function and what stands around it."""

from __future__ import annotations

import ast
import warnings
from typing import NamedTuple

from stepcoder.problems.code import syntax_fault, tidy
from stepcoder.problems.faults import FaultKind
from stepcoder.problems.readers.fields import Fields


class Checks(NamedTuple):
    """What `check` does, and the other statements of its module."""

    body: list[ast.stmt]
    around: list[ast.stmt]


def parsed(fields: Fields, field: str, code: str) -> list[ast.stmt]:
    """The statements of a piece of code; a fault and none when it does not compile."""
    code = tidy(code)
    fault = syntax_fault(code)
    if fault is not None:
        fields.fail(FaultKind.SYNTAX, field, fault)
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code).body


def body_of_check(fields: Fields, key: str) -> Checks:
    """Reads a module that defines `check(candidate)`."""
    code = fields.text(key)
    statements = parsed(fields, key, code)
    checks = [node for node in statements if isinstance(node, ast.FunctionDef) and node.name == "check"]
    around = [node for node in statements if node not in checks]
    if statements and not checks:
        fields.fail(FaultKind.SCHEMA, key, "must define `check(candidate)`")
    return Checks(checks[-1].body if checks else [], around)
