"""A reviewer's corrections: expected outputs that were wrong, and records to leave out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stepcoder.errors import DataError
from stepcoder.problems import AnyOf, CallTest, Checker, CheckTest, Entry, Problem, Test, values
from stepcoder.problems.files import raise_all, read_rows
from stepcoder.problems.problem import misfit


class _Correction(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    why: str = Field(min_length=1)


class Drop(_Correction):
    """Leave the record out."""

    action: Literal["drop"]


class Outputs(_Correction):
    """Expect other outputs: by the test's number from 0, standard output or the value to be returned."""

    action: Literal["outputs"]
    outputs: dict[Annotated[int, Field(ge=0)], Any] = Field(min_length=1)


Correction = Drop | Outputs

_CORRECTION: TypeAdapter[Correction] = TypeAdapter(Annotated[Correction, Field(discriminator="action")])


def read_corrections(path: Path, entries: Iterable[Entry]) -> dict[str, Correction]:
    """Reads corrections and checks that each fits a record.

    Args:
        path: JSON Lines or a JSON list of corrections.
        entries: The records that they are about.

    Returns:
        The correction of each record by its id.

    Raises:
        DataError: lists every malformed line, every id that is unknown or comes twice, and every test that cannot be
            corrected.
    """
    known = {entry.id: entry for entry in entries}
    found: dict[str, Correction] = {}
    faults = []
    for row in read_rows(path):
        if row.fault is not None:
            faults.append(f"{row.where}: {row.fault}")
            continue
        try:
            correction = _CORRECTION.validate_python(row.value)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            told = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'correction'}: {item['msg']}" for item in details)
            faults.append(f"{row.where}: {told}")
            continue
        if correction.id in found:
            faults.append(f"{row.where}: there is another correction of {correction.id!r}")
        elif correction.id not in known:
            faults.append(f"{row.where}: no record has the id {correction.id!r}")
        else:
            faults += [f"{row.where}: {fault}" for fault in _faults(correction, known[correction.id])]
        found[correction.id] = correction
    raise_all(faults)
    return found


def correct(problem: Problem, correction: Outputs) -> Problem:
    """The problem with the corrected outputs."""
    tests = list(problem.tests)
    for index, value in correction.outputs.items():
        tests[index] = _corrected(problem.checker, tests[index], value)
    return problem.model_copy(update={"tests": tuple(tests)})


def _faults(correction: Correction, entry: Entry) -> list[str]:
    if isinstance(correction, Drop):
        return []
    if entry.problem is None:
        return [f"the record {entry.id!r} cannot be read ({entry.faults[0]}); mend the record, or drop it"]
    faults = []
    for index, value in correction.outputs.items():
        if index >= len(entry.problem.tests):
            faults.append(f"outputs.{index}: the record has {len(entry.problem.tests)} tests, counted from 0")
            continue
        try:
            _corrected(entry.problem.checker, entry.problem.tests[index], value)
        except DataError as error:
            faults.append(f"outputs.{index}: {error}")
    return faults


def _corrected(checker: Checker, test: Test, value: Any) -> Test:
    """The test with another output; under the checker `any_of` a list of accepted ones."""
    corrected: Test
    if isinstance(test, CheckTest):
        raise DataError("this test is a check without an expected output; mend the record, or drop it")
    if isinstance(test, CallTest):
        try:
            corrected = test.model_copy(update={"expected": values.decode(value)})
        except ValueError as error:
            raise DataError(str(error)) from error
    else:
        outputs = value if isinstance(checker, AnyOf) and isinstance(value, list) and value else [value]
        if not all(isinstance(item, str) for item in outputs):
            raise DataError("standard output must be a string")
        corrected = test.model_copy(update={"stdout": outputs[0], "alternatives": tuple(outputs[1:])})
    fault = misfit(checker, corrected)
    if fault is not None:
        raise DataError(fault)
    return corrected
