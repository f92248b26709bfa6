"""What can be wrong with a record, said so that a person can mend it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from stepcoder.errors import DataError


class FaultKind(StrEnum):
    """The kinds of fault that a reader finds, the gravest first."""

    BROKEN_JSON = "broken_json"
    SCHEMA = "schema"
    EMPTY = "empty_field"
    SYNTAX = "syntax_error"
    SCOPE = "scope_mismatch"


class Fault(NamedTuple):
    """One fault of one record."""

    kind: FaultKind
    field: str
    """The key, with an index where a list is meant; empty when the whole record is."""
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class RecordError(DataError):
    """A record that cannot become a problem. It holds every fault, not the first alone."""

    def __init__(self, where: str, faults: Iterable[Fault]) -> None:
        self.where = where
        self.faults = tuple(sorted(faults, key=lambda fault: list(FaultKind).index(fault.kind)))
        super().__init__(f"{where}: " + "; ".join(str(fault) for fault in self.faults))
