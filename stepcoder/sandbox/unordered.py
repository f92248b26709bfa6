"""Items in any order: the checker `unordered`.

Items are sorted by a key of their tagged JSON, so a large answer costs n log n, and nothing is hashed: keys chosen to
collide gain nothing. Only floats that are close but not equal can upset the order. What the sorted order does not
settle is then matched one by one, as long as it is little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcoder.problems import values
from stepcoder.sandbox import compare

MATCHED_ITEMS = 200
"""So many items are tried against one another; of more, those that the sorted order does not settle are unequal."""
MATCHED_VALUES = 3_000_000
"""Values, nested ones included, that all such trials together may look at."""


def items_match(expected: Any, claim: Any, levels: int) -> bool:
    """Whether tagged JSON stands for the items of `expected` in any order; for what is no list, the exact rules.

    Args:
        expected: a Python value.
        claim: tagged JSON.
        levels: levels of lists whose order does not count.

    Raises:
        MalformedError: the claim is no encoding of a value.
    """
    return _Comparison().matches(expected, claim, levels, 0)


def lines_match(expected: str, actual: str, levels: int) -> bool:
    """Whether two outputs have the same lines in any order; with two levels, the words of a line too."""
    return _sorted_lines(expected, levels) == _sorted_lines(actual, levels)


def _sorted_lines(output: str, levels: int) -> list[list[str]]:
    lines = [line for line in compare.lines_of(output) if line]
    return sorted([line] if levels == 1 else sorted(compare.words_of(line)) for line in lines)


class _Comparison:
    """One comparison of an expected value with a claim, and the trials that are left to it."""

    def __init__(self) -> None:
        self._left = MATCHED_VALUES

    def matches(self, expected: Any, claim: Any, levels: int, depth: int) -> bool:
        if levels == 0 or type(expected) not in (list, tuple):
            return compare.matches(expected, claim, depth)
        items = claim.get("$tuple") if type(claim) is dict else claim
        if type(items) is not list or len(items) != len(expected):
            return False
        left = sorted((_key(values.encode(item), levels - 1, depth + 1), at) for at, item in enumerate(expected))
        right = sorted((_key(item, levels - 1, depth + 1), at) for at, item in enumerate(items))
        pairs = zip(left, right, strict=True)
        if all(self.matches(expected[i], items[j], levels - 1, depth + 1) for (_, i), (_, j) in pairs):
            return True
        if len(items) > MATCHED_ITEMS:
            left, right = _without_equals(left, right)
        if len(left) > MATCHED_ITEMS:
            return False
        wanted, given = [expected[at] for _, at in left], [items[at] for _, at in right]
        return self._assign(wanted, given, levels - 1, depth + 1)

    def _assign(self, wanted: Sequence[Any], given: Sequence[Any], levels: int, depth: int) -> bool:
        """Whether each item can be given one that matches it: augmenting paths in the graph of matches."""
        holder: dict[int, int] = {}
        edges: list[list[int]] = []
        for number, item in enumerate(wanted):
            self._left -= len(given) * _size(item)
            if self._left < 0:
                return False
            edges.append([place for place, other in enumerate(given) if self.matches(item, other, levels, depth)])
            if not _augment(number, edges, holder, set()):
                return False
        return True


def _augment(item: int, edges: list[list[int]], holder: dict[int, int], seen: set[int]) -> bool:
    for place in edges[item]:
        if place not in seen:
            seen.add(place)
            if place not in holder or _augment(holder[place], edges, holder, seen):
                holder[place] = item
                return True
    return False


def _without_equals(
    left: list[tuple[Any, int]], right: list[tuple[Any, int]]
) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
    """What is left of two sorted lists when items with the same key have taken each other away."""
    i = j = 0
    rest: tuple[list[tuple[Any, int]], list[tuple[Any, int]]] = ([], [])
    while i < len(left) and j < len(right):
        if left[i][0] == right[j][0]:
            i, j = i + 1, j + 1
        elif left[i][0] < right[j][0]:
            rest[0].append(left[i])
            i += 1
        else:
            rest[1].append(right[j])
            j += 1
    return rest[0] + left[i:], rest[1] + right[j:]


def _size(value: Any) -> int:
    """The number of values in a value, itself included."""
    count, stack = 0, [value]
    while stack:
        item = stack.pop()
        count += 1
        if type(item) in (list, tuple, set, frozenset):
            stack += item
        elif type(item) is dict:
            stack += [*item.keys(), *item.values()]
    return count


# The first entry of a key: values of different kinds have an order too.
_NONE, _NUMBER, _NAN, _TEXT, _BYTES, _COMPLEX, _LIST, _DICT, _SET, _FROZENSET, _NEVER = range(11)


def _key(claim: Any, levels: int, depth: int) -> tuple[Any, ...]:
    """A key with a total order; equal for values that are equal by the exact rules and without tolerance."""
    if depth > values.MAX_DEPTH:
        return _NEVER, float("nan")
    if claim is None:
        return (_NONE,)
    kind = type(claim)
    if kind is str:
        return _TEXT, claim
    if kind is list:
        return _items_key(claim, levels, depth)
    number = compare.number_of(claim)
    if number is not None:
        return _number_key(number)
    tag = next((key for key in claim if key.startswith("$")), None)
    payload = claim.get(tag)
    match tag:
        case None:
            return _DICT, tuple(sorted(((_TEXT, key), _key(item, 0, depth + 1)) for key, item in claim.items()))
        case "$tuple":
            return _items_key(payload, levels, depth)
        case "$dict":
            return _DICT, tuple(sorted((_key(key, 0, depth + 1), _key(item, 0, depth + 1)) for key, item in payload))
        case "$set" | "$frozenset":
            rank = _SET if tag == "$set" else _FROZENSET
            return rank, tuple(sorted(_key(item, 0, depth + 1) for item in payload))
        case "$bytes":
            return _BYTES, payload
        case "$complex":
            return _COMPLEX, *(_number_key(compare.float_of(part)) for part in payload)
    # What equals nothing: a new number that is none, since a tuple takes one and the same for equal.
    return _NEVER, float("nan")


def _items_key(items: list[Any], levels: int, depth: int) -> tuple[Any, ...]:
    keys = [_key(item, max(0, levels - 1), depth + 1) for item in items]
    return _LIST, tuple(sorted(keys) if levels else keys)


def _number_key(number: float) -> tuple[Any, ...]:
    return (_NAN,) if number != number else (_NUMBER, number)
