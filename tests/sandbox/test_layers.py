"""What holds a program when the kernel has only some of the layers: here by leaving the others out."""

from __future__ import annotations

import os
import sysconfig
import textwrap
from collections.abc import Callable, Iterator

import pytest

from stepcoder.errors import StepCoderError
from stepcoder.problems import CallTest, StdinTest
from stepcoder.sandbox import Job, Limits, Outcome, Verdict, layers
from stepcoder.sandbox.inside import landlock
from stepcoder.sandbox.layers import Layers
from stepcoder.sandbox.prepared import prepare
from stepcoder.sandbox.slot import Slot

FOLDERS = [sysconfig.get_path("purelib")]
LIMITS = Limits(cpu_seconds=1, wall_seconds=10)
FULL, NO_SCOPES, NO_LANDLOCK, NOTHING = Layers(6, True), Layers(5, True), Layers(0, True), Layers(0, False)
SEALED = {"full": FULL, "no scopes": NO_SCOPES, "no Landlock": NO_LANDLOCK}

Run = Callable[..., Verdict]


def runner(found: Layers, unsafe: bool = False) -> Iterator[Run]:
    slot = Slot(layers.settings(found, FOLDERS, unsafe))

    def run(body: str, *, before: str = "import os", entry: str = "f", stdin: str | None = None) -> Verdict:
        if stdin is None:
            program = f"{before}\ndef f():\n{textwrap.indent(textwrap.dedent(body), '    ')}"
            tests: tuple[CallTest | StdinTest, ...] = (CallTest.of((), "ok"),)
        else:
            program, tests = textwrap.dedent(body), (StdinTest(stdin=stdin, stdout=stdin),)
        return slot.judge(Job("x", program, tests, entry, limits=LIMITS), prepare(tests))

    yield run
    slot.restart()


@pytest.fixture(scope="module", params=SEALED.values(), ids=SEALED)
def sealed(request: pytest.FixtureRequest) -> Iterator[Run]:
    if request.param.landlock > landlock.version():
        pytest.skip("this kernel's Landlock is older")
    yield from runner(request.param)


def test_the_table_of_what_lacks() -> None:
    assert FULL.lacking == ()
    assert NO_SCOPES.lacking == ("Landlock's signal scope",)
    assert NO_LANDLOCK.lacking == ("Landlock",)
    assert NOTHING.lacking == ("system-call filter", "Landlock")


def test_without_filters_nothing_starts_unless_told() -> None:
    with pytest.raises(StepCoderError, match=r"does not filter system calls .* `--sandbox unsafe`"):
        layers.settings(NOTHING, FOLDERS, unsafe=False)
    for run in runner(NOTHING, unsafe=True):
        assert run("return 'ok'").passed
        assert run("pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nreturn 'ok'").passed


def test_this_machine_is_asked_and_not_assumed() -> None:
    found = layers.detect()
    assert found.filters
    assert found.landlock == landlock.version()


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getppid(), 0)",
        "os.kill({owner}, 0)",
        "os.kill(1, 0)",
        "os.killpg(os.getpgid(os.getppid()), 0)",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], dict())",
        "os.execv('/bin/true', ['true'])",
        "__import__('socket').socket()",
        "__import__('socket').socketpair(type=__import__('socket').SOCK_DGRAM)",
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "open('/tmp/stepcoder-left', 'w')",
        "os.mkdir('/tmp/stepcoder-left')",
        "os.unlink('/tmp/stepcoder-nothing')",
        "os.chmod('/tmp', 0o1777)",
        "os.memfd_create('x')",
        "os.listdir('/')",
        "os.setpriority(os.PRIO_PROCESS, 0, 19)",
        "os.pidfd_open(os.getppid())",
        "os.setsid()",
        "os.wait()",
    ],
)
def test_a_program_reaches_nothing_outside(sealed: Run, body: str) -> None:
    text = body.replace("{owner}", str(os.getpid()))
    tried = f"try:\n    {text}\nexcept OSError as error:\n    return 'ok' if error.errno in REFUSED else repr(error)"
    verdict = sealed(f"{tried}\nreturn 'reached'", before="import os\nREFUSED = (1, 2, 13, 38)")
    assert verdict.passed, verdict.tests


def test_what_programs_need_still_works(sealed: Run) -> None:
    assert sealed("return str(np.arange(3).sum()).replace('3', 'ok')", before="import numpy as np").passed
    thread = "found = []\nthread = threading.Thread(target=lambda: found.append('ok'))\nthread.start()\nthread.join()"
    assert sealed(f"{thread}\nreturn found[0]", before="import threading").passed
    assert sealed("return asyncio.run(asyncio.sleep(0.01, 'ok'))", before="import asyncio").passed
    assert sealed("open(os.devnull, 'w').write('x')\nreturn 'ok'").passed
    for read in ("open('/dev/stdin').read()", "open(0).read()", "__import__('sys').stdin.buffer.read().decode()"):
        assert sealed(f"def main():\n    print({read})\n", entry="main", stdin="3 4\n").passed


def test_signals_stay_inside_where_there_is_nothing_but_the_filter() -> None:
    for run in runner(NO_LANDLOCK):
        verdict = run("os.kill(os.getpid(), 9)")
        assert verdict.outcome is Outcome.RUNTIME_ERROR
        assert "PermissionError" in (verdict.tests[0].exception or "")
