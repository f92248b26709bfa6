"""Programs for a page: which code ran, which did not and which was given, with nothing in them that could act.

What a model writes is hostile text: it is cut to a size that a browser takes, invisible and direction-changing
characters become visible, and everything is escaped by the template.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import groupby

from stepcoder.evaluation.samples import JudgedSample
from stepcoder.masks import executed_bytes
from stepcoder.sandbox.job import Outcome

MAX_LINES = 120
"""Lines shown of one program."""
MAX_COLUMNS = 240
"""Characters shown of one line."""


@dataclass(frozen=True)
class Piece:
    """Characters of one line that look the same."""

    css: str
    """`given` or `own`, then `ran`, `idle` or `unknown`."""
    text: str


@dataclass(frozen=True)
class Line:
    """One line of a program."""

    number: int
    pieces: tuple[Piece, ...]
    left_out: int = 0
    """Characters at its end that are not shown."""
    raised: bool = False
    """Whether the exception of the first test that did not pass came from here."""


@dataclass(frozen=True)
class Listing:
    """A program, cut to a size that can be shown."""

    lines: tuple[Line, ...]
    left_out: int
    """Lines at its end that are not shown."""
    tail: str
    """What the model wrote after the judged program: the closing fence and beyond, cut."""
    traced: bool
    """Whether it is known which statements ran."""


def listing(sample: JudgedSample) -> Listing:
    """Prepares a sample's program for the page."""
    program = sample.program
    statements = sample.verdict.statements
    marks = executed_bytes(program.encode("utf-8"), statements) if statements else None
    given = len(sample.opened.encode("utf-8")) if program.startswith(sample.opened) else 0
    raised = next((test.line for test in sample.verdict.tests if test.outcome is not Outcome.PASS), None)
    whole = program.removesuffix("\n").split("\n")
    lines = []
    begin = 0
    for number, text in enumerate(whole[:MAX_LINES], start=1):
        shown = text[:MAX_COLUMNS]
        pieces = _pieces(shown, begin, given, marks)
        lines.append(Line(number, pieces, len(text) - len(shown), number == raised))
        begin += len(text.encode("utf-8")) + 1
    written = program.removeprefix(sample.opened)
    tail = sample.completion.removeprefix(written) if sample.completion.startswith(written) else ""
    return Listing(tuple(lines), max(0, len(whole) - MAX_LINES), clipped(tail.strip(), 400), bool(statements))


def visible(text: str) -> str:
    """Replaces characters that are invisible, change the direction of text or control a terminal by their names.

    Line ends and tabs stay. A look-alike identifier or a reversed comment cannot hide in a report.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _harmless(char) else f"⟨U+{ord(char):04X}⟩" for char in text)


def clipped(text: str, limit: int) -> str:
    """The start of a text with the number of characters left out; `visible` throughout."""
    shown = visible(text[:limit])
    return shown if len(text) <= limit else f"{shown} … ({len(text) - limit:,} more characters)"


def _harmless(char: str) -> bool:
    # Control, format (bidirectional marks, zero width), surrogate, private, unassigned, line and paragraph separators.
    return char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _pieces(text: str, begin: int, given: int, marks: bytearray | None) -> tuple[Piece, ...]:
    """Cuts a line into runs of one look.

    Args:
        text: the line as it is shown.
        begin: its first byte in the program.
        given: number of bytes of the program that the model was given.
        marks: for each byte of the program whether it ran; None when nothing was traced.
    """
    looks = []
    for char in text:
        state = "unknown" if marks is None else "ran" if marks[begin] else "idle"
        looks.append(f"{'given' if begin < given else 'own'} {state}")
        begin += len(char.encode("utf-8"))
    runs = groupby(zip(text, looks, strict=True), key=lambda pair: pair[1])
    return tuple(Piece(css, visible("".join(char for char, _ in run))) for css, run in runs)
