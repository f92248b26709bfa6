"""Values and outputs in a few words for a person, however large or strange they are."""

from __future__ import annotations

from typing import Any

from stepcoder.sandbox import compare

CHARACTERS = 80
ITEMS = 6
LEVELS = 4
DIGITS = 40
_BRACKETS = {"list": "[]", "tuple": "()", "set": "{}", "frozenset": ("frozenset({", "})")}


def brief_value(value: Any, level: int = 0) -> str:
    """A Python value, shortened."""
    kind = type(value)
    if kind is int:
        return _integer(value)
    if kind is str or kind is bytes:
        return repr(value) if len(value) <= CHARACTERS else f"{value[:CHARACTERS]!r}... ({len(value)} long)"
    if kind in (list, tuple, set, frozenset):
        items = [brief_value(item, level + 1) for item in list(value)[:ITEMS]] if level < LEVELS else []
        opening, closing = _BRACKETS[kind.__name__]
        return opening + _joined(items, len(value)) + closing
    if kind is dict:
        pairs = list(value.items())[:ITEMS] if level < LEVELS else []
        items = [f"{brief_value(key, level + 1)}: {brief_value(item, level + 1)}" for key, item in pairs]
        return "{" + _joined(items, len(value)) + "}"
    return repr(value)[:CHARACTERS]


def brief_claim(claim: Any, level: int = 0) -> str:
    """A value that comes as tagged JSON, shortened without building it."""
    if type(claim) is list:
        items = [brief_claim(item, level + 1) for item in claim[:ITEMS]] if level < LEVELS else []
        return "[" + _joined(items, len(claim)) + "]"
    if type(claim) is not dict:
        return brief_value(claim)
    tag = next((key for key in claim if key.startswith("$")), None)
    if tag is None:
        pairs = list(claim.items())[:ITEMS] if level < LEVELS else []
        return "{" + _joined([f"{key!r}: {brief_claim(item, level + 1)}" for key, item in pairs], len(claim)) + "}"
    payload = claim[tag]
    if tag == "$opaque":
        return f"an object of type {str(payload)[:CHARACTERS]}"
    if tag == "$int":
        return _integer(int(payload, 16))
    if tag in ("$tuple", "$set", "$frozenset"):
        return f"{tag[1:]} {brief_claim(payload, level)}"
    return f"{tag[1:]} {str(payload)[:CHARACTERS]}"


def output_difference(expected: str, actual: str) -> str:
    """The first line in which two outputs differ."""
    right, wrong = compare.lines_of(expected), compare.lines_of(actual)
    for number, (left, other) in enumerate(zip(right, wrong, strict=False), 1):
        if left != other:
            return f"line {number}: expected {brief_value(left)}, got {brief_value(other)}"
    counts = f"{len(wrong)} lines instead of {len(right)}"
    if len(wrong) < len(right):
        return f"{counts}: line {len(wrong) + 1} is missing: {brief_value(right[len(wrong)])}"
    return f"{counts}: line {len(right) + 1} is too many: {brief_value(wrong[len(right)])}"


def _integer(value: int) -> str:
    # Longer ones are written in hexadecimal: Python refuses to print more than 4,300 decimal digits.
    if value.bit_length() <= DIGITS * 3:
        return str(value)
    return f"{hex(value)[:DIGITS]}... ({value.bit_length()} bits)"


def _joined(items: list[str], count: int) -> str:
    return ", ".join(items) + (", ..." if items and count > len(items) else "..." if count > len(items) else "")
