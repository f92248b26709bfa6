"""Which statements of a program ran: probes in its syntax tree that write to shared memory.

Before each statement `k` stands `if <flag k>: <hit>(k)`. The flags and `hit` live in `builtins` under names that no
program can spell, so `globals()` and `dir()` of the program stay as they are, and class bodies declare them global: a
metaclass may give a class a namespace that answers for any name. A flag is true until its statement is first reached;
`hit` then marks one byte of a shared mapping, which survives a timeout, a kill and `os._exit`, and lowers the flag. So
a statement in a hot loop pays one global lookup, not a call.
"""

from __future__ import annotations

import ast
import builtins
import mmap
import re
from collections.abc import Iterator
from typing import Any

HIT = "hit!"

Span = tuple[int, int, int, int]
_Body = tuple[list[ast.stmt], int, int, ast.Global | None]

_UP_TO_COLON = re.compile(rb"(?:[^:#]|#[^\r\n]*+)*+:")  # possessive: nothing to try again


def instrument(tree: ast.Module, source: bytes) -> list[Span]:
    """Inserts a probe before each statement of `tree`, in place.

    Args:
        tree: what `ast.parse(source)` gave.
        source: the program in UTF-8.

    Returns:
        The span of statement `k` at place `k`: line from 1, column in bytes from 0, end exclusive. A compound
        statement's span is its header, a docstring included.
    """
    starts = _line_starts(source)
    spans: list[Span] = []
    # An explicit stack: a chain of a thousand `elif` is nested a thousand deep. With each body goes the number of
    # leading statements that are part of the header, of those before which nothing may stand, and the declaration of
    # the class whose scope it is in.
    stack: list[_Body] = [(tree.body, 0, _fixed(tree.body), None)]
    while stack:
        body, headed, fixed, declared = stack.pop()
        probed, late = body[:headed], list[ast.stmt]()
        for position, statement in enumerate(body[headed:], headed):
            probe = _probe(len(spans), statement)
            if declared is not None:
                declared.names.append(flag(len(spans)))
            spans.append(_span(statement, source, starts))
            if position < fixed:  # its probe follows as soon as it may
                probed.append(statement)
                late.append(probe)
            else:
                probed += (*late, probe, statement)
                late = []
            if type(statement) not in _SIMPLE:
                stack += _bodies(statement, declared)
        body[:] = probed + late
    return spans


def install(memory: mmap.mmap, count: int) -> None:
    """Makes the flags of `count` statements and the function that lowers them."""
    flags = builtins.__dict__
    names = [flag(index) for index in range(count)]

    def hit(index: int) -> None:
        memory[index] = 1
        flags[names[index]] = False

    flags[HIT] = hit
    flags.update(dict.fromkeys(names, True))


def flag(index: int) -> str:
    """The name of a probe's flag."""
    return f"{index}!"


def declaration(owner: ast.ClassDef) -> ast.Global:
    """The statement at the beginning of a class body that declares its flags global; made where it is missing."""
    place = int(_is_docstring(owner.body[0]))
    first = owner.body[place] if place < len(owner.body) else None
    if isinstance(first, ast.Global) and first.names[0] == HIT:
        return first
    declared = ast.copy_location(ast.Global([HIT]), owner)
    owner.body.insert(place, declared)
    return declared


def _fixed(body: list[ast.stmt]) -> int:
    """The number of leading statements of a module before which nothing may stand."""
    first = 1 if body and _is_docstring(body[0]) else 0
    while first < len(body):
        statement = body[first]
        if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        first += 1
    return first


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _probe(index: int, statement: ast.stmt) -> ast.stmt:
    # The place is the statement's own, so tracebacks and `sys.settrace` see no foreign line.
    place: dict[str, Any] = {
        "lineno": statement.lineno,
        "col_offset": statement.col_offset,
        "end_lineno": statement.lineno,
        "end_col_offset": statement.col_offset,
    }
    call = ast.Call(ast.Name(HIT, _LOAD, **place), [ast.Constant(index, **place)], [], **place)
    return ast.If(ast.Name(flag(index), _LOAD, **place), [ast.Expr(call, **place)], [], **place)


_LOAD = ast.Load()


def _bodies(statement: ast.stmt, declared: ast.Global | None) -> Iterator[_Body]:
    """The statement lists inside a compound statement."""
    if isinstance(statement, _DOCUMENTED):
        declared = declaration(statement) if isinstance(statement, ast.ClassDef) else None
    owners: list[Any] = [statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
    for owner in owners:
        for name in ("body", "orelse", "finalbody"):
            body = getattr(owner, name, None)
            if body:
                headed = int(name == "body" and type(owner) in _DOCUMENTED and _is_docstring(body[0]))
                headed += isinstance(owner, ast.ClassDef)
                yield body, headed, headed, declared


_SIMPLE = frozenset(
    {
        ast.Expr,
        ast.Assign,
        ast.AugAssign,
        ast.AnnAssign,
        ast.Return,
        ast.Pass,
        ast.Break,
        ast.Continue,
        ast.Import,
        ast.ImportFrom,
        ast.Global,
        ast.Nonlocal,
        ast.Assert,
        ast.Raise,
        ast.Delete,
    }
)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _line_starts(source: bytes) -> list[int]:
    return [0, *(match.end() for match in re.finditer(rb"\r\n|\n|\r", source))]


def _span(statement: ast.stmt, source: bytes, starts: list[int]) -> Span:
    line, column = statement.lineno, statement.col_offset
    if type(statement) in _SIMPLE:
        return line, column, statement.end_lineno or line, statement.end_col_offset or column
    if isinstance(statement, _DOCUMENTED) and _is_docstring(statement.body[0]):
        docstring = statement.body[0]
        return line, column, docstring.end_lineno or line, docstring.end_col_offset or column
    # The header ends with the first colon after its last expression: between the two stand only brackets, commas,
    # blanks and comments.
    last = _last_in_header(statement)
    offset = starts[last[0] - 1] + last[1]
    match = _UP_TO_COLON.match(source, offset)
    end = match.end() if match else offset
    end_line = last[0] + len(re.findall(rb"\r\n|\n|\r", source[offset:end]))
    return line, column, end_line, end - starts[end_line - 1]


def _last_in_header(statement: ast.stmt) -> tuple[int, int]:
    """The end of the last expression in a compound statement's header, or its start where there is none."""
    last = (statement.lineno, statement.col_offset)
    stack: list[ast.AST] = []
    for name, value in ast.iter_fields(statement):
        if name in ("body", "orelse", "finalbody", "handlers", "cases", "decorator_list"):
            continue
        if isinstance(value, ast.AST):
            stack.append(value)
        elif isinstance(value, list):
            stack.extend(item for item in value if isinstance(item, ast.AST))
    while stack:
        node = stack.pop()
        place: Any = node
        if hasattr(node, "end_lineno"):
            last = max(last, (place.end_lineno, place.end_col_offset))
        else:  # arguments, withitem: without a place of their own
            stack.extend(ast.iter_child_nodes(node))
    return last
