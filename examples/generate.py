"""Writes `examples/problems.jsonl`: the problems that ship, in APPS+ format with the extra key `family`.

    python -m examples.generate [--out FILE]

The same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

if __package__ in (None, ""):  # started as a file: the repository's root is not on the path then
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.compose import Composition, Encoding, constants_of, draw, neighbours, render, without_one_step
from examples.inputs import arguments, as_stdin
from examples.parts import SOURCES, Source
from examples.testing import choose, runner

SEED = 2402
OUT = Path(__file__).resolve().parent / "problems.jsonl"
SHORT_CHARACTERS = 360
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
    "pair-sum": 10,
    "pair-difference": 10,
    "pair-product": 10,
    "words": 90,
    "text": 60,
}
"""Families of short problems by source."""
STEP_COUNTS = (0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3)
"""Steps between source and result are drawn from these."""
POOL = 40
"""Inputs from which a problem's tests are chosen."""

KINDS: dict[type[ast.AST], str] = {
    ast.If: "If Statement Body",
    ast.For: "For Loop Body",
    ast.While: "While Loop Body",
    ast.FunctionDef: "Function Body",
    ast.ClassDef: "Class Body",
    ast.ListComp: "List Comprehension",
    ast.DictComp: "Dict Comprehension",
    ast.SetComp: "Set Comprehension",
    ast.GeneratorExp: "Generator Expression",
    ast.Lambda: "Lambda Expression",
}


def scope(solution: str) -> list[list[Any]]:
    """The blocks of a program as APPS+ lists them: kind, first line, last line, in the order of their starts."""
    found = [
        (node.lineno, node.col_offset, kind, node.end_lineno)
        for node in ast.walk(ast.parse(solution))
        if (kind := KINDS.get(type(node)))
    ]
    return [[kind, first, last] for first, _, kind, last in sorted(found)]


def record(
    statement: str, starter: str, solution: str, inputs: list[Any], difficulty: str, family: str, identifier: str
) -> dict[str, Any]:
    """One problem in APPS+ format; the outputs come from running the solution."""
    signature = ast.parse(starter + "        pass").body[-1]
    assert isinstance(signature, ast.FunctionDef | ast.ClassDef)
    if isinstance(signature, ast.ClassDef):
        (method,) = signature.body
        assert isinstance(method, ast.FunctionDef)
        entry_point = f"{signature.name}.{method.name}"
    else:
        entry_point = signature.name
    stdin = isinstance(inputs[0], str)
    run = runner(solution, entry_point, stdin)
    outputs = [run(given) for given in inputs]
    return {
        "prompt": f'{starter}    """{statement}\n    """\n',
        "canonical_solution": solution,
        "inputs": inputs if stdin else [[_quoted(value) for value in given] for given in inputs],
        "outputs": outputs if stdin else [[_quoted(value)] for value in outputs],
        "starter_code": starter,
        "scope": scope(solution),
        "difficulty": difficulty,
        "id": identifier,
        "family": family,
    }


def _quoted(value: Any) -> Any:
    """A string at the top level is written as a Python literal."""
    return repr(value) if isinstance(value, str) else value


def short_problems(seed: int) -> Iterator[dict[str, Any]]:
    """Yields the short problems, family by family."""
    rng = Random(f"{seed} short")
    used: Counter[str] = Counter()
    families: set[str] = set()
    for source in rng.sample(
        turns := [source for source in SOURCES for _ in range(SHORT_FAMILIES[source.name])], len(turns)
    ):
        yield from _short_family(source, rng, used, families, seed)


def _short_family(
    source: Source, rng: Random, used: Counter[str], families: set[str], seed: int
) -> Iterator[dict[str, Any]]:
    """Draws compositions that were not `families` before until one is fit, and yields its one or two problems."""
    while True:
        composition = draw(rng, source, rng.choice(STEP_COUNTS), used)
        if composition.family in families:
            continue
        families.add(composition.family)
        first: Encoding = rng.choice(("call", "call", "stdin"))
        encodings: list[Encoding] = [first]
        if rng.random() < TWO_PROBLEMS:
            encodings.append("stdin" if first == "call" else "call")
        found = [problem for encoding in encodings if (problem := _short_problem(composition, encoding, seed))]
        if found:
            used.update(part.name for part in composition.parts)
            yield from found
            return


def _short_problem(composition: Composition, encoding: Encoding, seed: int) -> dict[str, Any] | None:
    """Draws constants until the problem is fit; None when it is too long or no constants will do."""
    stdin = encoding == "stdin"
    rng = Random(f"{seed} {composition.family} {encoding}")
    name = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") for _ in range(5))
    if encoding == "call":
        name = "solve"
    for _ in range(3):
        constants = constants_of(composition, rng)
        text = render(composition, constants, encoding, name)
        if len(text.statement) + len(text.starter) + len(text.solution) > SHORT_CHARACTERS:
            return None
        inputs: list[Any] = [arguments(composition.source.name, rng, constants, turn) for turn in range(POOL)]
        if stdin:
            inputs = [as_stdin(values) for values in inputs]
        without = [
            render(shorter, less, encoding, name).solution for shorter, less in without_one_step(composition, constants)
        ]
        others = [
            render(other, values, encoding, name).solution for other, values in neighbours(composition, constants, rng)
        ]
        tests = choose(text.solution, name, stdin, inputs, without, others)
        if tests is not None:
            steps = len(composition.parts) - 1
            difficulty = "introductory" if steps <= 2 else "interview" if steps == 3 else "competition"
            identifier = f"{composition.family.replace('/', '.')}.{encoding}"
            return record(
                text.statement, text.starter, text.solution, tests, difficulty, composition.family, identifier
            )
    return None


def problems(seed: int = SEED) -> list[dict[str, Any]]:
    """All problems that ship, in the order of the file."""
    return list(short_problems(seed))


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of every choice (default: %(default)s)")
    options = parser.parse_args()
    lines = [json.dumps(problem, ensure_ascii=False) for problem in problems(options.seed)]
    aside = options.out.with_name(options.out.name + ".part")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(options.out)
    print(f"{len(lines)} problems written to {options.out}")


if __name__ == "__main__":
    main()
