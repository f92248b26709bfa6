"""A problem's tests in the form in which they are judged: what a child may see apart from what it may not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stepcoder.problems import values
from stepcoder.problems.problem import CallTest, CheckTest, StdinTest, Test
from stepcoder.sandbox.inside import frames


@dataclass(frozen=True)
class PreparedTest:
    """One test; only `request` goes to the process that holds the program."""

    test: Test
    request: bytes
    """A packed message with the call's arguments, or the bytes of standard input."""
    encoded: Any = None
    """The expected value as tagged JSON, for a quick comparison; None where that would be wrong."""


def prepare(tests: tuple[Test, ...]) -> tuple[PreparedTest, ...]:
    """Encodes each test once, however many programs it will judge."""
    return tuple(_prepare(test, index) for index, test in enumerate(tests))


def _prepare(test: Test, index: int) -> PreparedTest:
    match test:
        case CallTest():
            call = {
                "test": index,
                "args": [values.encode(value) for value in test.args],
                "kwargs": {name: values.encode(value) for name, value in test.kwargs.items()},
            }
            request = frames.pack(frames.TEST, json.dumps(call, separators=(",", ":")).encode())
            encoded = values.encode(test.expected)
            # An opaque expectation equals nothing, not even its own encoding.
            return PreparedTest(test, request, None if "$opaque" in json.dumps(encoded) else encoded)
        case StdinTest():
            return PreparedTest(test, _bytes_of(test.stdin))
        case CheckTest():
            return PreparedTest(test, b"")


def _bytes_of(text: str) -> bytes:
    """Text as bytes: what stands for bytes that are no UTF-8 as these, other lone surrogates as they are."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
