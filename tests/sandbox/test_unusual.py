"""Right programs in unusual form pass."""

from __future__ import annotations

import pytest
from conftest import ADD, SUM, TIGHT, Judge

from stepcoder.problems import CallTest, StdinTest

READS_AND_SUMS = {
    "buffer": "import sys\ndef f():\n    print(sum(map(int, sys.stdin.buffer.read().split())))",
    "open(0)": "def f():\n    print(sum(map(int, open(0).read().split())))",
    "os.read": "import os\ndef f():\n    os.write(1, b'%d' % sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
    "input until the end": """
        def f():
            total = 0
            try:
                while True:
                    total += sum(map(int, input().split()))
            except EOFError:
                print(total)
    """,
    "lines of stdin": "import sys\ndef f():\n    print(sum(int(x) for line in sys.stdin for x in line.split()))",
    "readline as input": """
        import sys
        input = sys.stdin.readline
        def f():
            total = 0
            while line := input():
                total += sum(map(int, line.split()))
            sys.stdout.write(str(total))
    """,
    "mapped": "import mmap\ndef f():\n    print(sum(map(int, mmap.mmap(0, 0, prot=mmap.PROT_READ).read().split())))",
    "exit() after output": "def f():\n    print(sum(map(int, open(0).read().split())))\n    exit()",
    "sys.exit(0) after output": """
        import sys
        def f():
            print(sum(map(int, open(0).read().split())))
            sys.exit(0)
    """,
    "os._exit(0) after a flush": """
        import os
        def f():
            print(sum(map(int, open(0).read().split())), flush=True)
            os._exit(0)
    """,
    "main guard": """
        def f():
            print(sum(map(int, open(0).read().split())))
        if __name__ == "__main__":
            f()
    """,
    "main guard inside": """
        def f():
            def main():
                print(sum(map(int, open(0).read().split())))
            if __name__ == "__main__":
                main()
    """,
    "calls itself": "def f():\n    print(sum(map(int, open(0).read().split())))\nf()",
    "module level reads": "numbers = list(map(int, open(0).read().split()))\ndef f():\n    print(sum(numbers))",
    "module level does all": "print(sum(map(int, open(0).read().split())))\ndef f():\n    pass",
    "a thread with a large stack": """
        import sys, threading
        sys.setrecursionlimit(10**6)
        threading.stack_size(1 << 26)
        def f():
            def deep(n):
                return n if n == 0 else 1 + deep(n - 1) - 1
            def work():
                print(sum(map(int, open(0).read().split())) + deep(50_000))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """,
    "a thread that nobody joins": """
        import threading, time
        def work():
            time.sleep(0.05)
            print(sum(map(int, open(0).read().split())))
        def f():
            threading.Thread(target=work).start()
    """,
    "output at exit": """
        import atexit, io, os, sys
        out = io.StringIO()
        atexit.register(lambda: os.write(1, out.getvalue().encode()))
        def f():
            out.write(str(sum(map(int, sys.stdin.read().split()))))
    """,
    "a file on descriptor 1": """
        out = open(1, "w")
        def f():
            print(sum(map(int, open(0).read().split())), file=out)
    """,
    "stdout replaced": """
        import io, sys
        sys.stdout = io.TextIOWrapper(open(1, "wb", 0), write_through=True)
        def f():
            print(sum(map(int, open(0).read().split())))
    """,
    "catches everything": """
        def f():
            try:
                print(sum(map(int, open(0).read().split())))
            except BaseException:
                print("never")
    """,
    "carriage returns in the source": "def f():\r\n    print(sum(map(int, open(0).read().split())))\r\n",
    "byte-order mark": "\ufeffdef f():\n    print(sum(map(int, open(0).read().split())))\n",
    "tabs and a form feed": "def f():\n\tif True:\n\t\tprint(sum(map(int, open(0).read().split())))\n\f",
    "trailing blanks": "def f():\n    print(sum(map(int, open(0).read().split())), end='  \\r\\n\\n')",
    "noise on standard error": """
        import sys
        def f():
            print("thinking" * 100_000, file=sys.stderr)
            print(sum(map(int, open(0).read().split())))
    """,
    "a class without the word": "f = lambda: print(sum(map(int, open(0).read().split())))",
    "async": """
        import asyncio
        async def work():
            return sum(map(int, open(0).read().split()))
        def f():
            print(asyncio.run(work()))
    """,
}

ADDS = {
    "float for int": "def f(a, b):\n    return float(a + b)",
    "names without import": "def f(a, b):\n    return reduce(lambda x, y: x + y, deque([a, b]))",
    "bisect, the module and the function": """
        def f(a, b):
            return bisect([0] * a, 0) + bisect.bisect_right([0] * b, 0)
    """,
    "builtins that star imports would hide": """
        def f(a, b):
            return a + b if pow(2, 5, 7) == 4 else 0
    """,
    "recursion almost to the limit": """
        def f(a, b):
            def deep(n):
                return 0 if n == 0 else deep(n - 1)
            return a + b + deep(990)
    """,
    "a raised recursion limit": """
        import sys
        sys.setrecursionlimit(10**6)
        def f(a, b):
            def deep(n):
                return 0 if n == 0 else deep(n - 1)
            return a + b + deep(100_000)
    """,
    "a heavy cache": """
        from functools import lru_cache
        import sys
        sys.setrecursionlimit(50_000)
        @lru_cache(None)
        def g(n):
            return 0 if n == 0 else g(n - 1)
        def f(a, b):
            return a + b + g(5_000)
    """,
    "future annotations and a dataclass": """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class P:
            x: int
            y: P | None = None
        def f(a: int, b: int) -> int:
            return P(a).x + P(b).x
    """,
    "named tuple, enum, typing": """
        from typing import NamedTuple, get_type_hints
        import enum
        class P(NamedTuple):
            x: int
        class C(enum.Enum):
            A = 1
        def f(a: int, b: int) -> int:
            assert get_type_hints(f)["a"] is int and C.A.value == 1
            return P(a).x + P(b).x
    """,
    "match": "def f(a, b):\n    match (a, b):\n        case (x, y):\n            return x + y",
    "prints as well": "def f(a, b):\n    print('x' * 9_000)\n    return a + b",
    "closes stdout": "import sys\ndef f(a, b):\n    sys.stdout.close()\n    return a + b",
    "replaces stdout": "import sys, io\nsys.stdout = io.StringIO()\ndef f(a, b):\n    print('x')\n    return a + b",
    "its own json and math": "json = math = None\nclass values: pass\ndef f(a, b):\n    return a + b",
    "a module of its own name": """
        import sys
        me = sys.modules[__name__]
        def f(a, b):
            return me.f.__code__.co_argcount - 2 + a + b
    """,
    "a callable object": "class F:\n    def __call__(self, a, b):\n        return a + b\nf = F()",
    "garbage cycles": """
        def f(a, b):
            for _ in range(20_000):
                x = []
                x.append(x)
            return a + b
    """,
    "sorted containers": "from sortedcontainers import SortedList\ndef f(a, b):\n    return sum(SortedList([b, a]))",
    "a temporary file": """
        def f(a, b):
            with open("scratch.txt", "w") as file:
                file.write("x")
            return a + b
    """,
    "globals looked at": """
        def f(a, b):
            assert [name for name in globals() if not name.startswith("__")] == ["f"]
            return a + b
    """,
}


@pytest.mark.parametrize("name", READS_AND_SUMS)
def test_a_right_reader_passes(judge: Judge, name: str) -> None:
    verdict = judge(READS_AND_SUMS[name], SUM)
    assert verdict.passed, verdict.tests


@pytest.mark.parametrize("name", ADDS)
def test_a_right_function_passes(judge: Judge, name: str) -> None:
    verdict = judge(ADDS[name], ADD)
    assert verdict.passed, verdict.tests


def test_state_stays_between_calls_of_one_program(judge: Judge) -> None:
    program = "n = 0\ndef f(a, b):\n    global n\n    n += 1\n    return n"
    assert judge(program, (CallTest.of((0, 0), 1), CallTest.of((0, 0), 2))).passed


def test_a_standard_input_test_starts_from_nothing(judge: Judge) -> None:
    program = "n = 0\ndef f():\n    global n\n    n += 1\n    print(n)"
    assert judge(program, (StdinTest(stdin="", stdout="1"), StdinTest(stdin="", stdout="1"))).passed


def test_tuples_booleans_and_text_of_any_script(judge: Judge) -> None:
    program = "def f(a, b):\n    return (True, ('ü', b'x'), {1: (2.0,)})"
    assert judge(program, (CallTest.of((0, 0), [1, ["ü", b"x"], {1: [2]}]),)).passed


def test_a_megabyte_of_input_reaches_the_program(judge: Judge) -> None:
    numbers = list(range(200_000))
    assert judge("def f(a):\n    return sum(a)", (CallTest.of((numbers,), sum(numbers)),)).passed
    text = " ".join(map(str, numbers))
    test = StdinTest(stdin=text, stdout=f"{sum(numbers)}\n")
    assert judge("def f():\n    print(sum(map(int, input().split())))", (test,)).passed


def test_the_program_starts_in_an_empty_folder_with_constants_for_an_environment(judge: Judge) -> None:
    program = """
        import os, sys
        def f(a, b):
            assert os.listdir() == [], os.listdir()
            assert sorted(os.environ)[:2] == ["LC_ALL", "MKL_NUM_THREADS"] and len(os.environ) <= 7
            assert sys.argv == ["program.py"]
            open("left.txt", "w").close()
            os.makedirs("deep/er")
            return a + b
    """
    for _ in range(2):
        assert judge(program, ADD[:1]).passed


def test_hashes_are_the_same_in_every_run_and_random_numbers_are_not(judge: Judge) -> None:
    first, second = (judge("def f(a, b):\n    return hash('x')").tests[0].detail for _ in range(2))
    assert first == second
    first, second = (judge("import random\ndef f(a, b):\n    return random.random()").tests[0].detail for _ in range(2))
    assert first != second


def test_time_is_not_counted_while_other_processes_have_the_core(judge: Judge) -> None:
    program = "import time\ndef f(a, b):\n    time.sleep(0.5)\n    return a + b"
    verdict = judge(program)
    assert verdict.passed
    assert verdict.tests[1].cpu_seconds < TIGHT.cpu_seconds / 4
