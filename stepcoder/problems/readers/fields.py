"""The fields of a raw record, checked: each getter notes what is wrong and goes on, so that all faults are told."""

from __future__ import annotations

import json
from typing import Any, Self, get_args

from pydantic import ValidationError

from stepcoder.problems.checker import EXACT, Checker, parse_checker
from stepcoder.problems.faults import Fault, FaultKind, RecordError
from stepcoder.problems.problem import Difficulty


class Fields:
    """A view of one record that collects faults. After a fault a getter gives an empty value of the right type."""

    def __init__(self, record: Any, where: str, prefix: str = "", faults: list[Fault] | None = None) -> None:
        """Raises `RecordError` when the record is not an object or holds text that is not Unicode."""
        self.where = where
        self._prefix = prefix
        self._faults: list[Fault] = [] if faults is None else faults
        if not isinstance(record, dict):
            message = f"must be a JSON object, not {_kind(record)}"
            raise RecordError(where, [Fault(FaultKind.SCHEMA, prefix.rstrip("."), message)])
        self._record = record
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            message = "holds half of a surrogate pair, or is nested too deeply; write it as plain UTF-8 text"
            raise RecordError(where, [Fault(FaultKind.SCHEMA, prefix.rstrip("."), message)]) from None

    def fail(self, kind: FaultKind, field: str, message: str) -> None:
        """Notes a fault."""
        self._faults.append(Fault(kind, f"{self._prefix}{field}", message))

    def check(self) -> None:
        """Raises `RecordError` when there was any fault."""
        if self._faults:
            raise RecordError(self.where, self._faults)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._record.get(key) is not None

    def text(self, key: str, *, required: bool = True) -> str:
        """A string; a required one must hold more than blanks."""
        value = self._get(key, str, "a string", required)
        if isinstance(value, str) and required and not value.strip():
            self.fail(FaultKind.EMPTY, key, "is empty")
        return value if isinstance(value, str) else ""

    def items(self, key: str, *, required: bool = True) -> list[Any]:
        """A list; a required one must not be empty."""
        value = self._get(key, list, "a list", required)
        if value == [] and required:
            self.fail(FaultKind.EMPTY, key, "is empty")
        return value if isinstance(value, list) else []

    def name(self, key: str) -> str | None:
        """A string or an integer that names something, as a string; `None` when the key is absent."""
        if not self.has(key):
            return None
        value = self._record[key]
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            self.fail(FaultKind.SCHEMA, key, f"must be a non-empty string or an integer, not {_kind(value)}")
            return None
        return str(value)

    def section(self, key: str) -> Self:
        """An object inside the record; its faults are collected with the record's."""
        value = self._get(key, dict, "an object", required=True)
        there = isinstance(value, dict)
        # Of a section that is not there one fault is enough.
        return type(self)(value if there else {}, self.where, f"{self._prefix}{key}.", self._faults if there else [])

    def difficulty(self, key: str, words: dict[str, Difficulty] | None = None) -> Difficulty | None:
        """One of the three difficulties, by the words that the format has for them."""
        known: dict[str, Difficulty] = words or {word: word for word in get_args(Difficulty)}
        value = self.text(key)
        if value.strip() and value not in known:
            self.fail(FaultKind.SCHEMA, key, f"must be one of {', '.join(known)}, not {value!r}")
        return known.get(value)

    def checker(self, key: str) -> Checker:
        """A checker, in its short form or with settings; exact when the key is absent."""
        if not self.has(key):
            return EXACT
        try:
            return parse_checker(self._record[key])
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False, include_context=False):
                setting = ".".join(str(part) for part in fault["loc"][1:])
                self.fail(FaultKind.SCHEMA, f"{key}.{setting}" if setting else key, fault["msg"])
            return EXACT

    def no_checker(self, key: str) -> None:
        """Notes a fault when a record of a format without checkers names one: it must not be passed over."""
        if self.has(key):
            message = "this format has no checkers: its tests are asserts; write the record in apps_plus form"
            self.fail(FaultKind.SCHEMA, key, message)

    def _get(self, key: str, kind: type, called: str, required: bool) -> Any:
        value = self._record.get(key)
        if key not in self._record:
            if required:
                self.fail(FaultKind.SCHEMA, key, "is missing")
        elif not isinstance(value, kind) and (required or value is not None):
            self.fail(FaultKind.SCHEMA, key, f"must be {called}, not {_kind(value)}")
        return value


def _kind(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
