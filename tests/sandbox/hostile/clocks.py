"""Time: no program runs on after its limit, whatever it does to signals and clocks."""

from __future__ import annotations

from hostile.case import ERROR, MEMORY, OUTPUT, SECURITY, TIMEOUT, WRONG, Case, a_script, two_calls

CASES = [
    Case(
        "catches everything in a loop",
        """
        def f(a):
            while True:
                try:
                    while True: pass
                except BaseException: pass
        """,
        {TIMEOUT},
        two_calls,
    ),
    Case(
        "ignores every signal",
        """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        def f(a):
            while True: pass
        """,
        {TIMEOUT},
    ),
    Case(
        "cancels every alarm",
        """
        import signal
        def f(a):
            while True:
                signal.alarm(0)
                for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
                    signal.setitimer(which, 0)
        """,
        {TIMEOUT, SECURITY},
    ),
    Case(
        "raises its limit of CPU time",
        """
        import resource, signal
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        try: resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError): pass
        def f(a):
            while True: pass
        """,
        {TIMEOUT, SECURITY},
    ),
    Case(
        "freezes the clocks",
        """
        import time
        time.time = time.monotonic = time.process_time = time.perf_counter = time.clock_gettime = lambda *a: 0
        def f(a):
            while True: pass
        """,
        {TIMEOUT},
    ),
    Case(
        "steps back in priority",
        """
        import os
        for step in (lambda: os.nice(19), lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))):
            try: step()
            except OSError: pass
        def f(a):
            while True: pass
        """,
        {TIMEOUT, SECURITY},
    ),
    Case(
        "steps forward in priority",
        """
        import os
        def f(a):
            for policy in (os.SCHED_FIFO, os.SCHED_RR):
                try: os.sched_setscheduler(0, policy, os.sched_param(1))
                except OSError: continue
                print("BREACH")
            try: os.nice(-5)
            except OSError: return 0
            print("BREACH")
        """,
        {WRONG, ERROR, SECURITY},
        harm="the program runs before all others",
    ),
    Case(
        "threads that burn",
        """
        import threading
        def burn():
            while True: pass
        def f(a):
            for _ in range(4): threading.Thread(target=burn).start()
            burn()
        """,
        {TIMEOUT},
    ),
    Case(
        "threads that burn while it sleeps",
        """
        import threading, time
        def burn():
            while True: pass
        def f(a):
            for _ in range(4): threading.Thread(target=burn, daemon=True).start()
            time.sleep(60)
        """,
        {TIMEOUT},
    ),
    Case(
        "children that burn while it sleeps",
        """
        import os, time
        def f(a):
            for _ in range(3):
                if os.fork() == 0:
                    while True: pass
            time.sleep(60)
        """,
        {TIMEOUT, SECURITY, ERROR},
        harm="a process burns on",
    ),
    Case(
        "children that burn after its answer",
        """
        import os
        def f(a):
            for _ in range(3):
                if os.fork() == 0:
                    while True: pass
            return 0
        """,
        {WRONG, SECURITY, ERROR},
        harm="a process burns on",
    ),
    Case("sleeps", "import time\ndef f(a):\n    time.sleep(60)", {TIMEOUT}),
    Case(
        "sleeps where signals do not reach",
        """
        import signal, time
        def f(a):
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            signal.sigwait([signal.SIGUSR1])
        """,
        {TIMEOUT},
    ),
    Case(
        "waits in vfork",
        """
        @SYSCALLS@
        import time
        def f(a):
            if os.fork() == 0:
                time.sleep(60)
            os.waitpid(-1, 0)
        """,
        {TIMEOUT, ERROR, SECURITY},
    ),
    Case("stops itself", "import os\ndef f(a):\n    os.kill(os.getpid(), 19)", {TIMEOUT, ERROR}),
    Case(
        "stops itself, then burns in a child",
        """
        import os
        def f(a):
            pid = os.getpid()
            if os.fork() == 0:
                while True:
                    try: os.kill(pid, 19)
                    except OSError: os._exit(0)
            while True: pass
        """,
        {TIMEOUT, ERROR, SECURITY},
    ),
    Case(
        "reads from a pipe that nobody writes",
        "import os\ndef f(a):\n    r, w = os.pipe()\n    os.read(r, 1)",
        {TIMEOUT},
    ),
    Case(
        "an endless message",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(a):\n    raise E",
        {TIMEOUT},
    ),
    Case(
        "an endless conversion of the value",
        """
        class Meta(type):
            def __eq__(self, other):
                while True: pass
            __hash__ = type.__hash__
        class Endless(metaclass=Meta): pass
        def f(a):
            return [Endless()]
        """,
        {TIMEOUT, WRONG},
    ),
    Case(
        "an endless destructor",
        """
        class Endless:
            def __del__(self):
                while True: pass
        def f(a):
            x = Endless()
            del x
        """,
        {TIMEOUT},
    ),
    Case("an endless module level", "while True: pass", {TIMEOUT}, two_calls),
    Case(
        "an endless end of a script",
        "import atexit, time\natexit.register(time.sleep, 60)\ndef f():\n    print(1)",
        {TIMEOUT},
        a_script,
    ),
    Case(
        "a thread that a script leaves behind",
        """
        import threading, time
        def f():
            threading.Thread(target=time.sleep, args=[60]).start()
        """,
        {TIMEOUT},
        a_script,
    ),
    Case("loops in C", "def f(a):\n    return sum(iter(int, 1))", {TIMEOUT, MEMORY}),
    Case("a sum in C", "def f(a):\n    return sum(range(10**12))", {TIMEOUT}),
    Case("a power without end", "def f(a):\n    return 10**10**8", {TIMEOUT, MEMORY, OUTPUT}),
    Case("a power that no memory holds", "def f(a):\n    x = a + 8\n    return x ** x ** x ** x", {TIMEOUT, MEMORY}),
    Case(
        "a regular expression that backtracks",
        "import re\ndef f(a):\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')",
        {TIMEOUT},
    ),
    Case(
        "a number in decimal digits",
        "def f(a):\n    import sys\n    sys.set_int_max_str_digits(0)\n    return str(7**4_000_000)",
        {TIMEOUT, OUTPUT, MEMORY},
    ),
    Case(
        "burns through the module level, a little a test",
        """
        import time
        end = time.process_time() + 0.4
        while time.process_time() < end: pass
        def f(a):
            end = time.process_time() + 0.45
            while time.process_time() < end: pass
            return 0
        """,
        {TIMEOUT, WRONG},
    ),
]
