"""A problem as an APPS+ record, with the extra key `family`."""

from __future__ import annotations

import ast
import string
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from examples.testing import runner
from stepcoder.problems import Problem, split_of

Encoding = Literal["call", "stdin"]
INDENT = "    "

CONDITIONALS = ("If Statement Body", "For Loop Body", "While Loop Body")
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


@dataclass(frozen=True)
class Text:
    """How a problem reads."""

    statement: str
    starter: str
    solution: str


def scope(solution: str) -> list[list[Any]]:
    """The blocks of a program as APPS+ lists them: kind, first line, last line, in the order of their starts."""
    found = []
    for node in ast.walk(ast.parse(solution)):
        kind = KINDS.get(type(node))
        if kind is not None and isinstance(node, ast.stmt | ast.expr) and node.end_lineno is not None:
            found.append((node.lineno, node.col_offset, kind, node.end_lineno))
    return [[kind, first, last] for first, _, kind, last in sorted(found)]


def record(
    text: Text, entry_point: str, inputs: list[Any], difficulty: str, family: str, encoding: Encoding
) -> dict[str, Any]:
    """One problem in APPS+ format; the outputs come from running the solution."""
    stdin = encoding == "stdin"
    run = runner(text.solution, entry_point, stdin)
    outputs = [run(given) for given in inputs]
    margin = "        " if "." in entry_point else "    "
    return {
        "prompt": f'{text.starter}{margin}"""{text.statement}\n{margin}"""\n',
        "canonical_solution": text.solution,
        "inputs": inputs if stdin else [[_quoted(value) for value in given] for given in inputs],
        "outputs": outputs if stdin else [[_quoted(value)] for value in outputs],
        "starter_code": text.starter,
        "scope": scope(text.solution),
        "difficulty": difficulty,
        "id": f"{family.replace('/', '.')}.{encoding}",
        "family": family,
    }


def _quoted(value: Any) -> Any:
    """A string at the top level is written as a Python literal."""
    return repr(value) if isinstance(value, str) else value


def with_example(text: Text, entry_point: str, given: Any) -> Text:
    """Appends one test to the statement, the way its encoding shows it."""
    value = runner(text.solution, entry_point, isinstance(given, str))(given)
    if isinstance(given, str):
        example = f"-----Example-----\nInput\n{given}\nOutput\n{value}".rstrip()
    else:
        name = entry_point.rpartition(".")[2]
        example = f"Example: {name}({', '.join(map(repr, given))}) returns {value!r}."
    return replace(text, statement=f"{text.statement}\n\n{example}")


def training_weight(family: str) -> float:
    """How much a family counts when parts are drawn evenly: those that train count most, so no part is rare there."""
    problem = Problem(id="", statement="", starter="", solution="", entry_point="", tests=(), family=family)
    return 1.0 if split_of(problem) == "train" else 0.2


def random_name(rng: Random) -> str:
    """The name of a function without meaning, as problems with standard input have in APPS+."""
    return "".join(rng.choice(string.ascii_uppercase + string.ascii_lowercase) for _ in range(5))
