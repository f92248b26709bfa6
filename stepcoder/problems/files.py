"""Reading JSON Lines, a JSON list, and gzip of either, row by row; and problems in the project's own form."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stepcoder.errors import DataError
from stepcoder.problems.problem import Problem

SHOWN_FAULTS = 20
"""Faults that one message lists before it gives the number of the others."""


@dataclass(frozen=True)
class Row:
    """One value of a file, or what keeps it from being read."""

    where: str
    """`path:line`, or `path, record n` in a JSON list."""
    value: Any = None
    fault: str | None = None
    text: str = ""
    """The line itself when it cannot be read, shortened."""


def read_rows(path: Path) -> Iterator[Row]:
    """Reads the values of a JSON Lines or JSON list file, gzipped or not; blank lines are passed over.

    A broken line gives a row with a fault, and the others are read. Numbers are counted from 1.

    Raises:
        DataError: the file is missing, empty, not UTF-8, not JSON at all, or a JSON list that breaks off.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        yield from _list_rows(path, text)
        return
    rows = [_row(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise DataError(f"{path}: the file is empty; it needs one JSON object a line, or a JSON list of objects")
    if all(row.fault for row in rows):
        raise DataError(
            f"{path}: no line is JSON (the first: {rows[0].fault}); "
            "give JSON Lines (one object a line) or a JSON list, plain or gzipped"
        )
    yield from rows


def load_problems(path: Path) -> list[Problem]:
    """Reads problems in the project's own form, one a line, as `dump_problems` writes them.

    Raises:
        DataError: lists every line that is not such a problem, and ids that come twice.
    """
    problems: list[Problem] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    text = _text(path)
    if not text.strip():
        return []
    for row in read_rows(path):
        if row.fault is not None:
            faults.append(f"{row.where}: {row.fault}")
            continue
        try:
            problem = Problem.model_validate(row.value)
        except (ValidationError, RecursionError) as error:
            faults.append(f"{row.where}: {_explain(error)}")
            continue
        if problem.id in seen:
            faults.append(f"{row.where}: id {problem.id!r} is also that of {seen[problem.id]}")
        seen[problem.id] = row.where
        problems.append(problem)
    raise_all(faults)
    return problems


def dump_problems(problems: Iterable[Problem], path: Path) -> None:
    """Writes problems, one a line, in the order given."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(problem.model_dump_json() + "\n" for problem in problems)


def raise_all(faults: list[str]) -> None:
    """Raises one error that lists the faults, unless there are none.

    Raises:
        DataError: there is a fault.
    """
    if faults:
        more = len(faults) - SHOWN_FAULTS
        raise DataError("\n".join(faults[:SHOWN_FAULTS]) + (f"\n… and {more} more" if more > 0 else ""))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); give JSON Lines or a JSON list") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip file is damaged or cut off: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _list_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the JSON list cannot be read: {_json_fault(error)}") from error
    if not values:
        raise DataError(f"{path}: the JSON list is empty")
    for number, value in enumerate(values, 1):
        yield Row(f"{path}, record {number}", value)


def _row(where: str, line: str) -> Row:
    try:
        return Row(where, json.loads(line))
    except (ValueError, RecursionError) as error:
        return Row(where, fault=_json_fault(error), text=line.strip()[:200])


def _json_fault(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        return f"broken JSON at {place}: {error.msg}"
    return "broken JSON: nested too deeply" if isinstance(error, RecursionError) else f"broken JSON: {error}"


def _explain(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg']}" for item in found)
