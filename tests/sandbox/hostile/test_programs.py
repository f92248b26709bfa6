"""No hostile program gets a pass, does harm, learns a secret or spoils the next; right programs pass."""

from __future__ import annotations

import ast
import itertools
import os
import secrets
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import (
    checkers,
    checks,
    clocks,
    controls,
    equality,
    files,
    forging,
    kernel,
    leaks,
    leaving,
    leniency,
    network,
    patching,
    poison,
    processes,
    reading,
    resources,
)
from hostile.case import BREACH, LIMITS, Case, Control
from hostile.host import Host
from hostile.text import fill, words_of
from stepcoder.problems import CallTest, Checker, Exact, Test
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, Verdict, open_sandbox

LOCAL = ("local", "unsafe")
ADDRESS = os.environ.get("STEPCODER_TEST_SANDBOX", "local")
HERE = os.environ.get("STEPCODER_TEST_SANDBOX_HERE", "1" if ADDRESS in LOCAL else "0") == "1"
"""Whether programs run on this machine, so that its files, processes and sockets are what they would harm."""
ANYWHERE = {"@NAME@", "@KEY@", "@SECRET@"}
RIGHT = "def f(a, b):\n    return a + b"
ADD: tuple[Test, ...] = (CallTest.of((1, 2), 3), CallTest.of((5, 5), 10))
ROOMY = Limits(cpu_seconds=3.0, wall_seconds=10.0, memory_mib=512, output_bytes=1 << 16)
EXACT = Exact()
SLACK_SECONDS = 10.0

FAMILIES = (
    *(leaving, equality, patching, reading, forging, clocks, leniency, leaks),
    *(files, processes, network, kernel, poison, resources, checks, checkers),
)
CASES = [
    pytest.param(case, id=f"{family.__name__.rpartition('.')[2]}: {case.name}")
    for family in FAMILIES
    for case in family.CASES
]


TEETH = {
    *("files: writes a file", "files: removes a file", "files: changes permissions", "files: changes the times"),
    *("files: renames a file", "files: makes a link", "files: links a file under another name"),
    *("leaks: the environment of a neighbour", "leaks: the names of all processes", "leaks: a file of tokens"),
    *("leaks: the weights", "leaks: a listing of the folder", "leaks: shared memory of a neighbour"),
    *("processes: kills it", "processes: stops it", "processes: lowers its priority", "processes: takes its cores"),
    *("processes: has the kernel signal it when data comes", "processes: signals it by a descriptor"),
    *("network: TCP", "network: UDP", "network: a name in the file system", "network: an abstract name"),
    *("resources: shared memory of System V", "resources: semaphores of System V"),
}
"""Programs that harm canaries as any user may, and nothing else."""


class Bench:
    """A sandbox of one slot, so that a program meets what the one before it left."""

    def __init__(self, sandbox: Sandbox, host: Host | None) -> None:
        self.host = host
        self._sandbox = sandbox
        self._runs = itertools.count(1)

    def judge(self, program: str, tests: tuple[Test, ...], limits: Limits, checker: Checker = EXACT) -> Verdict:
        """A verdict, never from the cache."""
        run = next(self._runs)
        text = f"{program}\n# {run} {secrets.token_hex(4)}\n"
        job = Job("job", text, tests, "f", limits=limits, run=run, branches=True, checker=checker)
        return self._sandbox.judge([job])[0]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    host = Host(tmp_path_factory.mktemp("canaries")) if HERE else None
    with pytest.MonkeyPatch.context() as patch:
        if host is not None:
            patch.setenv("STEPCODER_TEST_TOKEN", host.secret)
        with open_sandbox(ADDRESS, slots=None if "://" in ADDRESS else 1) as sandbox:
            yield Bench(sandbox, host)
    if host is not None:
        host.end()


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_program_gets_no_pass_and_does_no_harm(bench: Bench, case: Case) -> None:
    if bench.host is None and words_of(case.program, case.before) - ANYWHERE:
        pytest.skip(f"needs canaries on the machine of the sandbox, which is at {ADDRESS}")
    answer = f"answer-{secrets.token_hex(8)}"
    if bench.host is None:
        secret = f"canary-{secrets.token_hex(12)}"
        words: dict[str, object] = {"@NAME@": f"sc{secrets.token_hex(6)}", "@KEY@": 1 + secrets.randbelow(1 << 30)}
        words["@SECRET@"] = secret
    else:
        bench.host.begin(answer)
        words, secret = bench.host.words(), bench.host.secret
    if case.before:
        bench.judge(fill(case.before, words), ADD, LIMITS)
    tests = case.tests(answer)
    started = time.monotonic()
    program = fill(case.program, words)
    verdict = bench.judge(program, tests, case.limits, case.checker)
    seconds = time.monotonic() - started
    faults = faults_of(verdict, case, answer, secret, statements_in(program))
    if seconds > SLACK_SECONDS + case.limits.wall_seconds * (len(tests) + 1):
        faults.append(f"the verdict took {seconds:.1f} s")
    for right in (RIGHT, textwrap.dedent(case.after)) if case.after else (RIGHT,):
        after = bench.judge(right, ADD, ROOMY)
        if not after.passed:
            faults.append(f"a right program after it: {after.tests[0]}")
    if bench.host is not None:
        faults += bench.host.harm()
    assert not faults, "\n".join([*faults, f"must not happen: {case.harm or 'a pass'}", repr(verdict.tests[0])])


@pytest.mark.skipif(not HERE, reason="shows harm on this machine, where the sandbox is not")
@pytest.mark.parametrize("case", [case for case in CASES if case.id in TEETH])
def test_the_same_program_does_its_harm_where_nothing_keeps_it(bench: Bench, case: Case, tmp_path: Path) -> None:
    # Shows that the canaries notice, and that the programs are not harmless for a fault of their own.
    assert bench.host is not None
    bench.host.begin("answer-")
    program = f"{fill(case.program, bench.host.words())}\nprint(f(1))\n"
    if "pidfd" in program and not has_pidfd():
        pytest.skip("this kernel (gVisor) has no descriptors of processes")
    end = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert bench.host.harm() or bench.host.secret in end.stdout, f"no harm: {end.stdout} {end.stderr}"


def has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def statements_in(program: str) -> int | None:
    """How many statements a program has, docstrings of functions and classes apart; None: too deep to say."""
    try:
        nodes = list(ast.walk(ast.parse(program)))
    except (SyntaxError, RecursionError):
        return None
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docstrings = [node for node in nodes if isinstance(node, documented) and ast.get_docstring(node) is not None]
    return sum(isinstance(node, ast.stmt) for node in nodes) - len(docstrings)


def faults_of(verdict: Verdict, case: Case, answer: str, secret: str, statements: int | None) -> list[str]:
    """What is wrong with a verdict on a hostile program of so many statements."""
    faults = []
    if verdict.passed:
        faults.append("it passes")
    outcomes = {test.outcome for test in verdict.tests} - {Outcome.NOT_RUN}
    if outcomes - case.allowed:
        faults.append(f"outcomes {sorted(outcomes - case.allowed)} are not among {sorted(case.allowed)}")
    elif Outcome.COMPILE_ERROR not in outcomes and statements not in (None, len(verdict.statements)):
        faults.append(f"the verdict has {len(verdict.statements)} of {statements} statements")
    if secret in repr(verdict):
        faults.append("the secret is in the verdict")
    if BREACH in repr(verdict):
        faults.append("it says that it got through")
    # The detail quotes the expected value, for people; the program's own words must not hold it.
    if any(answer in f"{test.exception}{test.stdout_tail}" for test in verdict.tests):
        faults.append("the answer is in what the program said")
    return faults


@pytest.mark.parametrize("control", controls.CONTROLS, ids=lambda control: control.name)
def test_a_right_program_in_unusual_form_passes(bench: Bench, control: Control) -> None:
    verdict = bench.judge(textwrap.dedent(control.program), control.tests, ROOMY)
    assert verdict.passed, verdict.tests
