"""Resources: memory, processes, descriptors, disk, output, and objects of the kernel that outlive a process.

Counts are small and hard: a program that is not kept from it does not take the machine down.
"""

from __future__ import annotations

from hostile.case import COMPILE, ERROR, FAILS, MEMORY, OUTPUT, SECURITY, TIMEOUT, WRONG, Case, a_script, two_calls

LEFT = "an object of the kernel outlives the program"
GROWS = "the judge's memory grows"
LIVES = "a process outlives the verdict"

CASES = [
    # Memory.
    Case(
        "all memory",
        "def f(a):\n    x = []\n    while True: x.append(bytearray(1 << 20))",
        {MEMORY, TIMEOUT},
    ),
    Case(
        "all memory, and it keeps the error to itself",
        """
        def f(a):
            x = []
            while True:
                try: x.append(bytearray(1 << 26))
                except MemoryError: pass
        """,
        {TIMEOUT, MEMORY},
    ),
    Case("a list beyond memory", "def f(a):\n    return [0] * 10**10", {MEMORY}),
    Case(
        "pages that are mapped",
        """
        import mmap
        def f(a):
            x = []
            for _ in range(64):
                x.append(mmap.mmap(-1, 16 << 20))
                x[-1].write(b"x" * (16 << 20))
        """,
        {ERROR, MEMORY, TIMEOUT},
        harm="a gigabyte is taken",
    ),
    Case(
        "files in memory",
        """
        import os
        def f(a):
            for number in range(40):
                fd = os.memfd_create("x")
                os.ftruncate(fd, 32 << 20)
                os.posix_fallocate(fd, 0, 32 << 20)
            print("BREACH")
        """,
        harm="a gigabyte is taken that no limit of address space counts",
    ),
    Case(
        "files in memory by small writes",
        """
        import os
        def f(a):
            for number in range(50):
                fd = os.memfd_create("x")
                for _ in range(16): os.write(fd, bytes(1 << 20))
            print("BREACH")
        """,
        harm="memory is taken that no limit of address space counts",
    ),
    Case(
        "pipes of a megabyte",
        """
        import fcntl, os
        def f(a):
            for _ in range(24):
                r, w = os.pipe()
                try: fcntl.fcntl(w, 1031, 1 << 20)  # F_SETPIPE_SZ
                except OSError: pass
                os.set_blocking(w, False)
                os.write(w, bytes(1 << 20))
            return 0
        """,
        harm="memory stays taken",
    ),
    Case(
        "sockets full of data",
        """
        import socket
        def f(a):
            for _ in range(24):
                ours, theirs = socket.socketpair()
                try: ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
                except OSError: pass
                ours.setblocking(False)
                ours.send(bytes(1 << 22))
            return 0
        """,
        harm="memory stays taken",
    ),
    Case(
        "memory that cannot be swapped",
        """
        import ctypes, mmap
        def f(a):
            page = mmap.mmap(-1, 64 << 20)
            ctypes.CDLL(None).mlockall(3)
            return 0
        """,
        harm="memory stays locked",
    ),
    Case(
        "NumPy without end",
        """
        import numpy
        def f(a):
            x = []
            while True: x.append(numpy.ones(1 << 20))
        """,
        {MEMORY, TIMEOUT, ERROR},
    ),
    # Processes and threads.
    Case(
        "a chain of forks",
        """
        import os
        def f(a):
            for _ in range(60):
                if os.fork(): break
            import time
            time.sleep(60)
        """,
        harm=LIVES,
    ),
    Case(
        "a tree of forks",
        """
        import os, time
        def f(a):
            for _ in range(6):
                os.fork()
            time.sleep(60)
        """,
        harm=LIVES,
    ),
    Case(
        "many forks that end at once",
        """
        import os
        def f(a):
            for _ in range(100):
                if os.fork() == 0: os._exit(0)
            return 0
        """,
        harm="dead processes that nobody waits for",
    ),
    Case(
        "daemons",
        """
        import os, signal, time
        def f(a):
            for _ in range(5):
                if os.fork() == 0:
                    os.setsid()
                    for number in range(1, 32):
                        try: signal.signal(number, signal.SIG_IGN)
                        except OSError: pass
                    if os.fork() == 0:
                        while True: time.sleep(1)
                    while True: time.sleep(1)
            return 0
        """,
        harm=LIVES,
    ),
    Case(
        "daemons that go on forking",
        """
        import os, time
        def f(a):
            if os.fork() == 0:
                os.setsid()
                for _ in range(300):
                    if os.fork(): os._exit(0)
                    os.setsid()
                    time.sleep(0.01)
                os._exit(0)
            return 0
        """,
        harm=LIVES,
    ),
    Case(
        "a process without its parent's signals",
        """
        @SYSCALLS@
        import time
        def f(a):
            pid = call("clone", 0, 0, 0, 0, 0)
            if pid == 0:
                os.setsid()
                time.sleep(60)
            return 0
        """,
        harm=LIVES,
    ),
    Case(
        "a sibling for a child",
        """
        @SYSCALLS@
        import time
        def f(a):
            pid = call("clone", 0x8000 | 17, 0, 0, 0, 0)  # CLONE_PARENT
            if pid == 0:
                os.setsid()
                time.sleep(60)
            return 0
        """,
        harm=LIVES,
    ),
    Case(
        "threads without end",
        """
        import threading, time
        threading.stack_size(1 << 16)
        def f(a):
            for _ in range(2000): threading.Thread(target=time.sleep, args=[60], daemon=True).start()
            return 0
        """,
    ),
    Case("descriptors without end", "import os\ndef f(a):\n    while True: os.dup(0)", {ERROR}),
    Case("every descriptor closed", "import os\ndef f(a):\n    os.closerange(0, 256)\n    return 0", {ERROR}),
    Case(
        "more descriptors than it may have",
        """
        import os, resource
        def f(a):
            resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
            print("BREACH")
        """,
        harm="limits may be raised",
    ),
    Case(
        "more of everything than it may have",
        """
        import resource
        def f(a):
            for which in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
                try: resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                except (OSError, ValueError): continue
                print("BREACH", which)
        """,
        harm="limits may be raised",
    ),
    # Disk.
    Case(
        "a core file",
        """
        import os, resource
        def f(a):
            try: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            except (OSError, ValueError): pass
            os.abort()
        """,
        {ERROR, SECURITY},
        harm="a core file is left, which holds the memory of the program",
    ),
    Case(
        "a thousand files of its greatest size",
        """
        def f(a):
            for number in range(1000):
                with open(f"file{number}", "wb") as file: file.write(bytes(1 << 16))
            return 0
        """,
    ),
    Case(
        "a sparse file of a terabyte",
        "import os\ndef f(a):\n    os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 1 << 40)\n    return 0",
        {ERROR, OUTPUT, SECURITY},
    ),
    Case(
        "two thousand folders",
        "import os\ndef f(a):\n    for number in range(2000): os.mkdir(str(number))\n    return 0",
    ),
    # Output and values.
    Case("output without end", "import os\ndef f(a):\n    while True: os.write(1, b'x' * 999)", {OUTPUT}),
    Case("output of a script without end", "def f():\n    while True: print('x' * 99)", {OUTPUT}, a_script),
    Case(
        "output without end, and it ignores the signal",
        """
        import os, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def f(a):
            while True:
                try: os.write(1, b"x" * 9999)
                except OSError: pass
        """,
        {TIMEOUT, OUTPUT},
    ),
    Case("closed output", "import os\ndef f():\n    os.close(1)\n    print(7)", {WRONG, ERROR}, a_script),
    Case("a value of 150 megabytes", "def f(a):\n    return 'x' * (150 << 20)", {MEMORY, OUTPUT, TIMEOUT}, harm=GROWS),
    Case("a list of a million lists", "def f(a):\n    return [[]] * 10**6", {OUTPUT, TIMEOUT, MEMORY}, harm=GROWS),
    Case("nested values", "def f(a):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x", {WRONG}),
    Case(
        "shared values that double",
        "def f(a):\n    x = []\n    for _ in range(60): x = [x, x]\n    return x",
        {TIMEOUT, MEMORY, OUTPUT},
        harm=GROWS,
    ),
    Case("an integer of 100,000 digits", "def f(a):\n    return 10**100_000", {WRONG, OUTPUT}),
    Case("an integer of 30,000 digits", "def f(a):\n    return 10**30_000", {WRONG, OUTPUT}),
    Case("integers of 4,000 digits", "def f(a):\n    return [10**4000] * 9", {WRONG, OUTPUT}),
    Case("text of half characters", "def f(a):\n    return '\\ud800' * 999 + '\\0'", {WRONG}),
    Case("a message of a megabyte", "def f(a):\n    raise ValueError('x' * 10**6)", {ERROR}),
    Case(
        "a type with a name of a megabyte",
        "def f(a):\n    raise type('x' * 10**6, (Exception,), {})",
        {ERROR},
    ),
    Case("an object of such a type", "def f(a):\n    return type('x' * 10**6, (), {})()", {WRONG, OUTPUT}),
    Case(
        "a gigantic representation",
        "class R:\n    def __repr__(self): return 'x' * 10**8\ndef f(a):\n    print(R())",
        {OUTPUT, MEMORY, TIMEOUT},
    ),
    Case(
        "a message that raises",
        "class E(Exception):\n    def __str__(self): raise self\ndef f(a):\n    raise E",
        {ERROR},
    ),
    Case(
        "exceptions that hold one another",
        """
        def f(a):
            error = None
            for _ in range(10**5):
                new = ValueError()
                new.__context__ = new.__cause__ = error
                error = new
            raise error
        """,
        {ERROR, TIMEOUT},
    ),
    Case("binary output", "import os\ndef f():\n    os.write(1, bytes(range(256)) * 200)", {WRONG}, a_script),
    Case("output of empty lines", "def f():\n    print('\\n' * 60_000)", {WRONG}, a_script),
    # Recursion.
    Case("recursion without end", "def f(a):\n    return f(a)", {ERROR}),
    Case(
        "recursion beyond the stack",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(a):\n    return max([a], key=lambda x: f(a))",
        {ERROR, MEMORY, TIMEOUT},
    ),
    Case(
        "recursion in C",
        "def f(a):\n    x = None\n    for _ in range(10**6): x = iter([x]) and (x,)\n    return hash(x)",
        {ERROR, TIMEOUT, MEMORY, WRONG},
    ),
    Case("an address that is not there", "import ctypes\ndef f(a):\n    ctypes.string_at(0)", {ERROR}),
    Case("a compiler's bomb", "x = " + "(" * 199 + "1" + ",)" * 199 + "\ny = " + "[" * 5000, {COMPILE}),
    Case(
        "constants that multiply",
        "x = ((((1,) * 255,) * 255,) * 255,) * 255\ndef f(a):\n    return 0",
        {COMPILE, WRONG, MEMORY, TIMEOUT, ERROR},
        two_calls,
    ),
    Case("a power in a constant", "x = 'a' * (10**9)\ndef f(a):\n    return 0", {COMPILE, MEMORY, TIMEOUT}),
    Case(
        "a chain of operators",
        "x = " + "+".join(["1"] * 50_000) + "\ndef f(a):\n    return 0",
        {COMPILE, WRONG, ERROR, TIMEOUT},
    ),
    # Objects that outlive a process.
    Case(
        "shared memory of System V",
        '@SYSCALLS@\ndef f(a):\n    return call("shmget", @KEY@, 1 << 20, 0o1600)',
        harm=LEFT,
    ),
    Case(
        "semaphores of System V",
        '@SYSCALLS@\ndef f(a):\n    return call("semget", @KEY@, 1, 0o1600)',
        harm=LEFT,
    ),
    Case(
        "a queue of System V",
        '@SYSCALLS@\ndef f(a):\n    return call("msgget", @KEY@, 0o1600)',
        harm=LEFT,
    ),
    Case(
        "a POSIX queue",
        """
        import ctypes
        def f(a):
            return ctypes.CDLL(None).mq_open(b"/@NAME@", 0o102, 0o600, None)
        """,
        harm=LEFT,
    ),
    Case(
        "POSIX shared memory",
        """
        from multiprocessing import shared_memory
        def f(a):
            return shared_memory.SharedMemory("@NAME@", True, 4096).size
        """,
        harm=LEFT,
    ),
    Case(
        "a POSIX semaphore",
        'import ctypes\ndef f(a):\n    ctypes.CDLL(None).sem_open(b"/@NAME@", 0o100, 0o600, 1)',
        harm=LEFT,
    ),
    Case(
        "a key",
        '@SYSCALLS@\ndef f(a):\n    return call("add_key", b"user", b"@NAME@", b"x", 1, -4)',
        harm=LEFT,
    ),
    Case(
        "timers and signals that wait",
        """
        import ctypes, os, signal
        def f(a):
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            libc = ctypes.CDLL(None)
            for _ in range(2000): libc.sigqueue(os.getpid(), 40, 0)
            for _ in range(500): libc.timer_create(0, None, ctypes.byref(ctypes.c_long()))
            return 0
        """,
        FAILS,
        harm="the user's signals are used up",
    ),
]
