"""Random inputs for every source, thick around the places where wrong programs go wrong.

That is: nothing at all, one item, equal items, negative numbers, and each constant of the problem with its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

_WORDS = """
a toe sea oats seat taste estate tote eat ate sets noses ease oat tease essay stone lesson
apple bread cat dog house green quiet river under arrow ocean salt moon tree idea echo sun opera
table extra orbit tango nut set tea too state test gate ant east stop plant window yellow be
on it
"""
LEXICON = tuple(_WORDS.split())


def number(rng: Random, constants: Sequence[int], low: int, high: int) -> int:
    """One integer from `low` to `high`, often a constant, its neighbour or its multiple."""
    if constants and rng.random() < 0.5:
        near = rng.choice(constants) * rng.choice((1, 1, 1, 2, -1)) + rng.choice((-1, 0, 0, 1))
        if low <= near <= high:
            return near
    return rng.randint(low, high)


def numbers(rng: Random, constants: Sequence[int], length: int) -> list[int]:
    """A list of integers, some of them equal."""
    low, high = rng.choice(((-9, 12), (-9, 12), (0, 9), (1, 20)))
    items: list[int] = []
    for _ in range(length):
        items.append(rng.choice(items) if items and rng.random() < 0.2 else number(rng, constants, low, high))
    return items


def words(rng: Random, letters: Sequence[str], length: int) -> list[str]:
    """A list of words, some of them equal, many with one of the letters at an end."""
    items: list[str] = []
    for _ in range(length):
        if items and rng.random() < 0.2:
            items.append(rng.choice(items))
        elif letters and rng.random() < 0.5:
            letter = rng.choice(letters)
            fitting = [word for word in LEXICON if letter in (word[0], word[-1])]
            items.append(rng.choice(fitting))
        else:
            items.append(rng.choice(LEXICON))
    return items


def text(rng: Random, letters: Sequence[str], length: int) -> str:
    """A text of small and capital letters, digits and a blank now and then, without blanks at its ends."""
    characters = []
    for _ in range(length):
        pool = rng.choice(("aeiou", "bcdfgrst", "0123456789", "AEKQSU", "-. ", "".join(letters) or "e"))
        characters.append(rng.choice(pool))
    return "".join(characters).strip()


def arguments(source: str, rng: Random, constants: Sequence[str], turn: int) -> list[Any]:
    """One list of arguments for a short problem; the first turns give the shortest inputs."""
    small = [int(constant) for constant in constants if constant.isdigit()]
    letters = [constant for constant in constants if constant.isalpha()]
    length = turn if turn < 2 else rng.randint(3, 8)
    match source:
        case "numbers" | "alternate" | "gaps":
            return [numbers(rng, small, length + 2 if source == "gaps" and turn > 1 else length)]
        case "range":
            start = rng.randint(-6, 6)
            return [start, start - 1 if turn == 0 else start + rng.randint(0, 12)]
        case "divisors":
            return [
                turn + 1
                if turn < 2
                else rng.choice((6, 7, 8, 9, 12, 15, 16, 18, 20, 21, 24, 28, 30, 36, 40, 42, 45, 56, 60, 72, 90))
            ]
        case "digits":
            return [turn * rng.randint(1, 9) if turn < 2 else rng.randint(10 ** rng.randint(1, 6), 10**7)]
        case "pair-sum" | "pair-difference" | "pair-product":
            if turn % 2 or not small:
                return [number(rng, small, -9, 12), number(rng, small, -9, 12)]
            wanted = rng.choice(small) + rng.choice((-1, 0, 1))
            other = rng.randint(-5, 9)
            if source == "pair-product":
                return [wanted, rng.choice((1, -1))]
            return [wanted - other, other] if source == "pair-sum" else [wanted + other, other]
        case "words":
            return [words(rng, letters, length)]
        case "text" | "text-digits":
            return [text(rng, letters, length * 2)]
    raise ValueError(f"no inputs for source {source!r}")


def as_stdin(values: Sequence[Any]) -> str:
    """Writes arguments as standard input: numbers that stand alone on one line, a list on a line of its own."""
    if all(isinstance(value, int) for value in values):
        return " ".join(map(str, values)) + "\n"
    return "".join((value if isinstance(value, str) else " ".join(map(str, value))) + "\n" for value in values)


def task_arguments(origin: str, rng: Random, small: list[int], turn: int) -> list[Any]:
    """One list of arguments for a long problem; the first turns give the shortest inputs."""
    length = turn if turn < 2 else rng.randint(4, 9)
    items = numbers(rng, small, length)
    if rng.random() < 0.3:
        items = [abs(item) for item in items]
    match origin:
        case "plain":
            return [items]
        case "until-zero":
            items = [item or 1 for item in items]
            return [items if rng.random() < 0.3 else [*items, 0, *numbers(rng, small, 2)]]
        case "repeated":
            return [[[item, rng.randint(1, 3)] for item in items]]
        case "row-sums":
            return [[numbers(rng, small, rng.randint(1, 3)) for _ in range(length)]]
        case "column-tops":
            return [[numbers(rng, small, length + 1) for _ in range(rng.randint(1, 3))]]
        case "commands":
            commands = [str(item) for item in items]
            for _ in range(length // 3):
                commands.insert(rng.randrange(len(commands) + 1), rng.choice(("undo", "flip")))
            return [commands]
        case "clock":
            hours = sorted(rng.randrange(24) for _ in range(length)) if rng.random() < 0.5 else None
            times: list[str] = []
            for index in range(length):
                hour = hours[index] if hours else rng.randrange(3)
                times.append(times[-1] if times and rng.random() < 0.2 else f"{hour}:{rng.randrange(60):02}")
            return [times]
        case "run-lengths":
            return ["".join(rng.choice("abxyz") * rng.choice((1, 1, 2, 3, 4, 5, 7)) for _ in range(length))]
        case "hidden":
            joints = ("a", " - ", "b", "x", ", ", "km ")
            return ["".join(rng.choice(joints) + str(abs(item)) for item in items) + rng.choice(("", "."))]
    raise ValueError(f"no inputs for origin {origin!r}")


def task_stdin(origin: str, values: list[Any]) -> str:
    """Writes arguments as standard input, in the layout that the origin's sentence states."""
    (value,) = values
    match origin:
        case "plain":
            return f"{len(value)}\n{' '.join(map(str, value))}\n"
        case "until-zero":
            return "".join(f"{item}\n" for item in (value if 0 in value else [*value, 0]))
        case "repeated" | "row-sums" | "column-tops":
            return f"{len(value)}\n" + "".join(" ".join(map(str, row)) + "\n" for row in value)
        case "commands" | "clock":
            return " ".join(value) + "\n"
        case _:
            return f"{value}\n"
