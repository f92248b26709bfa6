"""Whether what a program claims is what a test expects: pure, and safe on any claim.

The rules are those of STEPCODER.md section 1: booleans, integers and floats are equal by value; a tuple equals a list
at every depth; where a float is expected, 1e-6 relative or 1e-9 absolute is close enough; everything else needs the
exact type; an opaque value equals nothing. Decided here: NaN equals NaN, so that a reference that returns it passes its
own tests; sets are equal by elements and dictionaries by keys, under the same rules.

Claims stay tagged JSON, as `stepcoder.problems.values` writes it, and are never built into sets or dictionaries: keys
chosen to collide would hang the judge.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from stepcoder.problems import values


class Closeness(NamedTuple):
    """When two numbers are as good as equal."""

    relative: float
    absolute: float
    between_types: bool
    """Whether an integer that is expected may be met by a float that is close."""
    trials: int = 200
    """So many elements of a set are tried against one another for closeness; more than that are unequal. Sets inside
    sets have fewer: the work of each level multiplies that of the next."""


USUAL = Closeness(1e-6, 1e-9, between_types=False)
_WORD = re.compile(r"[^ \t\r\f\v]+")
INNER_TRIALS = 25
"""A set inside a set has so many times fewer trials."""


class MalformedError(ValueError):
    """A claim that `values.encode` cannot have written."""


def matches(expected: Any, claim: Any, depth: int = 0, closeness: Closeness = USUAL) -> bool:
    """Whether tagged JSON stands for a value equal to `expected`.

    Args:
        expected: a Python value.
        claim: tagged JSON.
        depth: how deep the two lie in what is compared.
        closeness: when numbers are as good as equal.

    Raises:
        MalformedError: the claim is no encoding of a value.
    """
    if depth > values.MAX_DEPTH:
        return False
    kind = type(expected)
    if kind in (bool, int, float):
        return _number_matches(expected, number_of(claim), closeness)
    if kind is list or kind is tuple:
        items = _payload(claim, "$tuple") if type(claim) is dict else claim
        if type(items) is not list or len(items) != len(expected):
            return False
        return all(matches(left, right, depth + 1, closeness) for left, right in zip(expected, items, strict=True))
    if kind is str or expected is None:
        return type(claim) is kind and bool(claim == expected)
    if kind is dict:
        return _dictionary_matches(expected, claim, depth, closeness)
    if kind is set or kind is frozenset:
        return _set_matches(expected, _payload(claim, f"${kind.__name__}"), depth, closeness)
    if kind is bytes:
        return bool(_payload(claim, "$bytes") == expected.hex())
    if kind is complex:
        parts = _payload(claim, "$complex")
        if type(parts) is not list:
            return False
        return _number_matches(expected, complex(float_of(parts[0]), float_of(parts[1])), closeness)
    return False


def output_matches(expected: str, actual: str) -> bool:
    """Whether two standard outputs agree line by line, trailing blanks and final empty lines apart."""
    return expected == actual or lines_of(expected) == lines_of(actual)


def lines_of(output: str) -> list[str]:
    """The lines that count: without trailing blanks, without empty ones at the end."""
    lines = [line.rstrip() for line in output.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def words_of(line: str) -> list[str]:
    """The words of a line: what stands between blanks of ASCII."""
    return _WORD.findall(line)


def is_known(claim: Any) -> bool:
    """Whether no part of a well-formed claim is an object of an unknown type."""
    stack = [claim]
    while stack:
        data = stack.pop()
        if type(data) is list:
            stack += data
        elif type(data) is dict:
            if "$opaque" in data:
                return False
            stack += data.values()
    return True


def is_well_formed(claim: Any) -> bool:
    """Whether tagged JSON is an encoding of a value, looked at without building the value."""
    stack = [claim]
    while stack:
        data = stack.pop()
        if type(data) is list:
            stack += data
        elif type(data) is dict:
            tag = next((key for key in data if key.startswith("$")), None)
            if tag is None:
                stack += data.values()
            elif len(data) > 1 or not _is_tagged(tag, data[tag], stack):
                return False
    return True


def _is_tagged(tag: str, payload: Any, stack: list[Any]) -> bool:
    match tag:
        case "$tuple" | "$set" | "$frozenset":
            stack.append(payload)
            return type(payload) is list
        case "$dict":
            if type(payload) is not list or not all(type(pair) is list and len(pair) == 2 for pair in payload):
                return False
            stack.append(payload)
            return True
        case "$opaque":
            return type(payload) is str
        case "$int" | "$float" | "$bytes":
            return type(payload) is str and _reads(tag, payload)
        case "$complex":
            return type(payload) is list and len(payload) == 2 and all(_reads("$float", part) for part in payload)
    return False


def _reads(tag: str, payload: Any) -> bool:
    try:
        {"$int": _integer, "$float": float_of, "$bytes": bytes.fromhex}[tag](payload)
    except (TypeError, ValueError):
        return False
    return True


def number_of(claim: Any) -> float | None:
    """The number that a claim stands for, None if it is no number."""
    kind = type(claim)
    if kind is int or kind is float or kind is bool:
        number: float = claim
        return number
    if kind is dict:
        if "$int" in claim:
            return _integer(claim["$int"])
        if "$float" in claim:
            return float_of(claim["$float"])
    return None


def _integer(text: Any) -> int:
    try:
        return int(text, 16)
    except (TypeError, ValueError) as error:
        raise MalformedError(f"not an integer: {str(text)[:40]!r}") from error


def float_of(text: Any) -> float:
    """The float of a tag's payload.

    Raises:
        MalformedError: it is none.
    """
    try:
        return float(text) if type(text) is str and len(text) < 64 else float("")
    except ValueError as error:
        raise MalformedError(f"not a float: {str(text)[:40]!r}") from error


def _number_matches(expected: complex, actual: complex | None, closeness: Closeness) -> bool:
    if actual is None:
        return False
    if isinstance(expected, complex) or isinstance(actual, complex):
        left, right = complex(expected), complex(actual)
        return _number_matches(left.real, right.real, closeness) and _number_matches(left.imag, right.imag, closeness)
    if actual == expected:
        return True
    crossing = closeness.between_types and type(expected) is int and type(actual) is float
    if type(expected) is not float and not crossing:
        return False
    try:
        close = math.isclose(expected, actual, rel_tol=closeness.relative, abs_tol=closeness.absolute)
    except OverflowError:  # an integer beyond all floats
        return False
    return close or (math.isnan(expected) and math.isnan(actual))


def _payload(claim: Any, tag: str) -> Any:
    return claim.get(tag) if type(claim) is dict else None


def _dictionary_matches(expected: dict[Any, Any], claim: Any, depth: int, closeness: Closeness) -> bool:
    if type(claim) is not dict:
        return False
    if not any(key.startswith("$") for key in claim):
        # All keys of the claim are strings, and equal keys of the expectation can only be strings.
        return claim.keys() == expected.keys() and all(
            matches(value, claim[key], depth + 1, closeness) for key, value in expected.items()
        )
    pairs = _payload(claim, "$dict")
    if type(pairs) is not list or len(pairs) != len(expected):
        return False
    rest = dict(expected)
    for key_claim, value_claim in pairs:
        found = _take(rest, key_claim, depth, closeness)
        if found is None or not matches(found[1], value_claim, depth + 1, closeness):
            return False
    return True


def _set_matches(expected: set[Any] | frozenset[Any], items: Any, depth: int, closeness: Closeness) -> bool:
    if type(items) is not list or len(items) != len(expected):
        return False
    rest = dict.fromkeys(expected)
    return all(_take(rest, item, depth, closeness) is not None for item in items)


def _take(rest: dict[Any, Any], claim: Any, depth: int, closeness: Closeness) -> tuple[Any, Any] | None:
    """Removes the entry whose key a claim stands for, and returns it."""
    key = _key(claim)
    if key is not _NO_KEY and key in rest:
        return key, rest.pop(key)
    if len(rest) <= closeness.trials:
        inner = closeness._replace(trials=closeness.trials // INNER_TRIALS)
        for candidate in rest:
            if matches(candidate, claim, depth + 1, inner):
                return candidate, rest.pop(candidate)
    return None


_NO_KEY = object()


def _key(claim: Any) -> Any:
    """The scalar, or tuple of scalars, that a claim stands for; `_NO_KEY` for anything else."""
    if claim is None or type(claim) is str:
        return claim
    number = number_of(claim)
    if number is not None:
        return number
    items = _payload(claim, "$tuple")
    if type(items) is list:
        keys = [_NO_KEY if type(_payload(item, "$tuple")) is list else _key(item) for item in items]
        return _NO_KEY if any(key is _NO_KEY for key in keys) else tuple(keys)
    return _NO_KEY
