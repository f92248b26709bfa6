"""Escapes to processes: a neighbour of the same user is neither signalled, slowed, traced nor written to.

The neighbour is a process that the test started. The program's parent is the zygote, of its own slot.
"""

from __future__ import annotations

from hostile.case import Case, a_script

HARM = "the neighbour is ended, stopped or changed"
PARENT = "the judge's own process is ended, and the program escapes its reward"


CASES = [
    Case("kills it", "import os\ndef f(a):\n    os.kill(@PID@, 9)", harm=HARM),
    Case("ends it politely", "import os\ndef f(a):\n    os.kill(@PID@, 15)", harm=HARM),
    Case("stops it", "import os\ndef f(a):\n    os.kill(@PID@, 19)", harm=HARM),
    Case("kills its group", "import os\ndef f(a):\n    os.killpg(@PID@, 9)", harm=HARM),
    Case(
        "asks whether it lives",
        "import os\ndef f(a):\n    os.kill(@PID@, 0)\n    print('BREACH')",
        harm="a signal may be sent",
    ),
    Case("kills its thread", '@SYSCALLS@\ndef f(a):\n    return call("tgkill", @PID@, @PID@, 9)', harm=HARM),
    Case(
        "queues a signal",
        """
        @SYSCALLS@
        def f(a):
            info = ctypes.create_string_buffer(128)
            ctypes.c_int.from_buffer(info, 0).value = 9
            ctypes.c_int.from_buffer(info, 8).value = -1
            return call("rt_sigqueueinfo", @PID@, 9, info)
        """,
        harm=HARM,
    ),
    Case(
        "signals it by a descriptor",
        '@SYSCALLS@\ndef f(a):\n    return call("pidfd_send_signal", call("pidfd_open", @PID@, 0), 9, 0, 0)',
        harm=HARM,
    ),
    Case(
        "signals it by its folder in /proc",
        """
        @SYSCALLS@
        def f(a):
            return call("pidfd_send_signal", os.open("/proc/@PID@", os.O_RDONLY | os.O_DIRECTORY), 9, 0, 0)
        """,
        harm=HARM,
    ),
    Case(
        "has the kernel signal it when data comes",
        """
        import fcntl, os, socket
        def f(a):
            ours, theirs = socket.socketpair()
            fcntl.fcntl(ours, fcntl.F_SETOWN, @PID@)
            fcntl.fcntl(ours, 10, 9)  # F_SETSIG, SIGKILL
            fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            theirs.send(b"x")
        """,
        harm=HARM,
    ),
    Case(
        "has the kernel signal it when a pipe fills",
        """
        import fcntl, os
        def f(a):
            r, w = os.pipe()
            fcntl.fcntl(r, fcntl.F_SETOWN, @PID@)
            fcntl.fcntl(r, 10, 9)
            fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
            os.write(w, b"x")
        """,
        harm=HARM,
    ),
    Case(
        "has the kernel signal it when a lease breaks",
        """
        import fcntl, os
        def f(a):
            open("mine", "w").close()
            fd = os.open("mine", os.O_RDONLY)
            fcntl.fcntl(fd, fcntl.F_SETOWN, @PID@)
            fcntl.fcntl(fd, 10, 9)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            try: os.open("mine", os.O_RDWR | os.O_NONBLOCK)
            except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "attaches to it",
        '@SYSCALLS@\ndef f(a):\n    if call("ptrace", 16, @PID@, 0, 0) == 0: print("BREACH")',
        harm=HARM,
    ),
    Case(
        "attaches to it and dies",
        """
        @SYSCALLS@
        def f(a):
            if call("ptrace", 0x4206, @PID@, 0, 0x100000) == 0:  # PTRACE_O_EXITKILL
                print("BREACH")
        """,
        harm=HARM,
    ),
    Case(
        "writes its memory",
        '@SYSCALLS@\ndef f(a):\n    return write_memory(@PID@, @ADDRESS@, b"gone")',
        harm=HARM,
    ),
    Case(
        "writes its memory by /proc",
        """
        def f(a):
            with open("/proc/@PID@/mem", "r+b", 0) as memory:
                memory.seek(@ADDRESS@)
                memory.write(b"gone")
        """,
        harm=HARM,
    ),
    Case(
        "advises the kernel on its memory",
        """
        @SYSCALLS@
        def f(a):
            theirs, process = Vector(@ADDRESS@ & ~4095, 4096), call("pidfd_open", @PID@, 0)
            # The pages may be written out: that it works shows that another can be reached.
            if call("process_madvise", process, ctypes.byref(theirs), 1, 21, 0) > 0: print("BREACH")
        """,
        harm=HARM,
    ),
    Case(
        "moves its pages",
        """
        @SYSCALLS@
        def f(a):
            if call("move_pages", @PID@, 0, 0, 0, 0, 0) == 0: print("BREACH")
        """,
        harm=HARM,
    ),
    Case(
        "lowers its limits",
        """
        import resource
        def f(a):
            resource.prlimit(@PID@, resource.RLIMIT_CORE, (0, 0))
            resource.prlimit(@PID@, resource.RLIMIT_NOFILE, (7, 7))
        """,
        harm=HARM,
    ),
    Case(
        "lowers its priority",
        """
        import os
        def f(a):
            os.setpriority(os.PRIO_PROCESS, @PID@, 19)
        """,
        harm=HARM,
    ),
    Case(
        "takes its cores",
        "import os\ndef f(a):\n    os.sched_setaffinity(@PID@, [max(os.sched_getaffinity(0))])",
        harm=HARM,
    ),
    Case(
        "changes its scheduling",
        "import os\ndef f(a):\n    os.sched_setscheduler(@PID@, os.SCHED_IDLE, os.sched_param(0))",
        harm=HARM,
    ),
    Case(
        "changes its input and output priority",
        '@SYSCALLS@\ndef f(a):\n    return call("ioprio_set", 1, @PID@, 3 << 13)',
        harm=HARM,
    ),
    Case(
        "offers it to the killer of processes",
        'def f(a):\n    open("/proc/@PID@/oom_score_adj", "w").write("1000")',
        harm=HARM,
    ),
    Case(
        "compares its descriptors",
        '@SYSCALLS@\ndef f(a):\n    if call("kcmp", @PID@, @PID@, 0, 0, 1) >= 0: print("BREACH")',
        harm="what the neighbour has open",
    ),
    Case(
        "enters its namespaces",
        """
        @SYSCALLS@
        def f(a):
            fd = call("pidfd_open", @PID@, 0)
            if call("setns", fd, 0x00020000 | 0x40000000) == 0: print("BREACH")
        """,
        harm="the program enters the neighbour's namespaces",
    ),
    Case(
        "kills the process that forked it",
        "import os\ndef f(a):\n    if os.getppid() > 1: os.kill(os.getppid(), 9)",
        harm=PARENT,
    ),
    Case(
        "stops the process that forked it",
        "import os\ndef f(a):\n    if os.getppid() > 1: os.kill(os.getppid(), 19)",
        harm=PARENT,
    ),
    Case(
        "kills the process that forked it by a descriptor",
        """
        @SYSCALLS@
        def f(a):
            if os.getppid() > 1: call("pidfd_send_signal", call("pidfd_open", os.getppid(), 0), 9, 0, 0)
        """,
        harm=PARENT,
    ),
    Case(
        "kills the process that forked it by a lent signal",
        """
        import fcntl, os, socket
        def f(a):
            ours, theirs = socket.socketpair()
            fcntl.fcntl(ours, fcntl.F_SETOWN, os.getppid())
            fcntl.fcntl(ours, 10, 9)
            fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
            theirs.send(b"x")
        """,
        harm=PARENT,
    ),
    Case(
        "kills the process that forked it when it ends itself",
        """
        @SYSCALLS@
        def f(a):
            return call("clone", 9 | 0x8000, 0, 0, 0, 0)  # a sibling that signals its parent's parent with SIGKILL
        """,
        harm=PARENT,
    ),
    Case(
        "limits the process that forked it",
        """
        import os, resource
        def f(a):
            resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))
            resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (1, 1))
        """,
        harm=PARENT,
    ),
    Case(
        "writes the memory of the process that forked it",
        """
        def f(a):
            import os
            with open(f"/proc/{os.getppid()}/maps") as maps, open(f"/proc/{os.getppid()}/mem", "r+b", 0) as memory:
                for line in maps:
                    start, end = (int(x, 16) for x in line.split()[0].split("-"))
                    if "[heap]" in line:
                        memory.seek(start)
                        at = memory.read(end - start).find(b"program.py")
                        if at >= 0:
                            memory.seek(start + at)
                            memory.write(b"BREACHED!!")
                            print("BREACH")
        """,
        harm="later programs run in a process that this one has changed",
    ),
    Case(
        "kills the process that compiles",
        """
        import os
        def f(a):
            for pid in map(int, open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()):
                if pid != os.getpid(): os.kill(pid, 9)
            return None
        """,
        harm="the process that compiles is ended",
    ),
    Case(
        "writes the memory of the process that compiles",
        """
        @SYSCALLS@
        def f(a):
            for pid in map(int, open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()):
                if pid != os.getpid():
                    buffer = ctypes.create_string_buffer(b"BREACH")
                    with open(f"/proc/{pid}/mem", "r+b", 0): print("BREACH")
        """,
        harm="later programs are compiled by a process that this one has changed",
    ),
    Case(
        "kills its own group",
        "import os\ndef f(a):\n    os.killpg(0, 9)",
        harm=PARENT,
    ),
    Case(
        "joins the group of its parent, and kills it",
        """
        import os
        def f(a):
            os.setpgid(0, os.getpgid(os.getppid()))
            os.killpg(os.getpgid(0), 0)
            print("BREACH")
        """,
        harm=PARENT,
    ),
    Case(
        "a script kills the process that forked it",
        "import os\ndef f():\n    if os.getppid() > 1: os.kill(os.getppid(), 9)",
        tests=a_script,
        harm=PARENT,
    ),
    Case(
        "asks which processes live beside it",
        """
        import os
        def f(a):
            for pid in range(max(2, os.getpid() - 200), os.getpid() + 200):
                if pid == os.getpid(): continue
                try: os.kill(pid, 0)
                except OSError: continue
                print("BREACH", pid)
        """,
        harm="a signal may be sent to a check's process, to the zygote or to another",
    ),
]
