"""Jobs and verdicts as JSON data: between a client and its supervisors, and over HTTP.

Tests travel apart from jobs, under the hash of their content: samples of one problem share them, and answers are not
sent twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from stepcoder.problems.checker import parse_checker
from stepcoder.problems.problem import Test
from stepcoder.sandbox.job import Branch, Job, Limits, Outcome, Span, Statement, TestResult, Verdict
from stepcoder.sandbox.recent import Recent

TEST_LISTS, TEST_BYTES = 1024, 256 << 20
"""Test lists that are kept where they are sent from, and where they arrive."""
_TESTS = TypeAdapter(tuple[Test, ...])


def dump_tests(tests: tuple[Test, ...]) -> str:
    """A list of tests as JSON text."""
    return json.dumps([test.model_dump() for test in tests], separators=(",", ":"))


@dataclass(frozen=True)
class SentTests:
    """A list of tests as it travels."""

    tests: tuple[Test, ...]
    text: str
    """JSON, in ASCII."""
    digest: str
    """The hash of the text, under which the list travels."""


class TestLists:
    """Lists as they travel, made once: samples of one problem share one tuple, which is kept alive here."""

    def __init__(self) -> None:
        self._lists: Recent[int, SentTests] = Recent(TEST_LISTS, TEST_BYTES)

    def of(self, tests: tuple[Test, ...]) -> SentTests:
        """A list as it travels."""
        found = self._lists.get(id(tests))
        if found is None:
            text = dump_tests(tests)
            found = SentTests(tests, text, digest_of(text))
            self._lists.put(id(tests), found, len(text))
        return found


def load_tests(data: Any) -> tuple[Test, ...]:
    """Tests back from JSON data.

    Raises:
        pydantic.ValidationError: the data is no list of tests.
    """
    return _TESTS.validate_python(data)


def digest_of(tests_text: str) -> str:
    """The hash under which a list of tests travels, of what `dump_tests` gave."""
    return hashlib.sha256(tests_text.encode()).hexdigest()


def job_to_data(job: Job, tests_digest: str) -> dict[str, Any]:
    """A job without its tests."""
    return {
        "id": job.id,
        "program": job.program,
        "tests": tests_digest,
        "entry_point": job.entry_point,
        "preamble": job.preamble,
        "limits": vars(job.limits),  # `asdict` would copy, at ten times the price
        "trace": job.trace,
        "run": job.run,
        "checker": job.checker.model_dump(),
        "branches": job.branches,
    }


def job_from_data(data: dict[str, Any], tests: tuple[Test, ...]) -> Job:
    """A job back, with its tests.

    Raises:
        pydantic.ValidationError: its checker is none that this version knows.
    """
    checker = parse_checker(data.get("checker", "exact"))
    return Job(**data | {"tests": tests, "limits": Limits(**data["limits"]), "checker": checker})


def verdict_to_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON data."""
    return {
        "id": verdict.id,
        "outcome": verdict.outcome,
        "tests": [vars(test) for test in verdict.tests],
        "statements": [[*statement.span, statement.executed] for statement in verdict.statements],
        "lacking": verdict.lacking,
        "branches": [[*branch.span, branch.executed] for branch in verdict.branches],
    }


def verdict_from_data(data: dict[str, Any]) -> Verdict:
    """A verdict back."""
    return Verdict(
        data["id"],
        Outcome(data["outcome"]),
        tuple(TestResult(**test | {"outcome": Outcome(test["outcome"])}) for test in data["tests"]),
        tuple(Statement(Span(*span), executed) for *span, executed in data["statements"]),
        tuple(data["lacking"]),
        tuple(Branch(Span(*span), executed) for *span, executed in data.get("branches", ())),
    )


def dump_verdicts(verdicts: Sequence[Verdict], lacking: Sequence[str]) -> bytes:
    """Verdicts as JSON text, with what isolation lacked for all of them."""
    return json.dumps([verdict_to_data(verdict) | {"lacking": lacking} for verdict in verdicts]).encode()


def load_verdicts(text: bytes) -> list[Verdict]:
    """Verdicts back."""
    return [verdict_from_data(data) for data in json.loads(text)]
