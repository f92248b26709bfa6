"""Short problems: which parts go together, how statement and solution read, and which of them ship."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from examples.inputs import arguments, as_stdin
from examples.records import CONDITIONALS, INDENT, Encoding, Text, random_name, record, scope, training_weight
from examples.short_parts import FINISHES, REDUCTIONS, SOURCES, STEPS, VARIABLES, Finish, Kind, Reduction, Source, Step
from examples.testing import POOL, choose

Part = TypeVar("Part", Step, Reduction, Finish)

SHORT_CHARACTERS = 350
"""Statement, starter and solution of a short problem together, at most."""
TWO_PROBLEMS = 0.35
"""Share of the short families that have two problems: one of each encoding, with other constants."""
SHORT_FAMILIES = {
    "numbers": 130,
    "range": 40,
    "alternate": 30,
    "gaps": 26,
    "divisors": 26,
    "digits": 30,
    "text-digits": 26,
    "pair-sum": 18,
    "pair-difference": 18,
    "pair-product": 18,
    "words": 104,
    "text": 68,
}
"""Families of short problems by source."""
STEP_COUNTS = (0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3)
"""Steps between source and result are drawn from these."""


@dataclass(frozen=True)
class Composition:
    """What a short problem does, apart from its constants and its encoding."""

    source: Source
    steps: tuple[Step, ...]
    reduction: Reduction | None
    """None for a single value."""
    finish: Finish | None = None

    @property
    def parts(self) -> tuple[Source | Step | Reduction | Finish, ...]:
        """Every part, in the order of the statement."""
        tail = tuple(part for part in (self.reduction, self.finish) if part is not None)
        return (self.source, *self.steps, *tail)

    @property
    def family(self) -> str:
        """The names of the parts."""
        return "/".join(part.name for part in self.parts)

    @property
    def kind(self) -> Kind:
        """The kind of item that reaches the reduction."""
        kind = self.source.kind
        for step in self.steps:
            kind = step.gives or kind
        return kind


def constants_of(composition: Composition, rng: Random) -> tuple[str, ...]:
    """One constant for every part, different ones as far as they go; an empty string where a part has none."""
    chosen: list[str] = []
    for part in composition.parts:
        pool = getattr(part, "constants", ())
        free = [constant for constant in pool if constant not in chosen]
        chosen.append(rng.choice(free or pool) if pool else "")
    return tuple(chosen)


def render(composition: Composition, constants: tuple[str, ...], encoding: Encoding, name: str) -> Text:
    """Writes the statement, the signature and the reference solution."""
    source = composition.source
    body = [source.reader] if encoding == "stdin" else []
    if composition.reduction is not None:
        body.append(f"result = {composition.reduction.start}")
    body += source.head
    depth = _depth_after(source.head[-1])
    kind = source.kind
    for step, constant in zip(composition.steps, constants[1:], strict=False):
        lines = [line.format(v=VARIABLES[kind], k=constant) for line in step.lines]
        body += [INDENT * depth + line for line in lines]
        depth += step.nests
        kind = step.gives or kind
    if composition.reduction is not None:
        body += [INDENT * depth + line.format(v=VARIABLES[kind]) for line in composition.reduction.lines]
    body += _answer(composition, constants[-1], encoding)
    signature = f"def {name}({source.parameters if encoding == 'call' else ''}):"
    solution = "\n".join([signature, *(INDENT + line for line in body)])
    return Text(_statement(composition, constants, encoding), f"\n{signature}\n", solution)


def _depth_after(line: str) -> int:
    depth = (len(line) - len(line.lstrip())) // len(INDENT)
    return depth + line.endswith(":")


def _answer(composition: Composition, constant: str, encoding: Encoding) -> list[str]:
    """The last lines: what is returned or printed."""
    result = composition.reduction.returns if composition.reduction else "value"
    finish = composition.finish
    if finish is not None and finish.verdict:
        (line,) = finish.lines
        test = line.format(r=result, k=constant)
        if encoding == "call":
            return [test, '    return "yes"', 'return "no"']
        return [test, '    print("yes")', "else:", '    print("no")']
    lines = [line.format(k=constant) for line in finish.lines] if finish else []
    value = finish.returns.format(r=result) if finish else result
    if encoding == "call":
        return [*lines, f"return {value}"]
    if composition.reduction is not None and composition.reduction.gives == "list":
        return [*lines, f"print(*{value})"]
    return [*lines, f"print({value})"]


def _statement(composition: Composition, constants: tuple[str, ...], encoding: Encoding) -> str:
    source, reduction = composition.source, composition.reduction
    clauses = [source.given if encoding == "call" else source.read]
    if source.take:
        clauses.append(source.take)
    for step, constant in zip(composition.steps, constants[1:], strict=False):
        clauses.append((step.single if source.single else step.phrase).format(k=constant))
    phrase = "it" if reduction is None else reduction.phrase
    if reduction is not None and encoding == "stdin" and reduction.prints:
        phrase = reduction.prints
    if composition.finish is not None:
        phrase = composition.finish.phrase.format(r=phrase, k=constants[-1])
    verb = "return" if encoding == "call" else "print"
    if len(clauses) == 1:
        return f"{clauses[0]}, {verb} {phrase}."
    return f"{', '.join(clauses)} and {verb} {phrase}."


def draw(rng: Random, source: Source, count: int, used: dict[str, float], looseness: float) -> Composition:
    """Draws a composition with this source and number of steps.

    Args:
        rng: Decides.
        source: Where the items come from.
        count: Number of steps; a single value has one at least.
        used: How much each part was used so far; those used least are preferred.
        looseness: A part that was used this much more than another may still be drawn before it.
    """

    def least_used(parts: list[Part]) -> Part:
        return min(parts, key=lambda part: used[part.name] + rng.random() * looseness)

    kind, steps = source.kind, []
    for _ in range(max(count, 1) if source.single else count):
        fitting = [step for step in STEPS if kind in step.kinds and step not in steps]
        step = least_used([step for step in fitting if step.single or not source.single])
        steps.append(step)
        kind = step.gives or kind
    if source.single:
        return Composition(source, tuple(steps), None, rng.choice((None, None, None, FINISHES[0])))
    reduction = least_used([reduction for reduction in REDUCTIONS if kind in reduction.kinds])
    finish = None
    if reduction.gives == "number" and rng.random() < 0.5:
        finish = least_used([item for item in FINISHES if reduction.returns == "result" or item.name != "at-most"])
    return Composition(source, tuple(steps), reduction, finish)


def without_one_part(
    composition: Composition, constants: tuple[str, ...]
) -> Iterator[tuple[Composition, tuple[str, ...]]]:
    """Yields the composition with one step or the finish left out, for every one that can be."""
    for index, step in enumerate(composition.steps):
        if step.gives is None:
            rest = (*composition.steps[:index], *composition.steps[index + 1 :])
            yield replace(composition, steps=rest), (*constants[: index + 1], *constants[index + 2 :])
    if composition.finish is not None:
        yield replace(composition, finish=None), constants[:-1]


def neighbours(
    composition: Composition, constants: tuple[str, ...], rng: Random
) -> Iterator[tuple[Composition, tuple[str, ...]]]:
    """Yields compositions with one part or one constant exchanged: what a solver writes who misreads a phrase."""
    for index, part in enumerate(composition.parts):
        for constant in getattr(part, "constants", ()):
            if constant != constants[index]:
                yield composition, (*constants[:index], constant, *constants[index + 1 :])
    kind = composition.source.kind
    for index, step in enumerate(composition.steps):
        others = [other for other in STEPS if kind in other.kinds and other.gives == step.gives and other != step]
        for other in rng.sample(others, min(4, len(others))):
            constant = rng.choice(other.constants) if other.constants else ""
            steps = (*composition.steps[:index], other, *composition.steps[index + 1 :])
            yield replace(composition, steps=steps), (*constants[: index + 1], constant, *constants[index + 2 :])
        kind = step.gives or kind
    if composition.reduction is not None:
        for reduction in REDUCTIONS:
            same = reduction.gives == composition.reduction.gives or composition.finish is None
            if kind in reduction.kinds and reduction != composition.reduction and same:
                yield replace(composition, reduction=reduction), constants


def short_problems(seed: int, rounds: int = 1) -> Iterator[dict[str, Any]]:
    """Yields the short problems, family by family."""
    rng = Random(f"{seed} short")
    used: dict[str, float] = defaultdict(float)
    families: set[str] = set()
    turns = [source for source in SOURCES for _ in range(SHORT_FAMILIES[source.name])]
    for source in (source for _ in range(rounds) for source in rng.sample(turns, len(turns))):
        yield from _short_family(source, rng, used, families, seed)


def _short_family(
    source: Source, rng: Random, used: dict[str, float], families: set[str], seed: int
) -> Iterator[dict[str, Any]]:
    """Draws compositions that were not `families` before until one is fit, and yields its one or two problems."""
    for attempt in itertools.count():
        composition = draw(rng, source, rng.choice(STEP_COUNTS), used, 2 + attempt / 10)
        if composition.family in families:
            continue
        families.add(composition.family)
        first: Encoding = rng.choice(("call", "call", "stdin"))
        encodings: list[Encoding] = [first]
        if rng.random() < TWO_PROBLEMS:
            encodings.append("stdin" if first == "call" else "call")
        found = [problem for encoding in encodings if (problem := _short_problem(composition, encoding, seed))]
        if found:
            for part in composition.parts:
                used[part.name] += training_weight(composition.family)
            yield from found
            return


def _short_problem(composition: Composition, encoding: Encoding, seed: int) -> dict[str, Any] | None:
    """Draws constants until the problem is fit; None when it is too long or no constants will do."""
    stdin = encoding == "stdin"
    rng = Random(f"{seed} {composition.family} {encoding}")
    name = random_name(rng) if stdin else "solve"
    for _ in range(3):
        constants = constants_of(composition, rng)
        text = render(composition, constants, encoding, name)
        if len(text.statement) + len(text.starter) + len(text.solution) > SHORT_CHARACTERS:
            return None
        inputs: list[Any] = [arguments(composition.source.name, rng, constants, turn) for turn in range(POOL)]
        if stdin:
            inputs = [as_stdin(values) for values in inputs]
        without = [
            render(shorter, less, encoding, name).solution for shorter, less in without_one_part(composition, constants)
        ]
        others = [
            render(other, values, encoding, name).solution for other, values in neighbours(composition, constants, rng)
        ]
        tests = choose(text.solution, name, stdin, inputs, without, others)
        if tests is not None:
            parts = len(composition.parts) - 1
            blocks = sum(kind in CONDITIONALS for kind, _, _ in scope(text.solution))
            difficulty = "introductory" if parts <= 2 else "interview" if parts == 3 and blocks <= 3 else "competition"
            return record(text, name, tests, difficulty, composition.family, encoding)
    return None
