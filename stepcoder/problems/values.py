"""Python values as tagged JSON, read back without ever unpickling.

Standard library only: the process that runs untrusted programs loads this file too.

A value that JSON cannot hold becomes an object with one key that starts with `$`; lists, strings, booleans, `None`,
integers, finite floats and dictionaries with ordinary string keys are themselves.
"""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 200


class TooDeepError(ValueError):
    """A value is nested deeper than `MAX_DEPTH`."""


class Opaque:
    """A value of a type that has no encoding. It equals nothing, itself included."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<opaque {self.type_name}>"


def encode(value: Any, depth: int = 0) -> Any:
    """Turns a value into JSON data. Types are matched exactly: a subclass is opaque.

    Raises:
        TooDeepError: the value is nested deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise TooDeepError(f"value nested deeper than {MAX_DEPTH}")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        if is_plain(value):
            return value
        return [encode(item, depth + 1) for item in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item, depth + 1) for key, item in value.items()}
        return {"$dict": [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {f"${kind.__name__}": [encode(item, depth + 1) for item in value]}
    if kind is bytes:
        return {"$bytes": value.hex()}
    if kind is complex:
        return {"$complex": [repr(value.real), repr(value.imag)]}
    if kind is Opaque:
        return {"$opaque": value.type_name}
    return {"$opaque": kind.__name__}


def is_plain(items: list[Any]) -> bool:
    """Whether a list is its own encoding: only strings, or only small integers. Decided at the speed of C."""
    kinds = set(map(type, items))
    if kinds == {int}:
        return bool(min(items) > -(2**53) and max(items) < 2**53)
    return kinds == {str}


def decode(data: Any) -> Any:
    """Turns JSON data from `encode` back into the value.

    Raises:
        ValueError: an unknown tag or a malformed payload.
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next(iter(data), "")
    if not tag.startswith("$"):
        return {key: decode(item) for key, item in data.items()}
    payload = data[tag]
    try:
        match tag:
            case "$int":
                return int(payload, 16)
            case "$float":
                return float(payload)
            case "$tuple":
                return tuple(decode(item) for item in payload)
            case "$set":
                return {decode(item) for item in payload}
            case "$frozenset":
                return frozenset(decode(item) for item in payload)
            case "$dict":
                return {decode(key): decode(item) for key, item in payload}
            case "$bytes":
                return bytes.fromhex(payload)
            case "$complex":
                real, imaginary = payload
                return complex(float(real), float(imaginary))
            case "$opaque":
                return Opaque(str(payload))
    except (TypeError, ValueError) as error:
        raise ValueError(f"malformed value under {tag}: {error}") from error
    raise ValueError(f"unknown tag {tag!r}")
