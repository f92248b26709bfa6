"""What a review of the sandbox found: each was a wrong verdict, or a verdict that a program could escape."""

from __future__ import annotations

import os
import socket
import time
from itertools import pairwise

import pytest
from conftest import ADD, TIGHT, Judge

from stepcoder.problems import CheckTest, StdinTest
from stepcoder.sandbox import Limits, Outcome, children
from stepcoder.sandbox.compare import matches
from stepcoder.sandbox.inside import probes

THREADS = """
    import threading, time
    threading.stack_size(65536)
    def more(seconds):
        try:
            while True: threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
        except RuntimeError: pass
"""
RIGHT_PROGRAM = "def f(a, b):\n    return a + b"


@pytest.mark.parametrize("seconds", [3, 0.2])
@pytest.mark.parametrize("when", ["", "more({})"])
def test_threads_without_end_are_the_programs_own_fault(judge: Judge, when: str, seconds: float) -> None:
    program = f"{THREADS}\n    {when.format(seconds)}\n    def f(*a):\n        more({seconds})\n        return 1\n"
    roomy = Limits(cpu_seconds=2, wall_seconds=10)
    for tests in (ADD, (CheckTest(code="assert candidate(1, 2) == 3"),)):
        verdict = judge(program, tests, limits=roomy)
        assert verdict.outcome not in (Outcome.PASS, Outcome.INFRA_ERROR), verdict.tests
    assert judge(RIGHT_PROGRAM).passed


def test_sixty_threads_are_no_fault(judge: Judge) -> None:
    program = """
        import threading
        def f(a, b):
            gate, found = threading.Event(), []
            def work(): gate.wait(); found.append(1)
            threads = [threading.Thread(target=work) for _ in range(60)]
            for thread in threads: thread.start()
            gate.set()
            for thread in threads: thread.join()
            return a + b if len(found) == 60 else None
    """
    assert judge(program, limits=Limits(cpu_seconds=2, memory_mib=1024)).passed


@pytest.mark.parametrize(("letter", "memory"), [("\U00010400", 512), ("b", 128), ("b", 32)])
def test_source_that_grows_when_compiled_is_the_programs_own_fault(judge: Judge, letter: str, memory: int) -> None:
    inner = "".join(f"  def b{i}():0\n" for i in range(2700))
    program = f"def {letter}{'a' * 40_000}():\n{inner}def f(a, b): return 0\n"
    verdict = judge(program, limits=Limits(memory_mib=memory))
    assert verdict.outcome in (Outcome.COMPILE_ERROR, Outcome.MEMORY, Outcome.WRONG_ANSWER)
    assert judge(RIGHT_PROGRAM).passed


TRIE = "class Trie:\n    def __init__(self): self.words = []\n    def has(self, word): return word in self.words\n"
CODE = "trie = candidate(1)\nassert trie.has(54321) is True"


@pytest.mark.parametrize("shadow", ["t.has = bool", "t.__class__ = bool", "t.has = int", "t.__dict__['has'] = bool"])
def test_an_object_cannot_bring_a_behaviour_of_its_own_into_a_check(judge: Judge, shadow: str) -> None:
    verdict = judge(f"def f(x):\n    t = Trie()\n    {shadow}\n    return t", (CheckTest(code=CODE),), preamble=TRIE)
    assert not verdict.passed
    assert verdict.outcome is not Outcome.INFRA_ERROR
    right = "def f(x):\n    t = Trie()\n    t.words = [54321]\n    return t"
    assert judge(right, (CheckTest(code=CODE),), preamble=TRIE).passed


def test_idle_threads_do_not_stretch_the_wall_clock(judge: Judge) -> None:
    program = """
        import threading, time
        def idle():
            while True: time.sleep(0.02)
        def f(a, b):
            for _ in range(80): threading.Thread(target=idle, daemon=True).start()
            time.sleep(60)
    """
    started = time.monotonic()
    verdict = judge(program, ADD[:1], limits=Limits(cpu_seconds=20, wall_seconds=1, memory_mib=1024))
    assert verdict.outcome is Outcome.TIMEOUT
    assert time.monotonic() - started < 4


def test_the_wall_clock_of_a_check_counts_all_its_calls(judge: Judge) -> None:
    program = "import time\ndef f(x):\n    time.sleep(0.5)\n    return x"
    code = "for i in range(30):\n    assert candidate(i) == i"
    started = time.monotonic()
    verdict = judge(program, (CheckTest(code=code),), limits=Limits(cpu_seconds=1, wall_seconds=1))
    assert verdict.outcome is Outcome.TIMEOUT
    assert time.monotonic() - started < 4


def test_waiting_for_a_core_in_an_earlier_test_does_not_stretch_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    child = children.Child(os.getpid(), ours)
    monkeypatch.setattr(child, "_queued", lambda: 60.0)
    monkeypatch.setattr(children, "QUEUED_SECONDS", 0.0)
    child.mark()
    started = time.monotonic()
    with pytest.raises(children.EndedError, match="wall"):
        child.receive(60, 0.1, 100)
    assert time.monotonic() - started < 0.8  # with all of it taken off, a second
    theirs.close()
    child.close()


SKIPPING = [
    "for got, want in zip(map(candidate, [1, 2]), [2, 3]):\n    assert got == want",
    "assert all(map(lambda case: candidate(case[0]) == case[1], [(1, 2), (2, 3)]))",
    "from functools import partial\nfor found in iter(partial(candidate, 1), None):\n    assert found == 2; break",
]


@pytest.mark.parametrize("code", SKIPPING)
@pytest.mark.parametrize("kind", ["StopIteration", "StopAsyncIteration", "type('Stop', (StopIteration,), {})"])
def test_a_program_cannot_end_the_loop_of_a_check(judge: Judge, code: str, kind: str) -> None:
    assert judge("def f(x):\n    return x + 1", (CheckTest(code=code),)).passed
    verdict = judge(f"def f(x):\n    raise {kind}", (CheckTest(code=code),))
    assert verdict.outcome is Outcome.RUNTIME_ERROR, verdict.tests


FLAGS = "os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME | os.O_ASYNC"


def test_flags_of_open_files_do_not_outlive_a_program(judge: Judge) -> None:
    leave = f"""
        import fcntl, os
        def f(a, b):
            for d in range(3):
                try: fcntl.fcntl(d, fcntl.F_SETFL, fcntl.fcntl(d, fcntl.F_GETFL) | {FLAGS})
                except OSError: pass
            return a + b
    """
    find = f"""
        import fcntl, os
        def f(a, b):
            found = [fcntl.fcntl(d, fcntl.F_GETFL) & ({FLAGS}) for d in range(3)]
            return a + b if not any(found) else found
    """
    assert judge(leave).passed
    assert judge(find).passed


def test_tests_by_standard_input_share_no_map_of_statements(judge: Judge) -> None:
    program = """
        import builtins
        def main():
            cells = [cell.cell_contents for cell in vars(builtins)["hit!"].__closure__]
            memory = [cell for cell in cells if hasattr(cell, "size")][0]
            print(input() if memory[-1] != 7 else "left behind")
            memory[-1] = 7
    """
    tests = tuple(StdinTest(stdin=f"{n}\n", stdout=f"{n}\n") for n in range(2))
    verdict = judge(program, tests, entry="main")
    assert verdict.passed, verdict.tests
    assert all(statement.executed for statement in verdict.statements)


def test_statements_are_counted_over_all_tests(judge: Judge) -> None:
    program = (
        "def main():\n    if input() == '1':\n        print(1)\n    else:\n        print(2)\n    return\n    main()"
    )
    tests = tuple(StdinTest(stdin=f"{n}\n", stdout=f"{n}\n") for n in (1, 2))
    verdict = judge(program, tests, entry="main")
    assert verdict.passed
    assert [statement.executed for statement in verdict.statements] == [True] * 5 + [False]


FORGERY = """
    import json, os, stat, struct
    def f(a, b):
        claim = b"R" + json.dumps({claim}).encode()
        for descriptor in range(3, 10):
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, struct.pack("<I", len(claim)) + claim)
            except OSError: pass
        os._exit(0)
"""


@pytest.mark.parametrize(
    "claim", ['{"test": 0, "exception": "x" * 1000000}', '{"test": 0, "exception": "x", "line": -10**4000}']
)
def test_a_forged_report_is_not_told_at_length(judge: Judge, claim: str) -> None:
    verdict = judge(FORGERY.replace("{claim}", claim), limits=Limits(output_bytes=1 << 22))
    assert verdict.outcome is Outcome.SECURITY
    assert len(str(verdict)) < 5000


def test_nested_sets_do_not_keep_the_judge_busy() -> None:
    expected = {frozenset([float(j) for j in range(1, 190)] + [1e6 + i * 100]) for i in range(180)}
    near = [j * (1 + 5e-7) for j in range(189, 0, -1)]
    claim = {"$set": [{"$frozenset": [*near, 1e6 + i * 100 + 0.3]} for i in range(180)]}
    started = time.process_time()
    assert not matches(expected, claim)
    assert time.process_time() - started < 5
    assert matches({frozenset([0.1, 0.2])}, {"$set": [{"$frozenset": [0.2, 0.1 + 1e-12]}]})


def test_comments_in_headers_that_end_in_a_carriage_return_are_read_in_no_time(judge: Judge) -> None:
    comments = "".join(f"  # comment {i} without an end\r" for i in range(40))
    source = f"def f(a, b):\r  if (a # hello\r  ):\r{comments}    return a + b\r  return a + b\r"
    verdict = judge(source, limits=TIGHT)
    assert verdict.passed
    spans = [tuple(statement.span) for statement in verdict.statements]
    assert all(first[2:] <= second[:2] for first, second in pairwise(spans)), spans
    assert probes._UP_TO_COLON.match(b" # x\r ):").group() == b" # x\r ):"  # type: ignore[union-attr]
