"""The pool: verdicts do not depend on slots, order or accidents, and nothing stays behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder.errors import DataError, StepCoderError
from stepcoder.problems import CallTest, CheckTest, Problem, StdinTest, Test
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, Verdict, job_of, open_sandbox, supervisor
from stepcoder.sandbox.pool import Pool
from stepcoder.sandbox.supervisor import Supervisor

LIMITS = Limits(cpu_seconds=0.3, wall_seconds=10.0, memory_mib=256)
TESTS: tuple[Test, ...] = (
    CallTest.of((1, 2), 3),
    CheckTest(code="assert candidate(2, 2) == 4"),
    StdinTest(stdin="", stdout="hello\n"),
)
PROGRAMS = {
    "right": "def f(*a):\n    return sum(a) if a else print('hello')",
    "wrong": "def f(*a):\n    return 0",
    "raises": "def f(*a):\n    if a == (1, 2): return 3\n    raise KeyError(*a)",
    "broken": "def f(*a:",
    "loops": "def f(*a):\n    while a == (2, 2): pass\n    return sum(a)",
    "dies": "import os\ndef f(*a):\n    os._exit(len(a))",
    "nothing": "",
}


def stable(verdict: Verdict) -> object:
    """A verdict without what is measured."""
    tests = [(t.outcome, t.exception, t.line, t.stdout_tail, t.detail) for t in verdict.tests]
    return verdict.outcome, tests, verdict.statements


def jobs(run: int = 0) -> list[Job]:
    return [Job(name, program, TESTS, "f", limits=LIMITS, run=run) for name, program in PROGRAMS.items()]


@pytest.fixture(scope="module")
def alone() -> dict[str, object]:
    """Each program's verdict when it is the only one in a pool of one slot."""
    verdicts = {}
    for job in jobs():
        with open_sandbox(slots=1) as sandbox:
            verdicts[job.id] = stable(sandbox.judge([job])[0])
    return verdicts


def children(parent: int) -> set[int]:
    found: set[int] = set()
    # A thread or a process may end between two looks.
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


def supervisors() -> set[int]:
    """Those of this process; servers that other tests have started here are not meant."""
    return children(os.getpid()) & sandbox_processes()


def tree(parent: int) -> set[int]:
    """A process and all that it started, and what that started."""
    return {parent}.union(*map(tree, children(parent)))


def processes() -> set[int]:
    """The sandboxes' of this process."""
    return set[int]().union(*map(tree, supervisors()))


@settings(max_examples=3, deadline=None)
@given(slots=st.integers(1, 4), order=st.permutations(sorted(PROGRAMS)), run=st.integers(0, 3))
def test_a_verdict_depends_neither_on_slots_nor_on_order(
    alone: dict[str, object], slots: int, order: list[str], run: int
) -> None:
    by_name = {job.id: job for job in jobs(run)}
    with open_sandbox(slots=slots) as sandbox:
        verdicts = sandbox.judge([by_name[name] for name in order])
    assert [verdict.id for verdict in verdicts] == order
    assert {verdict.id: stable(verdict) for verdict in verdicts} == alone


def test_a_killed_zygote_is_replaced_and_the_job_tried_again() -> None:
    before = processes()
    with open_sandbox(slots=1) as sandbox:
        assert sandbox.judge(jobs()[:1])[0].passed
        for run in range(1, 4):
            (pid,) = supervisors() - before
            (zygote,) = children(pid)
            os.kill(zygote, signal.SIGKILL)
            assert sandbox.judge(jobs(run)[:1])[0].passed
    assert processes() == before


def test_closing_leaves_no_process_no_thread_and_no_descriptor() -> None:
    with open_sandbox(slots=1) as sandbox:  # what the first use opens for good
        sandbox.judge(jobs()[:1])
    before = processes(), threading.active_count(), len(os.listdir("/proc/self/fd"))
    sandbox = open_sandbox(slots=3)
    sandbox.judge(jobs())
    looping = Job(
        "loop", "def f(a, b):\n    while True: pass", TESTS[:1], "f", limits=Limits(cpu_seconds=60, wall_seconds=60)
    )
    running = sandbox.submit(looping)
    time.sleep(0.2)
    started = time.monotonic()
    sandbox.close()
    sandbox.close()
    assert time.monotonic() - started < 8
    assert running.result(timeout=30).outcome is Outcome.INFRA_ERROR
    assert (processes(), threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_jobs_that_wait_when_the_pool_closes_are_answered() -> None:
    sandbox = open_sandbox(slots=1)
    futures = [
        sandbox.submit(Job(str(i), f"import time\ndef f(a, b):\n    time.sleep(9)\n    return {i}", TESTS[:1], "f"))
        for i in range(5)
    ]
    time.sleep(0.1)
    sandbox.close()
    assert {future.result(timeout=30).outcome for future in futures} == {Outcome.INFRA_ERROR}
    assert sandbox.submit(jobs()[0]).result(timeout=30).outcome is Outcome.INFRA_ERROR


SCRIPT = """
    import signal, sys, time
    # A test run in the background ignores the signal, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, {root!r})
    from stepcoder.problems import CallTest
    from stepcoder.sandbox import Job, Limits, open_sandbox
    limits = Limits(cpu_seconds=60, wall_seconds=60)
    with open_sandbox(slots=2) as sandbox:
        print("ready", flush=True)
        programs = [f"def f():\\n    while True: {{i}}" for i in range(4)]
        sandbox.judge([Job("x", program, (CallTest.of((), 1),), "f", limits=limits) for program in programs])
"""


def start_script() -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT.format(root=str(Path(__file__).parents[2])))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def sandbox_processes() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"stepcoder.sandbox.supervision" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_or_killed_owner(how: signal.Signals) -> None:
    process = start_script()
    deadline = time.monotonic() + 20
    mine: set[int] = set()
    while len(mine) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        mine = {pid for pid in sandbox_processes() if _owner(pid) == process.pid}
    assert len(mine) == 2
    below = [pid for supervisor in mine for pid in tree(supervisor) - {supervisor}]
    assert len(below) >= 2
    os.kill(process.pid, how)
    process.wait(timeout=15)
    while mine & sandbox_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mine & sandbox_processes()
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def _owner(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_no_process_of_the_sandbox_holds_the_owners_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_TEST_SECRET", "hunter2")
    before = processes()
    with open_sandbox(slots=1) as sandbox:
        assert sandbox.judge([jobs()[0], Job("np", "import numpy\ndef f(*a): return 3", TESTS[:1], "f")])[1].passed
        found = processes() - before
        assert len(found) >= 4  # a supervisor, two zygotes, the process that compiles
        for pid in found:
            environment = Path(f"/proc/{pid}/environ").read_text()
            assert "hunter2" not in environment
            assert not [line for line in environment.split("\0") if "KEY" in line or "TOKEN" in line]


def test_identical_programs_are_run_once_and_answered_under_their_own_ids() -> None:
    program = "import random\ndef f():\n    return random.SystemRandom().random()"
    with open_sandbox(slots=2) as sandbox:
        same = [Job(str(i), program, (CallTest.of((), 2),), "f") for i in range(8)]
        verdicts = sandbox.judge(same)
        assert [verdict.id for verdict in verdicts] == [str(i) for i in range(8)]
        assert len({verdict.tests for verdict in verdicts}) == 1
        other = sandbox.judge([Job("x", program, (CallTest.of((), 2),), "f", run=1)])[0]
        assert other.tests != verdicts[0].tests


def test_other_tests_limits_preamble_entry_or_trace_are_another_job() -> None:
    base = Job("x", "def f():\n    return 1\ndef g():\n    return 2", (CallTest.of((), 1),), "f", limits=LIMITS)
    with open_sandbox(slots=1) as sandbox:
        verdicts = sandbox.judge(
            [
                base,
                Job("y", base.program, (CallTest.of((), 2),), "f", limits=LIMITS),
                Job("z", base.program, base.tests, "g", limits=LIMITS),
                Job("p", base.program, base.tests, "f", limits=LIMITS, preamble="1 / 0"),
                Job("t", base.program, base.tests, "f", limits=LIMITS, trace=False),
            ]
        )
    assert [v.outcome.value for v in verdicts] == ["pass", "wrong_answer", "wrong_answer", "runtime_error", "pass"]
    assert verdicts[4].statements == ()


def test_supervisors_and_zygotes_killed_under_load_lose_no_verdict_and_change_none(alone: dict[str, object]) -> None:
    before = processes()
    stop = threading.Event()
    killed = {"supervisors": 0, "zygotes": 0}

    def murder() -> None:
        pick, seen = random.Random(1), 0
        for kind in itertools.cycle(killed):
            # By the work done, not by the clock: on a loaded machine the same job would meet every death.
            while (done := sum(future.done() for future in futures)) < seen + 20:
                if stop.wait(0.02):
                    return
            seen = done
            above = supervisors() - before
            victims = above if kind == "supervisors" else {pid for up in above for pid in children(up)}
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(pick.choice(sorted(victims)), signal.SIGKILL)
                    killed[kind] += 1

    with open_sandbox(slots=2) as sandbox:
        futures = [sandbox.submit(job) for run in range(1, 41) for job in jobs(run)]
        killer = threading.Thread(target=murder)
        killer.start()
        verdicts = [future.result(timeout=120) for future in futures]
        stop.set()
        killer.join()
    assert min(killed.values()) >= 2
    assert {verdict.outcome for verdict in verdicts} >= {Outcome.PASS, Outcome.TIMEOUT, Outcome.COMPILE_ERROR}
    for verdict in verdicts:
        # Three deaths in a row are a fault of the judge, and told as such.
        assert verdict.outcome is Outcome.INFRA_ERROR or stable(verdict) == alone[verdict.id]
    assert sum(verdict.outcome is Outcome.INFRA_ERROR for verdict in verdicts) <= 2
    assert processes() == before


def test_a_job_whose_judges_all_die_is_an_infra_error_that_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_sandbox(slots=1) as sandbox:

        def die(self: Supervisor, jobs: object) -> list[Verdict]:
            os.kill(self.pid, signal.SIGKILL)
            return judge(self, jobs)  # type: ignore[arg-type]

        judge = Supervisor.judge
        monkeypatch.setattr(Supervisor, "judge", die)
        job = jobs()[0]
        verdict = sandbox.judge([job])[0]
        assert verdict.outcome is Outcome.INFRA_ERROR
        assert "supervisor hung up" in verdict.tests[0].detail
        monkeypatch.undo()
        assert sandbox.judge([job])[0].passed


def test_a_fault_of_the_pool_itself_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Supervisor, jobs: object) -> list[Verdict]:
        raise KeyError("id")

    with open_sandbox(slots=1) as sandbox:
        monkeypatch.setattr(Supervisor, "judge", fail)
        verdict = sandbox.submit(jobs()[0]).result(timeout=30)
        assert (verdict.outcome, verdict.tests[0].detail) == (Outcome.INFRA_ERROR, "KeyError: 'id'")
        monkeypatch.undo()
        assert sandbox.judge(jobs()[:1])[0].passed


def test_a_share_of_the_jobs_runs_twice_and_what_differs_is_counted() -> None:
    coin = "import random\ndef f(a, b):\n    return random.SystemRandom().random() < 0.5"
    with Pool(2, twice=1.0) as pool:
        pool.judge([Job(str(n), f"{coin}\n# {n}", (CallTest.of((1, 2), True),), "f") for n in range(20)])
        assert (pool.counts.judged, pool.counts.twice) == (40, 20)
        assert 1 <= pool.counts.disagreements <= 19
        pool.judge(jobs())
        assert pool.counts.twice == 20 + len(PROGRAMS)


def test_a_job_without_tests_has_nothing_that_fails(one_slot: Sandbox) -> None:
    assert one_slot.judge([Job("x", "def f(): pass", (), "f")])[0].outcome is Outcome.PASS


def test_a_fork_of_the_owner_may_not_use_its_pool(one_slot: Sandbox) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            one_slot.submit(jobs()[0])
        except StepCoderError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert one_slot.judge(jobs(9)[:1])[0].passed


def test_a_sandbox_that_cannot_start_says_why_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START", supervisor.START.replace("stepcoder.sandbox", "stepcoder.nowhere"))
    with pytest.raises(StepCoderError, match=r"the sandbox cannot start: the supervisor ended while it started"):
        open_sandbox(slots=1)


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(DataError, match="'nowhere'"):
        open_sandbox("nowhere")
    with pytest.raises(DataError, match="at least one slot"):
        open_sandbox(slots=0)


def test_job_of_takes_everything_from_the_problem() -> None:
    problem = Problem(
        id="p", statement="s", starter="def f():\n", solution="def f():\n    return y\n", entry_point="f",
        tests=(CallTest.of((), 1),), preamble="y = 1",
    )  # fmt: skip
    job = job_of(problem, problem.solution, limits=LIMITS, trace=False, id="p/3")
    assert (job.id, job.preamble, job.tests, job.limits, job.trace) == ("p/3", "y = 1", problem.tests, LIMITS, False)
    with open_sandbox(slots=1) as sandbox:
        assert sandbox.judge([job, job_of(problem, problem.solution)])[1].passed


def test_a_right_program_that_waits_for_a_core_is_no_timeout() -> None:
    cores = os.sched_getaffinity(0)
    program = "def f(n):\n    for i in range(n): pass\n    return n"
    busy: list[subprocess.Popen[bytes]] = []
    try:
        os.sched_setaffinity(0, {min(cores)})
        with open_sandbox(slots=1) as sandbox:
            assert sandbox.judge(jobs()[:1])[0].passed  # the zygote starts, on the one core
            # Each in a session of its own: the kernel shares a core out among sessions first.
            spin = [sys.executable, "-c", "while True: pass"]
            busy = [subprocess.Popen(spin, start_new_session=True) for _ in range(6)]
            started = time.monotonic()
            limits = Limits(cpu_seconds=5, wall_seconds=1)
            verdict = sandbox.judge([Job("x", program, (CallTest.of((20_000_000,), 20_000_000),), "f", limits=limits)])[
                0
            ]
            elapsed = time.monotonic() - started
    finally:
        os.sched_setaffinity(0, cores)
        for process in busy:
            process.kill()
            process.wait()
    assert elapsed > limits.wall_seconds
    assert verdict.passed, verdict.tests


@pytest.mark.parametrize("text", [chr(0xD800), f"a{chr(0xDCFF)}b"])
def test_lone_surrogates_in_tests_and_programs_are_no_fault_of_the_judge(one_slot: Sandbox, text: str) -> None:
    call = CallTest.of((text,), [text, {text: text}])
    assert one_slot.judge([Job("x", "def f(x):\n    return [x, {x: x}]", (call,), "f", limits=LIMITS)])[0].passed
    script = Job("x", "def f():\n    print(1)", (StdinTest(stdin=text, stdout=text),), "f", limits=LIMITS)
    assert one_slot.judge([script])[0].outcome is Outcome.WRONG_ANSWER
    program = Job("x", f"def f(x):\n    return {text!r} + '{text}'", (call,), "f", limits=LIMITS)
    assert one_slot.judge([program])[0].outcome is Outcome.COMPILE_ERROR
