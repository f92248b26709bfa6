"""Leaving early: a program that ends before it answered has not answered."""

from __future__ import annotations

from hostile.case import ERROR, SECURITY, TIMEOUT, WRONG, Case, a_script, two_calls

CASES = [
    Case("exits at module level", "import sys\nsys.exit(0)\ndef f(a): pass", {ERROR}),
    Case("exits in the call", "def f(a):\n    raise SystemExit(0)", {ERROR}, two_calls),
    Case("quits by the builtin", "def f(a):\n    quit()", {ERROR}),
    Case("ends the process at module level", "import os\nos._exit(0)", {ERROR}, two_calls),
    Case("ends the process in the call", "import os\ndef f(a):\n    os._exit(0)", {ERROR}, two_calls),
    Case(
        "leaves by an exit handler",
        "import atexit, os, sys\natexit.register(os._exit, 0)\ndef f(a):\n    sys.exit()",
        {ERROR},
    ),
    Case(
        "leaves by the exception hook",
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(a):\n    raise ValueError",
        {ERROR},
    ),
    Case(
        "leaves by an unraisable exception",
        """
        import os, sys
        sys.unraisablehook = lambda *a: os._exit(0)
        class Bad:
            def __del__(self): raise ValueError
        def f(a):
            Bad()
            return None
        """,
        {ERROR},
    ),
    Case("stops every exception", "def f(a):\n    raise GeneratorExit", {ERROR}),
    Case("interrupts itself", "def f(a):\n    raise KeyboardInterrupt", {ERROR}),
    Case(
        "leaves when its value is let go",
        """
        import os
        class Last:
            def __del__(self): os._exit(0)
        def f(a):
            return Last()
        """,
        {ERROR, WRONG},
    ),
    Case(
        "leaves from a thread while the call waits",
        """
        import os, threading, time
        def f(a):
            threading.Timer(0.05, os._exit, [0]).start()
            time.sleep(9)
        """,
        {ERROR},
    ),
    Case(
        "leaves from an audit hook when the judge writes",
        """
        import os, sys
        def f(a):
            sys.addaudithook(lambda event, args: os._exit(0))
            open("x", "w")
        """,
        {ERROR, SECURITY},
    ),
    Case("aborts", "import os\ndef f(a):\n    os.abort()", {ERROR}),
    Case("ends itself politely", "import os\ndef f(a):\n    os.kill(os.getpid(), 15)", {ERROR}),
    Case(
        "exits as it is built",
        "class Solution:\n    def __new__(cls): raise SystemExit(0)\nf = lambda a: Solution()",
        {ERROR},
    ),
    Case(
        "becomes its own parent",
        """
        import os, time
        def f(a):
            if os.fork(): os._exit(0)
            time.sleep(0.05)
            return None
        """,
        {ERROR, SECURITY, WRONG, TIMEOUT},
    ),
    Case("a script that leaves without an answer", "import os\ndef f():\n    os._exit(0)", {WRONG}, a_script),
    Case("a script that exits with success", "def f():\n    exit(0)", {WRONG}, a_script),
    Case("a script that exits with None", "raise SystemExit\ndef f(): pass", {WRONG}, a_script),
    Case(
        "a script that exits with an odd status",
        "class Zero(int):\n    __and__ = lambda s, o: 0\ndef f():\n    raise SystemExit(Zero(3))",
        {ERROR, WRONG},
        a_script,
    ),
]
