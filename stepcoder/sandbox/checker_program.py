"""A problem's checker program: asked in a process of its own whether an answer is right.

It is sent data alone: the input, the expected answer, and the program's answer as what the judge has decoded and
bounded. So a program can influence it by a value only, and a value that keeps it from answering is a wrong one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from stepcoder.problems.checker import CheckerProgram
from stepcoder.sandbox import compare
from stepcoder.sandbox.bench import Bench
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.inside.child import PROGRAM
from stepcoder.sandbox.session import Program, Session
from stepcoder.sandbox.words import brief_claim


def objection(bench: Bench, checker: CheckerProgram, arguments: list[Any]) -> str | None:
    """Why a checker program does not accept an answer.

    Args:
        bench: the job that is judged.
        checker: the problem's checker.
        arguments: its arguments as tagged JSON.

    Returns:
        A sentence for a person; None if the checker's answer is `True`.

    Raises:
        ZygoteError: a process of the judge is gone.
    """
    compiled = bench.compiler.compile_once(checker.code, PROGRAM, bench.job.limits)
    if compiled.rejection is not None:
        return f"the checker does not compile: {compiled.rejection.exception or compiled.rejection.detail}"
    try:
        request = json.dumps({"test": 0, "args": arguments, "kwargs": {}}).encode()
    except RecursionError:  # a forged value: an honest one is told to be too deep where it arises
        return "a value nested too deep to be right"
    job = replace(bench.job, program=checker.code, preamble="", entry_point=checker.entry_point)
    program = Program(None, compiled, bytearray())
    with Session(bench.zygote, job, program, "checker") as session:
        session.start(frames.pack(frames.TEST, request))
        report = session.loaded()
        claim = session.claim(0) if report == {} else report
    if claim is None:
        return f"the checker gives no answer: {session.silent().detail}"
    if "exception" in claim:
        place = f", in its line {claim['line']}" if claim["line"] else ", before its first line"
        return f"the checker fails: {claim['exception']}{place}"
    if claim.get("value") is True:
        return None
    if claim.get("value") is False:
        return "the checker rejects it"
    readable = "value" in claim and compare.is_well_formed(claim["value"])
    told = brief_claim(claim["value"]) if readable else "a value too large or too deep"
    return f"the checker answers neither True nor False: {told}"
