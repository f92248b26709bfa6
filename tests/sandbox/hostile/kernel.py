"""Escapes through the kernel: namespaces, new programs, tracing, loading, privileges.

Each says BREACH when the kernel let it; nothing here changes the machine when it does.
"""

from __future__ import annotations

from hostile.case import ERROR, FAILS, SECURITY, TIMEOUT, WRONG, Case, a_script, two_calls


def _asks(name: str, condition: str, harm: str) -> Case:
    """A program that says BREACH when a system call succeeds."""
    program = (
        f"@SYSCALLS@\ndef f(a):\n    memory = ctypes.create_string_buffer(4096)\n    if {condition}: print('BREACH')"
    )
    return Case(name, program, harm=harm)


CASES = [
    _asks("a ring of system calls", 'call("io_uring_setup", 4, memory) >= 0', "system calls that no filter sees"),
    _asks("a program in the kernel", 'call("bpf", 0, memory, 48) >= 0', "BPF"),
    _asks("a program in the kernel, of the kind that filters", 'call("bpf", 5, memory, 72) >= 0', "BPF"),
    _asks("counters of performance", 'call("perf_event_open", memory, 0, -1, -1, 0) >= 0', "perf events"),
    _asks("page faults of its own", 'call("userfaultfd", 1) >= 0', "a kernel that can be held at a page fault"),
    _asks("keys of the kernel", 'call("add_key", b"user", b"@NAME@", b"x", 1, -4) >= 0', "a key is left"),
    _asks("the session's keys", 'call("keyctl", 0, -3, 0) >= 0', "keys of the user"),
    _asks("a user namespace", 'call("unshare", 0x10000000) == 0', "all privileges in a namespace"),
    _asks("a mount namespace", 'call("unshare", 0x20000) == 0', "a namespace"),
    _asks("a network namespace", 'call("unshare", 0x40000000) == 0', "a namespace"),
    _asks("a namespace of its own descriptors", 'call("unshare", 0x8000000) == 0', "a namespace of IPC"),
    _asks("the first process's namespaces", 'call("setns", os.open("/proc/1/ns/net", 0), 0) == 0', "a namespace"),
    _asks("another root", 'call("chroot", b".") == 0', "a root that the judge does not know"),
    _asks("another root by turning it", 'call("pivot_root", b".", b".") == 0', "another root"),
    _asks("a mount of its own", 'call("mount", b"none", b".", b"tmpfs", 0, 0) == 0', "mounts"),
    _asks("a mount by the newer calls", 'call("fsopen", b"tmpfs", 0) >= 0', "mounts"),
    _asks("a copy of the tree", 'call("open_tree", -100, b".", 1) >= 0', "mounts"),
    _asks(
        "a host name", 'call("sethostname", os.uname().nodename.encode(), len(os.uname().nodename)) == 0', "the name"
    ),
    _asks("all ports", 'call("iopl", 3) == 0', "the machine's ports"),
    _asks("an empty module", 'call("init_module", memory, 0, b"") == 0', "a module in the kernel"),
    _asks("quotas", 'call("quotactl", 0x80000100, 0, 0, memory) == 0', "the quotas"),
    _asks(
        "more privileges",
        'call("capset", (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)(*[0xFFFFFFFF] * 6)) == 0',
        "privileges",
    ),
    Case(
        "a child in a user namespace",
        """
        @SYSCALLS@
        def f(a):
            pid = call("clone", 17 | 0x10000000, 0, 0, 0, 0)
            if pid == 0:
                os.write(1, b"BREACH")
                os._exit(0)
            if pid > 0: os.waitpid(pid, 0)
        """,
        harm="all privileges in a namespace",
    ),
    Case(
        "a child in a user namespace by clone3",
        """
        @SYSCALLS@
        def f(a):
            arguments = (ctypes.c_ulonglong * 11)(0x10000000, 0, 0, 0, 17)
            pid = _libc.syscall(ctypes.c_long(435), arguments, ctypes.c_long(88))
            if pid == 0:
                os.write(1, b"BREACH")
                os._exit(0)
            if pid > 0: os.waitpid(pid, 0)
        """,
        harm="all privileges in a namespace",
    ),
    Case(
        "a shell",
        "import os\ndef f(a):\n    os.execv('/bin/sh', ['sh', '-c', 'echo BREACH'])",
        harm="another program runs",
    ),
    Case(
        "a shell under a script",
        "import os\ndef f():\n    os.execv('/bin/sh', ['sh', '-c', 'echo BREACH'])",
        tests=a_script,
        harm="another program runs",
    ),
    Case(
        "a shell in a child",
        "import subprocess\ndef f(a):\n    print(subprocess.run(['echo', 'BREACH'], capture_output=True).stdout)",
        harm="another program runs",
    ),
    Case(
        "the loader, asked to load a shell",
        """
        import glob, os
        def f(a):
            for loader in glob.glob("/lib*/ld-linux*") + glob.glob("/lib/*/ld-linux*"):
                if os.fork() == 0: os.execv(loader, [loader, "/bin/echo", "BREACH"])
                os.wait()
        """,
        harm="another program runs",
    ),
    Case(
        "another Python without a filter",
        "import os, sys\ndef f(a):\n    os.execv(sys.executable, [sys.executable, '-S', '-c', 'print(\"BREACH\")'])",
        harm="another program runs",
    ),
    Case(
        "a script from memory",
        """
        @SYSCALLS@
        def f(a):
            fd = call("memfd_create", b"x", 0)
            os.write(fd, b"#!/bin/sh\\necho BREACH\\n")
            arguments = (ctypes.c_char_p * 2)(b"x", None)
            call("execveat", fd, b"", arguments, (ctypes.c_char_p * 1)(None), 0x1000)
            os.execv(f"/proc/self/fd/{fd}", ["x"])
        """,
        harm="another program runs",
    ),
    Case(
        "a copy of the shell in its own folder",
        """
        import os, shutil
        def f(a):
            shutil.copy("/bin/echo", "mine")
            os.chmod("mine", 0o777)
            os.execv("mine", ["mine", "BREACH"])
        """,
        harm="another program runs",
    ),
    Case(
        "a library of its own making",
        """
        import ctypes
        def f(a):
            with open("mine.so", "wb") as file: file.write(b"\\x7fELF" + bytes(60))
            ctypes.CDLL("./mine.so")
        """,
        harm="",
    ),
    Case(
        "the gate of 32 bits",
        """
        import ctypes, mmap
        def f(a):
            # mov eax, 37 (kill); mov ebx, pid; mov ecx, 9; int 0x80; ret
            code = (b"\\x53\\xb8\\x25\\0\\0\\0\\xbb" + (@PID@).to_bytes(4, "little")
                    + b"\\xb9\\x09\\0\\0\\0\\xcd\\x80\\x5b\\xc3")
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(code)
            return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        """,
        harm="system calls by numbers that the filter does not know",
    ),
    Case(
        "the numbers of x32",
        """
        import ctypes
        def f(a):
            libc = ctypes.CDLL(None)
            libc.syscall(ctypes.c_long(0x40000000 + 62), ctypes.c_long(@PID@), ctypes.c_long(9))
            if libc.syscall(ctypes.c_long(0x40000000 + 39)) > 0: print("BREACH")
        """,
        harm="system calls by numbers that the filter does not know",
    ),
    Case(
        "a number with high bits",
        """
        import ctypes
        def f(a):
            libc = ctypes.CDLL(None)
            libc.syscall(ctypes.c_longlong((1 << 32) + 62), ctypes.c_long(@PID@), ctypes.c_long(9))
        """,
        harm="a signal to the neighbour",
    ),
    Case(
        "a filter of its own that lets writes vanish",
        """
        @SYSCALLS@
        def f(a):
            call("prctl", 38, 1, 0, 0, 0)
            lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 1), (0x06, 0, 0, 0x00050000), (0x06, 0, 0, 0x7FFF0000)]
            import struct
            code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
            program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
            call("seccomp", 1, 0, program)
            return 0
        """,
        {WRONG, ERROR, SECURITY, TIMEOUT},
        two_calls,
    ),
    Case(
        "a filter of its own that asks the program",
        """
        @SYSCALLS@
        import struct
        def f(a):
            code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
            program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
            if call("seccomp", 1, 8, program) >= 0: print("BREACH")
        """,
        harm="a filter whose answers the program gives",
    ),
    Case(
        "a personality",
        """
        @SYSCALLS@
        def f(a):
            call("personality", 0x0040000 | 0x0400000)
            return 0
        """,
        {WRONG, SECURITY, ERROR},
    ),
    Case(
        "tricks with prctl",
        """
        @SYSCALLS@
        import time
        def f(a):
            for option, value in ((1, 0), (36, 1), (38, 0), (4, 0), (15, 0), (35, 1), (23, 0), (0x59616D61, -1)):
                call("prctl", option, value, 0, 0, 0)
            if os.fork() == 0:
                call("prctl", 1, 0, 0, 0, 0)
                if os.fork() == 0: time.sleep(60)
                os._exit(0)
            return 0
        """,
        {WRONG, SECURITY, ERROR},
        harm="a process outlives the verdict",
    ),
    Case(
        "another user",
        """
        import os
        def f(a):
            for uid in (65534, 1000, 0):
                try: os.setresuid(uid, uid, uid)
                except OSError: continue
                break
            try: os.setgroups([])
            except OSError: pass
            return 0
        """,
        FAILS - {TIMEOUT},
        two_calls,
        "as another user it is not ended",
    ),
    Case(
        "a rule of Landlock of its own",
        """
        import ctypes
        def f(a):
            libc = ctypes.CDLL(None)
            attributes = (ctypes.c_ulonglong * 3)(0xFFFF, 0, 0)
            fd = libc.syscall(ctypes.c_long(444), attributes, ctypes.c_long(8), ctypes.c_long(0))
            libc.syscall(ctypes.c_long(446), ctypes.c_long(fd), ctypes.c_long(0))
            return 0
        """,
        {WRONG, SECURITY, ERROR},
        two_calls,
    ),
    Case(
        "the clock of the machine",
        """
        import time
        def f(a):
            try: time.clock_settime(time.CLOCK_REALTIME, -1)
            except PermissionError: return 0
            except OSError: print("BREACH")
        """,
        harm="the clock may be set",
    ),
]
