"""Chooses a problem's tests: expected outputs come from running the reference, inputs are those that catch mutants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from examples.mutants import Runner, mutants, outcome

POOL = 64
"""Inputs from which a problem's tests are chosen."""
FEWEST, MOST = 4, 6
"""Tests of a problem."""
LARGEST = 10**9
"""Integers beyond this make an input unfit: they help nobody to read a test."""


def runner(program: str, entry_point: str, stdin: bool) -> Callable[[Any], Any]:
    """Returns what runs the program on one input: a list of arguments, or the text of standard input."""
    machine = Runner(program, entry_point)
    return machine.feed if stdin else machine.call


def choose(
    solution: str,
    entry_point: str,
    stdin: bool,
    inputs: Sequence[Any],
    needed: Sequence[str] = (),
    others: Sequence[str] = (),
) -> list[Any] | None:
    """Picks `FEWEST` to `MOST` inputs that together tell the solution from its mutants.

    Args:
        solution: The reference.
        entry_point: Its function, or `Class.method`.
        stdin: Whether inputs are standard input.
        inputs: What to choose from; the first is always taken (the shortest: nothing, or one item).
        needed: Programs that have to differ from the solution on some input, or the problem is unfit.
        others: More wrong programs to catch where they differ.

    Returns:
        The inputs in the order of `inputs`, or None when the problem is unfit: a part makes no difference, the
        reference fails, or nearly all outputs are the same.
    """
    reference = runner(solution, entry_point, stdin)
    pool: list[tuple[Any, Any]] = []
    for given in inputs:
        state, value = outcome(reference, given)
        if state == "value" and _modest(value) and given not in [item for item, _ in pool]:
            pool.append((given, value))
    if len(pool) < 8:
        return None
    if max(sum(other == value for _, other in pool) for _, value in pool) > 0.75 * len(pool):
        return None
    chosen = _first_choice(pool)
    left: list[frozenset[int]] = []
    for program in itertools.chain(needed, others, (program for _, program in mutants(solution))):
        if not _caught(program, entry_point, stdin, [pool[index] for index in chosen]):
            caught = _caught(program, entry_point, stdin, pool)
            if not caught and program in needed:
                return None
            left += [caught] if caught else []
    while len(chosen) < MOST and (left or len(chosen) < FEWEST):
        gains = [sum(index in caught for caught in left) for index in range(len(pool))]
        seen = [pool[index][1] for index in chosen]
        best = max(
            (index for index in range(len(pool)) if index not in chosen),
            key=lambda index: (gains[index], pool[index][1] not in seen, -len(str(pool[index][0]))),
        )
        chosen.append(best)
        left = [caught for caught in left if best not in caught]
    return [pool[index][0] for index in sorted(chosen)]


def _first_choice(pool: Sequence[tuple[Any, Any]]) -> list[int]:
    """The shortest input, which comes first, and two more of middling length with different outputs."""
    chosen = [0]
    for index in sorted(range(1, len(pool)), key=lambda index: abs(len(str(pool[index][0])) - 24)):
        if len(chosen) < 3 and pool[index][1] not in [pool[other][1] for other in chosen]:
            chosen.append(index)
    return chosen


def _caught(program: str, entry_point: str, stdin: bool, pool: Sequence[tuple[Any, Any]]) -> frozenset[int]:
    """The indices of the inputs on which the program does not show the expected value."""
    state, run = outcome(lambda code: runner(code, entry_point, stdin), program)
    if state == "error":
        return frozenset(range(len(pool)))
    caught: list[int] = []
    for index, (given, value) in enumerate(pool):
        shown = outcome(run, given)
        if shown == ("error", "EndlessError"):  # one endless run is enough: a test that waits for it catches it
            return frozenset([*caught, index])
        if shown != ("value", value):
            caught.append(index)
    return frozenset(caught)


def _modest(value: Any) -> bool:
    """Whether no integer in the value is very large and no text very long."""
    if isinstance(value, list):
        return all(map(_modest, value))
    if isinstance(value, str):
        return len(value) <= 200
    return not isinstance(value, int) or abs(value) <= LARGEST
