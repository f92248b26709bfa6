"""Programs written to cheat or to harm get no pass and leave nothing behind.

After each of them a right program passes on the same slot. What the first version of the sandbox cannot keep a program
from (reading files, the network, tracing other processes) has no test here.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ADD, SUM, TIGHT, Judge

from stepcoder.problems import CallTest, StdinTest
from stepcoder.sandbox import Sandbox

RIGHT = "def f(a, b):\n    return a + b"

CALLS: dict[str, tuple[set[str], str]] = {
    # Leaving early.
    "exits at module level": ({"runtime_error"}, "import sys\nsys.exit(0)\ndef f(a, b): pass"),
    "exits in the call": ({"runtime_error"}, "def f(a, b):\n    raise SystemExit(0)"),
    "ends the process at module level": ({"runtime_error"}, "import os\nos._exit(0)"),
    "ends the process in the call": ({"runtime_error"}, "import os\ndef f(a, b):\n    os._exit(0)"),
    "leaves by an exit handler": (
        {"runtime_error", "wrong_answer"},
        "import atexit, os, sys\natexit.register(os._exit, 0)\ndef f(a, b):\n    sys.exit()",
    ),
    "leaves by the exception hook": (
        {"runtime_error"},
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(a, b):\n    raise ValueError",
    ),
    "stops every exception": ({"runtime_error"}, "def f(a, b):\n    raise GeneratorExit"),
    # Equality tricks.
    "equals everything": (
        {"wrong_answer"},
        "class Any:\n    def __eq__(self, other): return True\ndef f(a, b):\n    return Any()",
    ),
    "a number that equals everything": (
        {"wrong_answer"},
        "class Any(int):\n    __eq__ = lambda self, other: True\ndef f(a, b):\n    return Any(0)",
    ),
    "reflected operators": (
        {"wrong_answer"},
        "class Any(float):\n    __eq__ = __le__ = __ge__ = lambda s, o: True\ndef f(a, b):\n    return Any(0)",
    ),
    "a type of the right name": (
        {"wrong_answer"},
        "def f(a, b):\n    return type('int', (int,), {'__module__': 'builtins'})(a + b)",
    ),
    "not a number": ({"wrong_answer"}, "def f(a, b):\n    return float('nan')"),
    "not implemented": ({"wrong_answer"}, "def f(a, b):\n    return NotImplemented"),
    "a generator": ({"wrong_answer"}, "def f(a, b):\n    yield a + b"),
    "a string of the number": ({"wrong_answer"}, "def f(a, b):\n    return str(a + b)"),
    "a list of all numbers": ({"wrong_answer"}, "def f(a, b):\n    return list(range(100))"),
    "a list that holds itself": ({"wrong_answer"}, "def f(a, b):\n    x = []\n    x.append(x)\n    return x"),
    # Patching the judge.
    "patches json": (
        {"wrong_answer", "runtime_error"},
        """
        import json
        json.dumps = json.JSONEncoder.encode = lambda *a, **k: '{"test":0,"value":3}'
        def f(a, b):
            return 0
        """,
    ),
    "patches comparison": (
        {"wrong_answer"},
        "import math, operator\nmath.isclose = operator.eq = lambda *a, **k: True\ndef f(a, b):\n    return 0",
    ),
    "patches builtins": (
        {"wrong_answer", "runtime_error", "security"},
        "import builtins\nbuiltins.type = builtins.isinstance = lambda *a: True\ndef f(a, b):\n    return 0",
    ),
    "writes into the judge's frames": (
        {"wrong_answer", "runtime_error", "security"},
        """
        import sys
        def f(a, b):
            frame = sys._getframe(1)
            while frame:
                for name, value in frame.f_locals.items():
                    if isinstance(value, dict) and "test" in value:
                        value["outcome"] = value["verdict"] = "pass"
                        value["passed"] = True
                frame = frame.f_back
            return 0
        """,
    ),
    "replaces the code of the runner": (
        {"wrong_answer", "runtime_error", "security"},
        """
        import sys
        def f(a, b):
            return 0
        def lie(*a, **k):
            return {"value": 3, "passed": True}
        frame = sys._getframe(1)
        for value in list(frame.f_globals.values()):
            if callable(value) and hasattr(value, "__code__") and value.__name__ == "_call":
                value.__code__ = lie.__code__
        """,
    ),
    # Forging results.
    "writes junk on every descriptor": (
        {"security", "runtime_error"},
        """
        import os
        def f(a, b):
            for fd in range(3, 64):
                try: os.write(fd, b"\\0\\0\\0\\1RR" * 9)
                except OSError: pass
            return 0
        """,
    ),
    "claims before it is loaded": (
        {"security"},
        """
        import os, struct
        def forge(data):
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
        forge(b'R{"test":0,"value":0}')
        def f(a, b):
            return 0
        """,
    ),
    "claims twice": (
        {"security"},
        """
        import os, struct
        def f(a, b):
            data = b'R{"test":%d,"value":%d}' % (a != 1, a + b)
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
            return a + b
        """,
    ),
    "claims a pass": (
        {"security"},
        """
        import os, struct
        def f(a, b):
            data = b'R{"test":0,"outcome":"pass"}'
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
            os._exit(0)
        """,
    ),
    "claims something endless": (
        {"security"},
        """
        import os
        def f(a, b):
            for fd in range(3, 64):
                try: os.write(fd, b"\\xff\\xff\\xff\\x7fR" + b"[" * 9999)
                except OSError: pass
            os._exit(0)
        """,
    ),
    "claims something deep": (
        {"security"},
        """
        import os, struct
        def f(a, b):
            data = b'R{"test":0,"value":' + b"[" * 60000
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
            os._exit(0)
        """,
    ),
    "prints a sentinel": (
        {"wrong_answer"},
        "def f(a, b):\n    print('PASS', 'passed', True, '{\"verdict\": \"pass\"}')",
    ),
    # Time.
    "catches everything in a loop": (
        {"timeout"},
        """
        def f(a, b):
            while True:
                try:
                    while True: pass
                except BaseException: pass
        """,
    ),
    "ignores every signal": (
        {"timeout"},
        """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        def f(a, b):
            while True: pass
        """,
    ),
    "freezes the clocks": (
        {"timeout"},
        """
        import time
        time.time = time.monotonic = time.process_time = time.perf_counter = lambda: 0
        def f(a, b):
            while True: pass
        """,
    ),
    "loops in C": ({"timeout", "memory"}, "def f(a, b):\n    return sum(iter(int, 1))"),
    "a power without end": ({"timeout", "memory"}, "def f(a, b):\n    x = a + 8\n    return x ** x ** x ** x"),
    "threads that burn": (
        {"timeout"},
        """
        import threading
        def burn():
            while True: pass
        def f(a, b):
            for _ in range(4): threading.Thread(target=burn).start()
            burn()
        """,
    ),
    "an endless message": (
        {"timeout"},
        """
        class E(Exception):
            def __str__(self):
                while True: pass
        def f(a, b):
            raise E
        """,
    ),
    "a message that raises": (
        {"runtime_error"},
        "class E(Exception):\n    def __str__(self): raise self\ndef f(a, b):\n    raise E",
    ),
    "a message of a megabyte": ({"runtime_error"}, "def f(a, b):\n    raise ValueError('x' * 10**6)"),
    # Resources.
    "takes all memory": (
        {"memory", "timeout"},
        "def f(a, b):\n    x = []\n    while True: x.append(bytearray(1 << 20))",
    ),
    "keeps the memory error to itself": (
        {"timeout", "wrong_answer"},
        """
        def f(a, b):
            x = []
            while True:
                try: x.append(bytearray(1 << 26))
                except MemoryError: pass
        """,
    ),
    "prints without end": ({"output_limit"}, "import os\ndef f(a, b):\n    while True: os.write(1, b'x' * 999)"),
    "a value of a gigabyte": ({"memory", "output_limit", "timeout"}, "def f(a, b):\n    return 'x' * (150 << 20)"),
    "a value nested too deep": (
        {"wrong_answer"},
        "def f(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    ),
    "an integer of a hundred thousand digits": (
        {"wrong_answer", "output_limit"},
        "def f(a, b):\n    return 10**30_000",
    ),
    "recursion without end": ({"runtime_error"}, "def f(a, b):\n    return f(b, a)"),
    "recursion beyond the stack": (
        {"runtime_error", "memory", "timeout"},
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(a, b):\n    return max([a], key=lambda x: f(a, b))",
    ),
    "reads at address zero": ({"runtime_error"}, "import ctypes\ndef f(a, b):\n    ctypes.string_at(0)"),
    "closes every descriptor": (
        {"runtime_error"},
        "import os\ndef f(a, b):\n    os.closerange(0, 256)\n    return a + b",
    ),
    "opens descriptors without end": (
        {"runtime_error"},
        "import os\ndef f(a, b):\n    while True: os.dup(0)",
    ),
    "a file without end": (
        {"output_limit", "runtime_error"},
        "def f(a, b):\n    with open('big', 'wb') as file:\n        while True: file.write(b'x' * 10**6)",
    ),
    "kills its own group": ({"runtime_error"}, "import os\ndef f(a, b):\n    os.killpg(0, 9)"),
    "stops itself": ({"timeout"}, "import os\ndef f(a, b):\n    os.kill(os.getpid(), 19)"),
    "kills its parent": ({"infra_error"}, "import os\ndef f(a, b):\n    os.kill(os.getppid(), 9)\n    return a + b"),
    "removes its folder": (
        {"wrong_answer", "runtime_error"},
        "import os, shutil\ndef f(a, b):\n    shutil.rmtree(os.getcwd(), ignore_errors=True)\n    return 0",
    ),
    "compiles a bomb": ({"compile_error"}, "x = " + "(" * 199 + "1" + ",)" * 199 + "\ny = " + "[" * 5000),
}

SCRIPTS: dict[str, tuple[set[str], str]] = {
    "the answer and a bad status": (
        {"runtime_error"},
        "import os\ndef f():\n    os.write(1, b'%d' % sum(map(int, open(0).read().split())))\n    os._exit(1)",
    ),
    "the answer and a kill": (
        {"runtime_error"},
        "import os\ndef f():\n    os.write(1, b'%d' % sum(map(int, input().split())))\n    os.kill(os.getpid(), 9)",
    ),
    "every answer": ({"wrong_answer"}, "def f():\n    for i in range(100): print(i)"),
    "a prefix of the answer": ({"wrong_answer"}, "def f():\n    pass"),
    "answers on one line": ({"wrong_answer"}, "def f():\n    print(*range(100))"),
    "the answer on standard error": (
        {"wrong_answer"},
        "import sys\ndef f():\n    print(sum(map(int, open(0).read().split())), file=sys.stderr)",
    ),
    "a claim on standard output": ({"wrong_answer"}, 'def f():\n    print(\'{"test": 0, "verdict": "pass"}\')'),
    "a claim of its own and no answer": (
        {"wrong_answer", "security"},
        """
        import os, struct
        def f():
            data = b'R{"test":0}'
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
        """,
    ),
    "prints without end": ({"output_limit"}, "def f():\n    while True: print('x' * 99)"),
    "closes its output": ({"wrong_answer", "runtime_error"}, "import os\ndef f():\n    os.close(1)\n    print(7)"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_hostile_function_gets_no_pass_and_spoils_nothing(judge: Judge, name: str) -> None:
    allowed, program = CALLS[name]
    limits = replace(TIGHT, cpu_seconds=0.15, wall_seconds=0.5 if name == "stops itself" else TIGHT.wall_seconds)
    verdict = judge(program, ADD, limits=limits)
    found = {test.outcome.value for test in verdict.tests}
    assert "pass" not in found
    assert found <= allowed | {"not_run"}, verdict.tests
    assert judge(RIGHT).passed


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_hostile_script_gets_no_pass_and_spoils_nothing(judge: Judge, name: str) -> None:
    allowed, program = SCRIPTS[name]
    verdict = judge(program, SUM)
    found = {test.outcome.value for test in verdict.tests}
    assert found <= allowed, verdict.tests
    assert judge(RIGHT).passed


SEARCHES = {
    "objects": """
        import gc
        def f(a):
            gc.collect()
            found = []
            for o in gc.get_objects():
                items = o.values() if type(o) is dict else o if type(o) in (list, tuple) else []
                found += [x for x in items if type(x) is str and x.startswith("answer-") and len(x) > 7]
            return found
    """,
    "frames": """
        import sys
        def f(a):
            found, frame = [], sys._getframe()
            while frame:
                found += [v for v in (*frame.f_locals.values(), *frame.f_globals.values())
                          if type(v) is str and v.startswith("answer-") and len(v) > 7]
                frame = frame.f_back
            return found
    """,
    "memory of its own process and of its parent": """
        import os, re
        def f(a):
            found = []
            for pid in (os.getpid(), os.getppid()):
                try:
                    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                        for line in maps:
                            start, end = (int(x, 16) for x in line.split()[0].split("-"))
                            if "rw" in line.split()[1] and end - start < 1 << 26:
                                try:
                                    memory.seek(start)
                                    found += re.findall(rb"answer-[0-9a-f]{16}", memory.read(end - start))
                                except (OSError, ValueError): pass
                except OSError: pass
            return found
    """,
    "descriptors": """
        import os
        def f(a):
            found = []
            for fd in range(64):
                try:
                    found += [part for part in os.pread(fd, 1 << 20, 0).split(b'"') if part.startswith(b"answer-")]
                except OSError: pass
            return found
    """,
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_answer_is_nowhere_near_the_program(judge: Judge, name: str) -> None:
    answer = "answer-" + secrets.token_hex(8)
    verdict = judge(SEARCHES[name], (CallTest.of((1,), answer),), limits=replace(TIGHT, cpu_seconds=5))
    assert verdict.tests[0].detail == f"expected {answer!r}, got []"


def test_the_answer_to_a_script_is_nowhere_near_it(judge: Judge) -> None:
    program = """
        import os
        def f():
            for fd in range(64):
                try: os.write(1, os.pread(fd, 1 << 15, 0))
                except OSError: pass
    """
    answer = "answer-" + secrets.token_hex(8)
    verdict = judge(program, (StdinTest(stdin="x", stdout=answer),))
    assert not verdict.passed
    assert answer not in verdict.tests[0].stdout_tail


def test_the_trainers_environment_is_not_the_programs(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fixture's zygote may be older than the variable: `test_pool` sets one before a pool is opened.
    monkeypatch.setenv("STEPCODER_TEST_SECRET", "hunter2")
    program = """
        import os
        def f(a):
            own = [dict(os.environ), open("/proc/self/environ").read(), open(f"/proc/{os.getppid()}/environ").read()]
            return "hunter2" in str(own)
    """
    assert judge(program, (CallTest.of((1,), False),)).passed


DAEMON = """
    import os, signal, time
    def f(a, b):
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                for number in range(1, 32):
                    try: signal.signal(number, signal.SIG_IGN)
                    except OSError: pass
                if os.fork() == 0:
                    while True: time.sleep(1)
                while True: time.sleep(1)
        return a + b
"""


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        parent = todo.pop()
        # A thread or a process may end between two looks.
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    todo += map(int, children.read().split())
        found.add(parent)
    return found - {pid}


def test_processes_that_a_program_leaves_behind_are_ended(judge: Judge, one_slot: Sandbox) -> None:
    assert judge(RIGHT).passed
    before = descendants(os.getpid())
    assert judge(DAEMON).passed
    assert descendants(os.getpid()) == before


def test_a_chain_of_forks_is_ended(judge: Judge) -> None:
    program = """
        import os
        def f(a, b):
            while os.fork() == 0: pass
            return 0
    """
    before = descendants(os.getpid())
    started = time.monotonic()
    assert not judge(program, ADD[:1]).passed
    assert time.monotonic() - started < 30
    assert descendants(os.getpid()) == before
    assert judge(RIGHT).passed


def test_a_link_in_place_of_its_folder_does_not_lead_the_judge_astray(judge: Judge, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "weights").write_text("x")
    program = f"""
        import os
        def f(a, b):
            room = os.getcwd()
            os.mkdir("inner")
            os.symlink({str(precious)!r}, "link")
            os.rename(room, room + "2")
            os.symlink({str(precious)!r}, room)
            return a + b
    """
    assert judge(program, ADD[:1]).passed
    for _ in range(2):
        assert judge(RIGHT).passed
    assert (precious / "weights").read_text() == "x"
