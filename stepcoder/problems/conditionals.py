"""The conditional statements of a program, which give the curriculum its start points."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection
from typing import Literal, NamedTuple

Kind = Literal["if", "for", "while"]

KINDS: frozenset[Kind] = frozenset(("if", "for", "while"))
"""What counts as conditional (paper figure 1)."""


class Conditional(NamedTuple):
    """One statement: its kind and its lines, from 1, both inclusive."""

    kind: Kind
    first_line: int
    last_line: int


def conditionals(source: str, kinds: Collection[Kind] = KINDS) -> list[Conditional]:
    """The `if`, `for` and `while` statements of a program, sorted by where they start.

    An `elif` is an `if` of its own; `async for` counts as `for`; comprehensions and conditional expressions do not
    count.

    Args:
        source: A program that parses.
        kinds: Which of them are wanted.

    Raises:
        SyntaxError: the program does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    found: list[tuple[int, int, Conditional]] = []
    for node in ast.walk(tree):
        kind = _kind(node)
        if kind is not None and kind in kinds and isinstance(node, ast.stmt):
            last = node.end_lineno or node.lineno
            found.append((node.lineno, node.col_offset, Conditional(kind, node.lineno, last)))
    return [item for _, _, item in sorted(found)]


def _kind(node: ast.AST) -> Kind | None:
    match node:
        case ast.If():
            return "if"
        case ast.For() | ast.AsyncFor():
            return "for"
        case ast.While():
            return "while"
    return None
