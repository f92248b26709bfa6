"""Readers of public problem formats, one file each: raw record in, `Problem` or every fault out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from stepcoder.errors import DataError
from stepcoder.problems.faults import Fault, FaultKind, RecordError
from stepcoder.problems.files import Row, raise_all, read_rows
from stepcoder.problems.problem import Problem
from stepcoder.problems.readers import apps_plus, humaneval, leetcode, mbpp

Format = Literal["apps_plus", "leetcode", "humaneval", "mbpp"]


class _Reader(NamedTuple):
    key: str
    """The key that holds a record's own id."""
    read: Callable[[Any, str, str], Problem]


_READERS: dict[Format, _Reader] = {
    "apps_plus": _Reader("id", apps_plus.read),
    "leetcode": _Reader("task_id", leetcode.read),
    "humaneval": _Reader("task_id", humaneval.read),
    "mbpp": _Reader("task_id", mbpp.read),
}


@dataclass(frozen=True)
class Entry:
    """One record of a file: a problem, or what keeps it from being one."""

    id: str
    """The record's own id, or a hash of its content."""
    source: str
    """`format:id`, wherever the record stands in the file; the place of a line that is not JSON."""
    where: str
    """Its place in the file, for messages."""
    record: Any
    """The raw record; the beginning of its line when that is not JSON."""
    problem: Problem | None = None
    faults: tuple[Fault, ...] = ()


def read_entries(path: Path, format: Format) -> Iterator[Entry]:
    """Reads every record of a file, faulty ones included, in the file's order.

    Raises:
        DataError: the format is unknown, or the file cannot be read at all.
    """
    if format not in _READERS:
        raise DataError(f"unknown format {format!r}: choose one of {', '.join(get_args(Format))}")
    reader = _READERS[format]
    for row in read_rows(path):
        yield _entry(row, format, reader)


def read_problems(path: Path, format: Format) -> list[Problem]:
    """Reads a file that must be faultless.

    Raises:
        DataError: the file cannot be read, or it lists every faulty record and every id that comes twice.
    """
    problems: list[Problem] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for entry in read_entries(path, format):
        faults += [f"{entry.where}: {fault}" for fault in entry.faults]
        if entry.problem is not None:
            if entry.id in seen:
                faults.append(f"{entry.where}: id {entry.id!r} is also that of {seen[entry.id]}")
            seen[entry.id] = entry.where
            problems.append(entry.problem)
    raise_all(faults)
    return problems


def content_hash(value: Any) -> str:
    """A SHA-256 of a JSON value that does not depend on the order of keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _entry(row: Row, format: Format, reader: _Reader) -> Entry:
    if row.fault is not None:
        fault = Fault(FaultKind.BROKEN_JSON, "", row.fault)
        return Entry(content_hash(row.text)[:16], Path(row.where).name, row.where, row.text, faults=(fault,))
    own = row.value.get(reader.key) if isinstance(row.value, dict) else None
    named = isinstance(own, str | int) and not isinstance(own, bool) and bool(str(own).strip())
    identity = str(own) if named else content_hash(row.value)[:16]
    source = f"{format}:{identity}"
    try:
        problem = reader.read(row.value, identity, source)
    except RecordError as error:
        return Entry(identity, source, row.where, row.value, faults=error.faults)
    return Entry(identity, source, row.where, row.value, problem)
