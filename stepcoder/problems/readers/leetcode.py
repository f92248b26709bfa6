"""LeetCodeDataset records: a class with one method, tests as a `check(candidate)` function of asserts."""

from __future__ import annotations

import re
from typing import Any

from stepcoder.problems.asserts import CANDIDATE, translate
from stepcoder.problems.code import signature, tidy
from stepcoder.problems.faults import FaultKind
from stepcoder.problems.problem import Difficulty, Problem
from stepcoder.problems.readers.checks import body_of_check, parsed
from stepcoder.problems.readers.fields import Fields

_DIFFICULTIES: dict[str, Difficulty] = {"Easy": "introductory", "Medium": "interview", "Hard": "competition"}
_REQUEST = "Please complete the following python code precisely:"
_PLACEHOLDER = "English description is not available"


def read(record: Any, identity: str, where: str) -> Problem:
    """One record as a problem.

    Keys: `prompt` (imports and node classes), `completion`, `entry_point`, `test`, `query`, `meta` with `difficulty`
    and, optional, `question_title` (the description with its examples) and `lang_code`. Other keys are ignored.

    Args:
        record: The decoded JSON value.
        identity: The problem's id.
        where: The record's place, for messages and for `source`.

    Raises:
        RecordError: lists every fault.
    """
    fields = Fields(record, where)
    fields.name("task_id")
    fields.no_checker("checker")
    preamble = fields.text("prompt", required=False)
    solution = tidy(fields.text("completion"))
    meta = fields.section("meta")
    difficulty = meta.difficulty("difficulty", _DIFFICULTIES)
    query = fields.text("query").partition(_REQUEST)[0]
    statement = (meta.text("question_title", required=False).strip() or query).replace("\r\n", "\n").strip()
    if statement.startswith(_PLACEHOLDER):
        fields.fail(FaultKind.EMPTY, "query", f"holds no statement but a placeholder: {statement[:80]!r}")
    entry = fields.text("entry_point")
    named = re.fullmatch(r"(?:(\w+)\(\)\.)?(\w+)", entry.strip())
    if entry.strip() and not named:
        fields.fail(FaultKind.SCHEMA, "entry_point", f"must be `Class().method` or `function`, not {entry!r}")
    entry_point = ".".join(part for part in named.groups() if part) if named else ""
    head = signature(tidy(meta.text("lang_code", required=False) or solution))
    if named and (head is None or head.entry_point != entry_point):
        fields.fail(FaultKind.SCHEMA, "meta.lang_code", f"must be the signature of {entry_point}")
    library = parsed(fields, "prompt", preamble)
    checks = body_of_check(fields, "test")
    tests = translate(checks.body, CANDIDATE, [*library, *checks.around])
    if checks.body and not tests:
        fields.fail(FaultKind.EMPTY, "test", "checks nothing")
    fields.check()
    return Problem(
        id=identity,
        statement=statement,
        starter=head.text if head else "",
        solution=solution,
        entry_point=entry_point,
        tests=tests,
        preamble=tidy(preamble) if preamble.strip() else "",
        difficulty=difficulty,
        source=where,
    )
