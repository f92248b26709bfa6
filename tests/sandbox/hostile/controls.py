"""Right programs in unusual form: each passes. A reader adds the numbers of its input, a function adds two."""

from __future__ import annotations

from hostile.case import Control
from stepcoder.problems import CallTest, StdinTest

ADD = (CallTest.of((1, 2), 3), CallTest.of((5, 5), 10))
SUM = (StdinTest(stdin="3 4\n", stdout="7\n"), StdinTest(stdin="1\n2 3\n", stdout="6\n"))

READERS = {
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
    "/dev/stdin": "def f():\n    print(sum(map(int, open('/dev/stdin').read().split())))",
    "fileinput": """
        import fileinput
        def f():
            print(sum(int(word) for line in fileinput.input() for word in line.split()))
    """,
    "the buffer, line by line, written back as bytes": """
        import sys
        def f():
            total = sum(int(word) for line in sys.stdin.buffer for word in line.split())
            sys.stdout.buffer.write(b"%d\\n" % total)
    """,
    "os.read in pieces of three bytes": """
        import os
        def f():
            text = b""
            while part := os.read(0, 3): text += part
            os.write(1, str(sum(map(int, text.split()))).encode())
    """,
    "quit() after output": "def f():\n    print(sum(map(int, open(0).read().split())))\n    quit()",
    "sys.exit() in a thread of its own": """
        import sys, threading
        def work():
            print(sum(map(int, sys.stdin.read().split())), flush=True)
            sys.exit()
        def f():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """,
    "print reassigned and flushed": """
        import functools
        print = functools.partial(print, flush=True)
        def f():
            print(sum(map(int, open(0).read().split())))
    """,
    "output redirected and given back": """
        import contextlib, io, sys
        def f():
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                print(sum(map(int, open(0).read().split())))
            old, sys.stdout = sys.stdout, io.StringIO()
            print("noise")
            sys.stdout = old
            print(text.getvalue(), end="")
    """,
    "an iterator over input": """
        def f():
            lines = iter(input, None)
            total = 0
            try:
                for line in lines: total += sum(map(int, line.split()))
            except EOFError: pass
            print(total)
    """,
    "a warning, a log and a bare except": """
        import logging, sys, warnings
        def f():
            warnings.warn("old")
            logging.warning("odd")
            try: raise KeyError
            except: pass
            print(sum(map(int, sys.stdin.read().split())))
    """,
    "NumPy reads and adds": """
        import sys
        import numpy as np
        def f():
            print(np.array(sys.stdin.read().split(), dtype=np.int64).sum())
    """,
    "import __main__": """
        import __main__
        total = 0
        def f():
            __main__.total = sum(map(int, open(0).read().split()))
            print(total)
    """,
}

FUNCTIONS = {
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
    "globals looked at": """
        def f(a, b):
            assert [name for name in globals() if not name.startswith("__")] == ["f"]
            return a + b
    """,
    "NumPy, given back as a list": "import numpy as np\ndef f(a, b):\n    return (np.array([a]) + b).tolist()[0]",
    "NumPy, given back as an int": "import numpy as np\ndef f(a, b):\n    return int(np.add(a, b))",
    "linear algebra of NumPy": """
        import numpy as np
        def f(a, b):
            return float(np.linalg.det(np.diag([a, 1.0])).round()) + int(np.dot([b], [1]))
    """,
    "star imports": """
        from collections import *
        from heapq import *
        from math import *
        def f(a, b):
            queue = [b, a]
            heapify(queue)
            return heappop(queue) + Counter([b])[b] * b
    """,
    "decimal and fractions": """
        from decimal import Decimal, getcontext
        from fractions import Fraction
        getcontext().prec = 50
        def f(a, b):
            return int(Decimal(a) + Fraction(b, 1).numerator)
    """,
    "random with a seed": """
        import random
        random.seed(7)
        first = random.random()
        def f(a, b):
            random.seed(7)
            return a + b if random.random() == first else 0
    """,
    "dates": """
        from datetime import date, datetime, timedelta
        def f(a, b):
            return (date(2024, 2, 28) + timedelta(a) - date(2024, 2, 28)).days + b * (datetime.now().year > 2000)
    """,
    "asyncio with tasks and timeouts": """
        import asyncio
        async def part(x):
            await asyncio.sleep(0.001)
            return x
        async def work(a, b):
            return sum(await asyncio.wait_for(asyncio.gather(part(a), part(b)), 1))
        def f(a, b):
            return asyncio.run(work(a, b))
    """,
    "a pool of threads": """
        from concurrent.futures import ThreadPoolExecutor
        def f(a, b):
            with ThreadPoolExecutor(4) as pool:
                return sum(pool.map(int, [str(a), str(b)]))
    """,
    "a queue and a lock between threads": """
        import queue, threading
        def f(a, b):
            done = queue.Queue()
            lock = threading.Lock()
            def put(x):
                with lock: done.put(x)
            for x in (a, b): threading.Thread(target=put, args=(x,)).start()
            return done.get(timeout=1) + done.get(timeout=1)
    """,
    "generators that delegate": """
        def inner(x):
            got = yield x
            return got
        def outer(a, b):
            got = yield from inner(a)
            yield got + b
        def f(a, b):
            walk = outer(a, b)
            return walk.send(next(walk))
    """,
    "integers beyond 4,300 digits": """
        import sys
        sys.set_int_max_str_digits(0)
        def f(a, b):
            return a + b if len(str(10**9999 + a)) == 10000 else 0
    """,
    "names and text of any script": """
        def f(a, b):
            größe, 数 = a, b
            print("größe 数 🎈")
            return größe + 数
    """,
    "walrus, star patterns and keyword-only names": """
        def add(*, left, right):
            return left + right
        def f(a, b):
            match [a, b]:
                case [x, *rest] if (y := rest[0]) >= 0:
                    return add(left=x, right=y)
    """,
    "exceptions for control flow": """
        class Found(Exception): pass
        def f(a, b):
            try:
                for x in range(100):
                    if x == a + b: raise Found(x)
            except* Found as group:
                pass
            try:
                for x in range(100):
                    if x == a + b: raise Found(x)
            except Found as found:
                return found.args[0]
            finally:
                x = 0
    """,
    "a short sleep": "import time\ndef f(a, b):\n    time.sleep(0.01)\n    return a + b",
    "slots, properties and a metaclass": """
        class Meta(type):
            def __call__(cls, *args): return super().__call__(*args)
        class P(metaclass=Meta):
            __slots__ = ("_x",)
            def __init__(self, x): self._x = x
            @property
            def x(self): return self._x
        def f(a, b):
            return P(a).x + P(b).x
    """,
    "templates and pretty printing": """
        import pprint, string, textwrap
        def f(a, b):
            pprint.pprint({"a": [a] * 40})
            return int(string.Template("$a").substitute(a=a)) + len(textwrap.wrap("x " * b, 2))
    """,
    "compression, hashes and base64": """
        import base64, hashlib, json, zlib
        def f(a, b):
            text = base64.b64encode(zlib.compress(json.dumps([a, b]).encode()))
            assert len(hashlib.sha256(text).hexdigest()) == 64
            return sum(json.loads(zlib.decompress(base64.b64decode(text))))
    """,
    "several classes, one the base of another": """
        from abc import ABC, abstractmethod
        class Shape(ABC):
            @abstractmethod
            def size(self): ...
        class Line(Shape):
            def __init__(self, n): self.n = n
            def size(self): return self.n
        def f(a, b):
            return sum(shape.size() for shape in map(Line, (a, b)))
    """,
    "state in globals": """
        memo = {}
        def f(a, b):
            global memo
            memo = {**memo, (a, b): a + b}
            return memo[a, b]
    """,
    "copies, pickles and weak references": """
        import copy, pickle, weakref
        class P:
            def __init__(self, x): self.x = x
        def f(a, b):
            p = copy.deepcopy(P(a))
            return weakref.ref(p)().x + pickle.loads(pickle.dumps(b))
    """,
    "statistics, arrays and structures": """
        import array, statistics, struct
        def f(a, b):
            return int(statistics.mean([a, b]) * 2) + len(array.array("i", [])) + len(struct.pack("<0i"))
    """,
    "regular expressions": "import re\ndef f(a, b):\n    return sum(map(int, re.findall(r'\\d+', f'{a}, {b}')))",
    "code that is compiled": "def f(a, b):\n    return eval(compile('a + b', '<x>', 'eval'), {'a': a, 'b': b})",
    "a signal for itself": """
        import signal
        def f(a, b):
            signal.signal(signal.SIGALRM, lambda *x: None)
            signal.setitimer(signal.ITIMER_REAL, 9)
            signal.alarm(0)
            return a + b
    """,
    "text files in memory": """
        import csv, io
        def f(a, b):
            file = io.StringIO(f"{a},{b}\\n")
            return sum(map(int, next(csv.reader(file))))
    """,
    "ordered containers": """
        from collections import ChainMap, OrderedDict, defaultdict, deque
        from sortedcontainers import SortedDict, SortedSet
        def f(a, b):
            return sum(SortedDict({a: 1, b: 2})) * (a != b) + 2 * a * (a == b) + len(SortedSet()) + len(ChainMap())
    """,
}

CONTROLS = [
    *(Control(f"reader: {name}", program, SUM) for name, program in READERS.items()),
    *(Control(f"function: {name}", program, ADD) for name, program in FUNCTIONS.items()),
    Control(
        "reader: carriage returns in the input",
        READERS["lines of stdin"],
        (StdinTest(stdin="3 4\r\n5\r\n", stdout="12\r\n"),),
    ),
]
