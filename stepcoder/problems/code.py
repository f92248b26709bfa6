"""Python source of a record in one form, and where its signature ends."""

from __future__ import annotations

import ast
import io
import token
import tokenize
import warnings
from collections.abc import Iterator
from typing import NamedTuple


class Signature(NamedTuple):
    """The code up to the colon that ends a function's header."""

    text: str
    """Everything from the start of the code, imports and an enclosing class included; it ends in a newline."""
    header: str
    """The function's own lines alone."""
    entry_point: str
    """`name`, or `Class.method`."""


def tidy(code: str) -> str:
    """Unix line ends, no blank lines around, one newline at the end; tabs and the lines between stay."""
    lines = code.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    while lines and not lines[0].strip():
        del lines[0]
    return "\n".join(lines) + "\n"


def signature(code: str, name: str | None = None) -> Signature | None:
    """Finds the signature of a function: the first that is defined, or the last one at top level called `name`.

    The body may be missing or broken: what follows the header's colon is not read.

    Args:
        code: Python source with Unix line ends.
        name: A function at top level; without it the first function, which may be a method.

    Returns:
        `None` when there is no such function.
    """
    lines = code.split("\n")
    found = None
    owner: tuple[str, int] | None = None
    stream = _tokens(code)
    for item in stream:
        if item.type != token.NAME or item.string not in ("class", "def"):
            continue
        column = len(item.line) - len(item.line.lstrip())
        called = next(stream, None)
        if called is None or called.type != token.NAME:
            continue
        if item.string == "class":
            owner = (called.string, column)
            continue
        end = _header_end(stream)
        if end is None or (name is not None and (called.string != name or column > 0)):
            continue
        row, stop = end
        head = [*lines[: row - 1], lines[row - 1][:stop]]
        entry = f"{owner[0]}.{called.string}" if owner and column > owner[1] else called.string
        found = Signature("\n".join(head) + "\n", "\n".join(head[item.start[0] - 1 :]) + "\n", entry)
        if name is None:
            break
    return found


def syntax_fault(code: str) -> str | None:
    """What keeps the code from compiling, with its line; `None` when it compiles."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<solution>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"cannot be compiled: {str(error) or type(error).__name__}"
    return None


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError):
        return


def _header_end(stream: Iterator[tokenize.TokenInfo]) -> tuple[int, int] | None:
    """Row from 1 and end column of the colon that opens the body."""
    depth = 0
    for item in stream:
        if item.type == token.OP:
            depth += (item.string in "([{") - (item.string in ")]}")
            if item.string == ":" and depth == 0:
                return item.end
        elif item.type == token.NEWLINE:
            return None
    return None


def signature_end(solution: str, entry_point: str) -> int:
    """Last line, from 1, of the signature of a solution's entry point.

    0 when there is none to cut at: the entry point is assigned and not defined, or its body stands on its first line.
    """
    body: list[ast.stmt] = ast.parse(solution).body
    *classes, name = entry_point.split(".")
    for owner in classes:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner), [])
    functions = [
        node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    if not functions:
        return 0
    function = functions[-1]
    first = function.body[0]
    decorators = first.decorator_list if isinstance(first, ast.FunctionDef | ast.ClassDef) else []
    line = min([first.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    lines = solution.split("\n")
    while line > function.lineno and lines[line - 1].strip()[:1] in ("", "#"):
        line -= 1
    return line if line >= function.lineno else 0
