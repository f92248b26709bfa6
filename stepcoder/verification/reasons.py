"""Why a record is rejected: a closed list, the first that applies in this order."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from stepcoder.problems.faults import Fault


class Reason(StrEnum):
    """The one reason for which a record is rejected."""

    DROPPED = "dropped"
    """A reviewer's correction says so."""
    BROKEN_JSON = "broken_json"
    """The line is not JSON."""
    SCHEMA = "schema"
    """A key is missing, has a wrong type, or does not fit the others."""
    EMPTY_FIELD = "empty_field"
    """A statement, solution, starter or test list is there but says nothing."""
    SYNTAX_ERROR = "syntax_error"
    """The reference solution, or code of the tests, does not compile."""
    SCOPE_MISMATCH = "scope_mismatch"
    """`scope` is not what the reference solution has."""
    DUPLICATE_ID = "duplicate_id"
    """Several different records have the same id: none of them can be told apart."""
    TOO_LONG = "too_long"
    """Longer than the setting `max_chars` allows."""
    INCOMPLETE_CODE = "incomplete_code"
    """The reference solution breaks off, only passes, or does not define the entry point."""
    CONSTANT_ANSWER = "constant_answer"
    """Every test expects the same answer, and the setting `reject_constant_answers` is on."""
    MISSING_LIBRARY = "missing_library"
    """The reference solution imports what the sandbox has not."""
    CHECKER = "checker"
    """The checker passes a program that gives the same empty answer to every test."""
    WRONG_ANSWER = "wrong_answer"
    """The reference solution gives another answer than a test expects."""
    RUNTIME_ERROR = "runtime_error"
    """The reference solution raises or exits on a test."""
    TIMEOUT = "timeout"
    """The reference solution is over a time limit on a test."""
    MEMORY = "memory"
    """The reference solution is over the memory limit on a test."""
    OUTPUT_LIMIT = "output_limit"
    """The reference solution prints or returns too much on a test."""
    SECURITY = "security"
    """The reference solution does what the sandbox forbids."""
    FLAKY = "flaky"
    """The reference solution does not give the same results in every run."""
    LEAKAGE = "leakage"
    """Too many lines of the reference solution stand in an evaluation set."""
    DUPLICATE = "duplicate"
    """An accepted record has the same statement."""


class Rejection(NamedTuple):
    """Why one record is rejected, with a detail that a person can act on."""

    reason: Reason
    detail: str


def of_faults(faults: tuple[Fault, ...]) -> Rejection:
    """The rejection for a reader's faults: the gravest gives the reason, and all are told."""
    return Rejection(Reason(faults[0].kind.value), "; ".join(str(fault) for fault in faults))
