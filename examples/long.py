"""Long problems: a story, one or two changes of a list, a measure, and how the answer is told."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from examples.inputs import task_arguments, task_stdin
from examples.long_parts import CHANGES, MEASURES, ORIGINS, TELLINGS, Origin, Stage, Theme
from examples.records import (
    CONDITIONALS,
    INDENT,
    Encoding,
    Text,
    random_name,
    record,
    scope,
    training_weight,
    with_example,
)
from examples.testing import POOL, choose

Part = TypeVar("Part", Origin, Stage)

LONG_FAMILIES = 190
LONG_TWICE = 0.2
"""Share of the long families that have two problems: one of each encoding, with another theme and other constants."""
MOST_CONDITIONALS = 9


_WORDS: dict[Encoding, dict[str, str]] = {
    "call": {"verb": "Return", "both": "as a list of two", "as_text": " as a string"},
    "stdin": {"verb": "Print", "both": "with a blank between them", "as_text": ""},
}


@dataclass(frozen=True)
class Task:
    """What a long problem does, apart from theme, constants and encoding."""

    origin: Origin
    changes: tuple[Stage, ...]
    measure: Stage
    telling: Stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages after the origin, in the order of the statement."""
        return (*self.changes, self.measure, self.telling)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return (self.origin.name, *(stage.name for stage in self.stages))

    @property
    def family(self) -> str:
        """The composition by name."""
        return "/".join(self.names)


def draw_task(rng: Random, used: dict[str, float], looseness: float) -> Task:
    """Draws a composition; parts used least are preferred, unless they differ by less than the looseness."""

    def least_used(parts: tuple[Part, ...]) -> Part:
        return min(parts, key=lambda part: used[part.name] + rng.random() * looseness)

    changes: list[Stage] = []
    for _ in range(rng.choice((1, 2, 2))):
        changes.append(least_used(tuple(change for change in CHANGES if change not in changes)))
    return Task(least_used(ORIGINS), tuple(changes), least_used(MEASURES), least_used(TELLINGS))


def constants_of(task: Task, rng: Random) -> tuple[tuple[int, ...], ...]:
    """The constants of every stage."""
    return tuple(tuple(rng.choice(pool) for pool in stage.constants) for stage in task.stages)


def without_one_change(
    task: Task, constants: tuple[tuple[int, ...], ...]
) -> Iterator[tuple[Task, tuple[tuple[int, ...], ...]]]:
    """Yields the task with one change left out, for every change."""
    for index in range(len(task.changes)):
        rest = (*task.changes[:index], *task.changes[index + 1 :])
        yield replace(task, changes=rest), (*constants[:index], *constants[index + 1 :])


def neighbours(
    task: Task, constants: tuple[tuple[int, ...], ...], rng: Random
) -> Iterator[tuple[Task, tuple[tuple[int, ...], ...]]]:
    """Yields tasks with another change, another measure, or the changes in the other order."""
    for index in range(len(task.changes)):
        for change in rng.sample(CHANGES, 3):
            changes = (*task.changes[:index], change, *task.changes[index + 1 :])
            drawn = tuple(rng.choice(pool) for pool in change.constants)
            yield replace(task, changes=changes), (*constants[:index], drawn, *constants[index + 1 :])
    if len(task.changes) == 2:
        yield replace(task, changes=task.changes[::-1]), (constants[1], constants[0], *constants[2:])
    for measure in rng.sample(MEASURES, 3):
        drawn = tuple(rng.choice(pool) for pool in measure.constants)
        yield replace(task, measure=measure), (*constants[:-2], drawn, constants[-1])


def render_task(
    task: Task, constants: tuple[tuple[int, ...], ...], encoding: Encoding, name: str, theme: Theme, in_class: bool
) -> Text:
    """Writes the statement (without examples), the signature and the reference solution."""
    words = {"x": theme.many, "i": theme.one, **_WORDS[encoding]}
    blocks = [stage.helper + "\n" for stage in task.stages if stage.helper]
    blocks.append((task.origin.from_stdin if encoding == "stdin" else task.origin.from_parameter).format(**words))
    for stage, drawn in zip(task.stages, constants, strict=True):
        code = stage.prints if encoding == "stdin" and stage.prints else stage.code
        blocks.append(code.format(**words, **dict(zip("kl", drawn, strict=False))))
    parameter = task.origin.parameter.format(**words)
    if in_class:
        signature = f"class Solution:\n{INDENT}def {name}(self, {parameter}: {task.origin.annotation}):\n"
    else:
        signature = f"def {name}({parameter if encoding == 'call' else ''}):\n"
    body = "\n".join(block for block in blocks if block)
    solution = signature + textwrap.indent(body, INDENT * (2 if in_class else 1))
    return Text(_statement(task, constants, encoding, theme, words), f"\n{signature}", solution)


def _statement(
    task: Task, constants: tuple[tuple[int, ...], ...], encoding: Encoding, theme: Theme, words: dict[str, str]
) -> str:
    filled = [
        stage.phrase.format(**words, **dict(zip("kl", drawn, strict=False)))
        for stage, drawn in zip(task.stages, constants, strict=True)
    ]
    *changes, measure, telling = filled
    lines = [theme.title, "", theme.story]
    if encoding == "call":
        lines.append(task.origin.call.format(**words))
    if len(changes) == 1:
        lines += ["", f"{changes[0]} Then find {measure}. {telling}"]
    else:
        lines += ["", *(f"{index}. {change}" for index, change in enumerate(changes, start=1))]
        lines += ["", f"Then find {measure}. {telling}"]
    if encoding == "stdin":
        lines += ["", "-----Input-----", task.origin.stdin.format(**words)]
        output = task.telling.output.format(**dict(zip("kl", constants[-1], strict=False)))
        lines += ["", "-----Output-----", output]
    return "\n".join(lines)


def long_problems(seed: int, rounds: int = 1) -> Iterator[dict[str, Any]]:
    """Yields the long problems."""
    rng = Random(f"{seed} long")
    used: dict[str, float] = defaultdict(float)
    families: set[str] = set()
    found = attempt = 0
    while found < LONG_FAMILIES * rounds:
        attempt += 1
        task = draw_task(rng, used, 2 + attempt / 10)
        if task.family in families:
            continue
        families.add(task.family)
        first: Encoding = rng.choice(("call", "stdin"))
        themes = rng.sample(task.origin.themes, 2)
        problem = _long_problem(task, first, themes[0], seed)
        if problem is None:
            continue
        found += 1
        attempt = 0
        for name in task.names:
            used[name] += training_weight(task.family)
        yield problem
        if rng.random() < LONG_TWICE:
            other: Encoding = "stdin" if first == "call" else "call"
            problem = _long_problem(task, other, themes[1], seed)
            if problem is not None:
                yield problem


def _long_problem(task: Task, encoding: Encoding, theme: Theme, seed: int) -> dict[str, Any] | None:
    """Draws constants until the problem is fit; None when no constants will do."""
    stdin = encoding == "stdin"
    rng = Random(f"{seed} {task.family} {encoding}")
    in_class = not stdin and rng.random() < 0.5
    first, *rest = theme.title.lower().replace("'", "").split()
    name = (
        random_name(rng) if stdin else first + "".join(map(str.title, rest)) if in_class else "_".join([first, *rest])
    )
    entry_point = f"Solution.{name}" if in_class else name
    for _ in range(3):
        constants = constants_of(task, rng)
        text = render_task(task, constants, encoding, name, theme, in_class)
        blocks = sum(kind in CONDITIONALS for kind, _, _ in scope(text.solution))
        if blocks > MOST_CONDITIONALS:
            return None
        small = [constant for drawn in constants for constant in drawn]
        inputs: list[Any] = [task_arguments(task.origin.name, rng, small, turn) for turn in range(POOL)]
        if stdin:
            inputs = [task_stdin(task.origin.name, values) for values in inputs]

        def program(other: Task, values: tuple[tuple[int, ...], ...]) -> str:
            return render_task(other, values, encoding, name, theme, in_class).solution

        needed = [program(*less) for less in without_one_change(task, constants)]
        others = [program(*other) for other in neighbours(task, constants, rng)]
        tests = choose(text.solution, entry_point, stdin, inputs, needed, others)
        if tests is not None:
            difficulty = "competition" if len(task.changes) > 1 and blocks >= 5 else "interview"
            text = with_example(text, entry_point, tests[2])
            return record(text, entry_point, tests, difficulty, task.family, encoding)
    return None
