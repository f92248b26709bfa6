"""A sandbox for the tests of this folder, and jobs for two small problems."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator

import pytest

from stepcoder.problems import CallTest, StdinTest, Test
from stepcoder.sandbox import Job, Limits, Sandbox, Verdict, open_sandbox

TIGHT = Limits(cpu_seconds=0.3, wall_seconds=10.0, memory_mib=256, output_bytes=1 << 16)

ADD: tuple[Test, ...] = (CallTest.of((1, 2), 3), CallTest.of((5, 5), 10))
SUM: tuple[Test, ...] = (StdinTest(stdin="3 4\n", stdout="7\n"), StdinTest(stdin="1\n2 3\n", stdout="6\n"))

Judge = Callable[..., Verdict]


@pytest.fixture(scope="module")
def one_slot() -> Iterator[Sandbox]:
    """A pool of one slot, so that a program meets what the one before it left."""
    with open_sandbox(slots=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def judge(one_slot: Sandbox) -> Judge:
    """Judges one program; never answered from the cache."""
    runs = itertools.count(1)

    def run(
        program: str, tests: tuple[Test, ...] = ADD, entry: str = "f", limits: Limits = TIGHT, **more: object
    ) -> Verdict:
        job = Job("job", textwrap.dedent(program), tests, entry, limits=limits, run=next(runs), **more)  # type: ignore[arg-type]
        return one_slot.judge([job])[0]

    return run
