"""APPS+ records (STEPCODER.md section 1), the format of the shipped problems too."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

from stepcoder.problems.checker import AnyOf
from stepcoder.problems.code import signature, syntax_fault, tidy
from stepcoder.problems.conditionals import Conditional, Kind, conditionals
from stepcoder.problems.faults import FaultKind
from stepcoder.problems.problem import CallTest, Problem, StdinTest, Test, misfit
from stepcoder.problems.readers.fields import Fields

_SCOPES: dict[str, Kind] = {"If Statement Body": "if", "For Loop Body": "for", "While Loop Body": "while"}


def read(record: Any, identity: str, where: str) -> Problem:
    """One record as a problem.

    Keys: `prompt`, `canonical_solution`, `inputs`, `outputs`, `starter_code`, `difficulty`; optional `scope`, `id`,
    `family`, `checker`. Other keys are ignored. Under the checker `any_of` each entry of `outputs` is the list of
    accepted outputs, or of accepted values.

    Args:
        record: The decoded JSON value.
        identity: The problem's id.
        where: The record's place, for messages and for `source`.

    Raises:
        RecordError: lists every fault.
    """
    fields = Fields(record, where)
    statement = _statement(fields, fields.text("prompt"))
    solution = fields.text("canonical_solution")
    head = _starter(fields, fields.text("starter_code"))
    checker = fields.checker("checker")
    tests = _tests(fields, fields.items("inputs"), fields.items("outputs"), isinstance(checker, AnyOf))
    for index, test in enumerate(tests):
        fault = misfit(checker, test)
        if fault is not None:
            fields.fail(FaultKind.SCHEMA, f"outputs[{index}]", fault)
    difficulty = fields.difficulty("difficulty")
    family = fields.name("family")
    fields.name("id")
    if head and any(isinstance(test, StdinTest) for test in tests) and _takes_arguments(head[0]):
        message = "has parameters, but the tests give standard input: such a function is called without arguments"
        fields.fail(FaultKind.SCHEMA, "starter_code", message)
    if fields.has("scope"):
        _check_scope(fields, fields.items("scope", required=False), solution)
    fields.check()
    starter, entry_point = head or ("", "")
    return Problem(
        id=identity,
        statement=statement,
        starter=starter,
        solution=tidy(solution),
        entry_point=entry_point,
        tests=tests,
        checker=checker,
        difficulty=difficulty,
        family=family,
        source=where,
    )


def _statement(fields: Fields, prompt: str) -> str:
    """The docstring, as it is written: it is not a literal that Python has read, so nothing is unescaped."""
    if not prompt.strip():
        return ""
    first, last = prompt.find('"""'), prompt.rfind('"""')
    if first < 0 or last == first:
        fields.fail(FaultKind.SCHEMA, "prompt", 'has no docstring in """…""" that holds the statement')
        return ""
    statement = prompt[first + 3 : last].replace("\r\n", "\n").strip()
    if not statement:
        fields.fail(FaultKind.EMPTY, "prompt", "its docstring, which holds the statement, is empty")
    return statement


def _starter(fields: Fields, code: str) -> tuple[str, str] | None:
    """Starter code up to the end of its signature, and the entry point."""
    if not code.strip():
        return None
    found = signature(tidy(code))
    if found is None or syntax_fault(found.text.rstrip("\n") + " pass\n"):
        message = f"must be the signature to complete (`def f(…):`, alone or in a class), not {code.strip()[:80]!r}"
        fields.fail(FaultKind.SCHEMA, "starter_code", message)
        return None
    return found.text, found.entry_point


def _takes_arguments(starter: str) -> bool:
    tree = ast.parse(starter.rstrip("\n") + " pass\n")
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    needed = len(function.args.posonlyargs) + len(function.args.args) - len(function.args.defaults)
    return needed > isinstance(tree.body[-1], ast.ClassDef)


def _tests(fields: Fields, inputs: list[Any], outputs: list[Any], any_of: bool) -> tuple[Test, ...]:
    if not inputs or not outputs:
        return ()
    if len(inputs) != len(outputs):
        fields.fail(FaultKind.SCHEMA, "outputs", f"has {len(outputs)} entries, `inputs` has {len(inputs)}")
        return ()
    pairs = list(zip(inputs, outputs, strict=True))
    if all(isinstance(given, str) and _is_output(wanted, any_of) for given, wanted in pairs):
        return tuple(_stdin_test(given, wanted) for given, wanted in pairs)
    tests = []
    for index, (given, wanted) in enumerate(pairs):
        if not isinstance(given, list) or not isinstance(wanted, list) or not (wanted if any_of else len(wanted) == 1):
            fields.fail(
                FaultKind.SCHEMA,
                f"inputs[{index}], outputs[{index}]",
                "must be two strings in every test (standard input and output), or in every test a list with one "
                "value an argument and a list with the one expected value"
                + (". Under the checker 'any_of' an output is a non-empty list of them" if any_of else ""),
            )
            continue
        args = [_decode(fields, f"inputs[{index}][{place}]", value) for place, value in enumerate(given)]
        expected = [_decode(fields, f"outputs[{index}][{place}]", value) for place, value in enumerate(wanted)]
        try:
            tests.append(CallTest.of(tuple(args), expected if any_of else expected[0]))
        except ValueError as error:
            fields.fail(FaultKind.SCHEMA, f"inputs[{index}], outputs[{index}]", str(error))
    return tuple(tests)


def _is_output(wanted: Any, any_of: bool) -> bool:
    if any_of and isinstance(wanted, list):
        return bool(wanted) and all(isinstance(item, str) for item in wanted)
    return isinstance(wanted, str)


def _stdin_test(given: str, wanted: str | list[str]) -> StdinTest:
    stdout, *others = [wanted] if isinstance(wanted, str) else wanted
    return StdinTest(stdin=given, stdout=stdout, alternatives=tuple(others))


def _decode(fields: Fields, field: str, value: Any) -> Any:
    """A top-level string is a Python string literal in quotes; every other value is itself."""
    if not isinstance(value, str):
        return value
    try:
        text = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        text = None
    if not isinstance(text, str):
        shown = value if len(value) <= 60 else value[:60] + "…"
        fields.fail(FaultKind.SCHEMA, field, f"a top-level string must be a Python string in quotes, not {shown!r}")
    return text


def _check_scope(fields: Fields, scope: list[Any], solution: str) -> None:
    """Compares the If, For and While entries of `scope` with the solution's own."""
    listed: Counter[Conditional] = Counter()
    for index, entry in enumerate(scope):
        match entry:
            case [str(kind), int(first), int(last)]:
                if kind in _SCOPES:
                    listed[Conditional(_SCOPES[kind], first, last)] += 1
            case _:
                fields.fail(
                    FaultKind.SCHEMA, f"scope[{index}]", f"must be [kind, first line, last line], not {entry!r}"
                )
                return
    if not solution.strip() or syntax_fault(solution):
        return
    found = Counter(conditionals(solution))
    differences = [f"lists {_show(item)}, which the solution has not" for item in sorted((listed - found).elements())]
    differences += [f"lacks {_show(item)} of the solution" for item in sorted((found - listed).elements())]
    if differences:
        fields.fail(FaultKind.SCOPE, "scope", "; ".join(differences[:5]) + "; remove the key or compute it anew")


def _show(item: Conditional) -> str:
    return f"`{item.kind}` in lines {item.first_line}-{item.last_line}"
