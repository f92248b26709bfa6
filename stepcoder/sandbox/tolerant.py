"""Outputs whose numbers only have to be close: the checker `float` for standard output.

What counts as a number is narrow on purpose. Python's `float` reads `nan`, `infinity`, `1_000` and digits of every
script, and turns `1e400` into an infinity that equals any other: each would let a wrong output pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import zip_longest

from stepcoder.sandbox import compare
from stepcoder.sandbox.compare import Closeness

LONGEST_NUMBER = 400
"""Characters of a number; what is longer is compared as text. The largest float has 309 digits before the point."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def different_lines(expected: str, actual: str, closeness: Closeness) -> Iterator[tuple[int, str | None, str | None]]:
    """Number from 1, expected and actual text of each line that differs; None where one output has no such line."""
    pairs = zip_longest(compare.lines_of(expected), compare.lines_of(actual))
    for number, (left, right) in enumerate(pairs, 1):
        if left is None or right is None or not _lines_close(left, right, closeness):
            yield number, left, right


def words_close(expected: str, actual: str, closeness: Closeness) -> bool:
    """Whether two words are the same text, or two plain decimal numbers that are close."""
    if expected == actual:
        return True
    if not (_is_number(expected) and _is_number(actual)):
        return False
    if _INTEGER.fullmatch(expected) and _INTEGER.fullmatch(actual):
        return int(expected) == int(actual)
    left, right = float(expected), float(actual)
    if not (math.isfinite(left) and math.isfinite(right)):
        return False
    return math.isclose(left, right, rel_tol=closeness.relative, abs_tol=closeness.absolute)


def _lines_close(expected: str, actual: str, closeness: Closeness) -> bool:
    if expected == actual:
        return True
    left, right = compare.words_of(expected), compare.words_of(actual)
    return len(left) == len(right) and all(
        words_close(wanted, word, closeness) for wanted, word in zip(left, right, strict=True)
    )


def _is_number(word: str) -> bool:
    return len(word) <= LONGEST_NUMBER and _DECIMAL.fullmatch(word) is not None
