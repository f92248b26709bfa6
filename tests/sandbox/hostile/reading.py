"""Reading the answers: they are nowhere near a program. Each returns the answer if it finds it, which would pass."""

from __future__ import annotations

from dataclasses import replace

from hostile.case import ERROR, FAILS, LIMITS, SECURITY, TIMEOUT, WRONG, Case, a_script, two_calls

LONGER = replace(LIMITS, cpu_seconds=3.0, wall_seconds=6.0, memory_mib=512)
HARM = "the program knows the expected value"

CASES = [
    Case(
        "all objects",
        """
        @SEARCH@
        import gc
        def f(a):
            for o in gc.get_objects():
                items = o.values() if type(o) is dict else o if type(o) in (list, tuple) else []
                for x in items:
                    if type(x) in (str, bytes):
                        found = say(x.encode(errors="replace") if type(x) is str else x)
                        if found: return found
        """,
        {WRONG},
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "frames",
        """
        @SEARCH@
        import sys
        def f(a):
            frame = sys._getframe()
            while frame:
                found = say(repr((frame.f_locals, frame.f_code.co_consts)).encode(errors="replace"))
                if found: return found
                frame = frame.f_back
        """,
        {WRONG},
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "frames of every thread, by a traceback",
        """
        @SEARCH@
        import sys
        def f(a):
            try: raise ValueError
            except ValueError as error: traces = [error.__traceback__.tb_frame]
            traces += sys._current_frames().values()
            for frame in traces:
                while frame:
                    found = say(repr(list(frame.f_globals.items())).encode(errors="replace"))
                    if found: return found
                    frame = frame.f_back
        """,
        {WRONG},
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "its own memory",
        "@SEARCH@\ndef f(a):\n    return memory_of('self')",
        FAILS,
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "its own memory through C",
        """
        @SEARCH@
        import ctypes
        def f(a):
            for line in open("/proc/self/maps"):
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                if line.split()[1].startswith("rw") and end - start < 1 << 26 and "stack" not in line:
                    found = say(ctypes.string_at(start, end - start))
                    if found: return found
        """,
        FAILS,
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "the memory of its parent",
        "@SEARCH@\ndef f(a):\n    return memory_of(os.getppid())",
        FAILS,
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "the memory of the judge",
        """
        @SEARCH@
        def f(a):
            judge = parent_of(os.getppid())
            with open(f"/proc/{judge}/maps") as maps, open(f"/proc/{judge}/mem", "rb", 0) as memory:
                for line in maps:
                    if "[heap]" in line:
                        start, end = (int(x, 16) for x in line.split()[0].split("-"))
                        for at in range(start, end, 1 << 22):
                            memory.seek(at)
                            found = say(memory.read(min(1 << 22, end - at)))
                            if found: return found
        """,
        FAILS,
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "the memory of the judge by one system call",
        """
        @SEARCH@
        @SYSCALLS@
        def f(a):
            judge = parent_of(os.getppid())
            for line in open(f"/proc/{judge}/maps"):
                if "[heap]" in line:
                    start, end = (int(x, 16) for x in line.split()[0].split("-"))
                    for at in range(start, end, 1 << 22):
                        found = say(read_memory(judge, at, min(1 << 22, end - at)))
                        if found: return found
        """,
        FAILS,
        two_calls,
        HARM,
        limits=LONGER,
    ),
    Case(
        "the judge's registers and memory by ptrace",
        """
        @SYSCALLS@
        def f(a):
            for pid in (os.getppid(),):
                if pid > 1 and call("ptrace", 0x4206, pid, 0, 0) == 0:  # PTRACE_SEIZE
                    print("BREACH")
                    call("ptrace", 17, pid, 0, 0)  # PTRACE_DETACH
        """,
        FAILS,
        harm="the program traces the process that forked it",
    ),
    Case(
        "descriptors",
        """
        @SEARCH@
        def f(a):
            for fd in range(64):
                try: found = say(os.pread(fd, 1 << 20, 0))
                except OSError: continue
                if found: return found
        """,
        {WRONG},
        two_calls,
        HARM,
    ),
    Case(
        "descriptors of its parent and of the judge",
        """
        @SEARCH@
        def f(a):
            for pid in (os.getppid(), parent_of(os.getppid())):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    try:
                        with open(f"/proc/{pid}/fd/{fd}", "rb") as file: found = say(file.read(1 << 20))
                    except OSError: continue
                    if found: return found
        """,
        FAILS,
        two_calls,
        HARM,
    ),
    Case(
        "descriptors of the judge, taken",
        """
        @SEARCH@
        @SYSCALLS@
        def f(a):
            for pid in (os.getppid(), parent_of(os.getppid())):
                process = call("pidfd_open", pid, 0)
                for fd in range(64):
                    taken = call("pidfd_getfd", process, fd, 0)
                    if taken >= 0:
                        print("BREACH")
                        try: found = say(os.pread(taken, 1 << 20, 0))
                        except OSError: continue
                        if found: return found
        """,
        FAILS,
        harm="the program holds a descriptor of the judge",
    ),
    Case(
        "what waits on the link",
        """
        @SEARCH@
        import socket, stat
        def f(a):
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        link = socket.socket(fileno=os.dup(fd))
                        found = say(link.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT))
                        if found: return found
                except OSError: continue
        """,
        {WRONG},
        two_calls,
        HARM,
    ),
    Case(
        "the next test, asked for by a claim",
        """
        @SEARCH@
        @FORGE@
        import socket, stat
        def f(a):
            forge(b'{"test":0,"value":null}')
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        return say(os.read(fd, 1 << 16))
                except OSError: continue
        """,
        {SECURITY, WRONG, TIMEOUT},
        two_calls,
        HARM,
    ),
    Case(
        "an answer for a check that it never was",
        "@SEARCH@\n@FORGE@\ndef f(a):\n    forge(b'{\"roots\":[],\"heap\":[]}', b'A')\n    return None",
        {SECURITY},
        two_calls,
        HARM,
    ),
    Case(
        "a file of tests",
        """
        @SEARCH@
        def f(a):
            with open("@FOLDER@/test.jsonl", "rb") as file: return say(file.read())
        """,
        FAILS,
        two_calls,
        HARM,
    ),
    Case(
        "every file under the folder of data",
        """
        @SEARCH@
        def f(a):
            for folder, _, names in os.walk("@FOLDER@"):
                print(folder, names)
                for name in names:
                    try: found = say(open(os.path.join(folder, name), "rb").read())
                    except OSError: continue
                    if found: return found
        """,
        FAILS,
        two_calls,
        "the folder's names or its content",
    ),
    Case(
        "the command line and environment of the judge",
        """
        @SEARCH@
        def f(a):
            for pid in ("self", os.getppid(), parent_of(os.getppid())):
                for name in ("cmdline", "environ"):
                    try: found = say(open(f"/proc/{pid}/{name}", "rb").read())
                    except OSError: continue
                    if found: return found
        """,
        FAILS,
        two_calls,
        HARM,
    ),
    Case(
        "a script that prints all its descriptors",
        """
        import os
        def f():
            for fd in range(64):
                try: os.write(1, os.pread(fd, 1 << 15, 0))
                except OSError: pass
        """,
        {WRONG},
        a_script,
        HARM,
    ),
    Case(
        "a script that reads beyond its input",
        """
        @SEARCH@
        def f():
            size = os.fstat(0).st_size
            print(say(os.pread(0, 1 << 16, 0)) or os.pread(0, 1 << 16, size))
        """,
        {WRONG, ERROR},
        a_script,
        HARM,
    ),
    Case(
        "maps, stacks and symbols of the kernel",
        """
        @SEARCH@
        def f(a):
            for name in ("/proc/kcore", "/dev/mem", "/dev/kmem", "/proc/kmsg", "/proc/1/mem", "/dev/port"):
                try:
                    os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
                    print("BREACH", name)
                except OSError: continue
        """,
        FAILS,
        harm="the program opens the memory of the machine",
    ),
]
