"""Leaks: environments, tokens, weights, what other programs held. Each prints the secret if it finds it."""

from __future__ import annotations

from dataclasses import replace

from hostile.case import LIMITS, Case, a_script

LONGER = replace(LIMITS, cpu_seconds=3.0, wall_seconds=6.0, memory_mib=512)
HARM = "the secret comes out with the verdict"
HOLDER = """
    import os
    token = "@SECRET@"
    print(token)
    try: open("left", "w").write(token)
    except OSError: pass
    r, w = os.pipe()
    os.write(w, token.encode())
    def f(a):
        print(token)
        return [token] * 9
"""

CASES = [
    Case(
        "its own environment",
        """
        @SEARCH@
        import ctypes
        def f(a):
            say(repr(dict(os.environ)).encode())
            say(open("/proc/self/environ", "rb").read())
            variables = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
            for number in range(99):
                if variables[number] is None: break
                say(variables[number])
        """,
        harm=HARM,
    ),
    Case(
        "the environment of every process",
        """
        @SEARCH@
        def f(a):
            for pid in os.listdir("/proc"):
                try: say(open(f"/proc/{pid}/environ", "rb").read())
                except OSError: pass
        """,
        harm=HARM,
        limits=LONGER,
    ),
    Case(
        "the environment of a neighbour",
        '@SEARCH@\ndef f(a):\n    say(open("/proc/@PID@/environ", "rb").read())',
        harm=HARM,
    ),
    Case(
        "the command line of a neighbour",
        '@SEARCH@\ndef f(a):\n    say(open("/proc/@PID@/cmdline", "rb").read())',
        harm=HARM,
    ),
    Case(
        "the names of all processes",
        """
        @SEARCH@
        def f(a):
            for pid in os.listdir("/proc"):
                for name in ("cmdline", "comm", "status", "stat"):
                    try: say(open(f"/proc/{pid}/{name}", "rb").read())
                    except OSError: pass
        """,
        harm=HARM,
        limits=LONGER,
    ),
    Case(
        "the descriptors of a neighbour",
        """
        @SEARCH@
        def f(a):
            for fd in os.listdir("/proc/@PID@/fd"):
                print(os.readlink(f"/proc/@PID@/fd/{fd}"))
                try: say(os.pread(os.open(f"/proc/@PID@/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK), 999, 0))
                except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "the root and working folder of a neighbour",
        """
        @SEARCH@
        def f(a):
            for place in ("/proc/@PID@/root", "/proc/@PID@/cwd/..", "/proc/self/root", "/proc/1/root"):
                try: say(open(place + "@FOLDER@/secret.txt", "rb").read())
                except OSError: pass
            say(open("/proc/@PID@/cwd/secret.txt", "rb").read())
        """,
        harm=HARM,
    ),
    Case(
        "the memory of a neighbour",
        """
        @SEARCH@
        def f(a):
            with open("/proc/@PID@/mem", "rb", 0) as memory:
                memory.seek(@ADDRESS@)
                say(memory.read(@LENGTH@))
        """,
        harm=HARM,
    ),
    Case(
        "the memory of a neighbour by one system call",
        "@SEARCH@\n@SYSCALLS@\ndef f(a):\n    say(read_memory(@PID@, @ADDRESS@, @LENGTH@))",
        harm=HARM,
    ),
    Case(
        "the memory of a neighbour by ptrace",
        """
        @SEARCH@
        @SYSCALLS@
        import time
        def f(a):
            if call("ptrace", 16, @PID@, 0, 0) == 0:
                time.sleep(0.1)
                word = ctypes.c_long()
                for at in range(0, @LENGTH@, 8):
                    call("ptrace", 1, @PID@, @ADDRESS@ + at, ctypes.byref(word))
                print("BREACH")
                call("ptrace", 17, @PID@, 0, 0)
        """,
        harm="the neighbour is traced",
    ),
    Case(
        "a descriptor of a neighbour, taken",
        """
        @SEARCH@
        @SYSCALLS@
        def f(a):
            taken = call("pidfd_getfd", call("pidfd_open", @PID@, 0), @FD@, 0)
            say(os.pread(taken, 999, 0))
        """,
        harm=HARM,
    ),
    Case(
        "a file of tokens",
        """
        @SEARCH@
        def f(a):
            for name in ("secret.txt", ".netrc", ".aws/credentials", ".kube/config", ".cache/huggingface/token"):
                try: say(open("@FOLDER@/" + name, "rb").read())
                except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "the weights",
        """
        @SEARCH@
        import mmap
        def f(a):
            with open("@FOLDER@/model.safetensors", "rb") as file:
                say(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:])
        """,
        harm=HARM,
    ),
    Case(
        "a listing of the folder",
        '@SEARCH@\ndef f(a):\n    say(repr(os.listdir("@FOLDER@")).encode())',
        harm="names of files, which hold the secret",
    ),
    Case(
        "extended attributes of a file",
        '@SEARCH@\ndef f(a):\n    say(os.getxattr("@FOLDER@/secret.txt", "user.token"))',
        harm=HARM,
    ),
    Case(
        "a symbolic link that tells",
        '@SEARCH@\ndef f(a):\n    say(os.readlink("@FOLDER@/link").encode())',
        harm="where a link leads, which is the secret",
    ),
    Case(
        "a file by its handle",
        """
        @SEARCH@
        @SYSCALLS@
        def f(a):
            handle = ctypes.create_string_buffer(136)
            ctypes.c_uint.from_buffer(handle).value = 128
            mount = ctypes.c_int()
            call("name_to_handle_at", -100, b"@FOLDER@/secret.txt", handle, ctypes.byref(mount), 0)
            folder = os.open(".", os.O_RDONLY)
            fd = call("open_by_handle_at", folder, handle, 0)
            say(os.pread(fd, 999, 0))
        """,
        harm=HARM,
    ),
    Case(
        "a file through a link in its own folder",
        """
        @SEARCH@
        def f(a):
            os.symlink("@FOLDER@/secret.txt", "inside")
            try: os.link("@FOLDER@/secret.txt", "hard")
            except OSError: pass
            for name in ("hard", "inside"):
                try: say(open(name, "rb").read())
                except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "a shell that reads it",
        """
        @SEARCH@
        import subprocess
        def f(a):
            say(subprocess.run(["/bin/cat", "@FOLDER@/secret.txt"], capture_output=True).stdout)
        """,
        harm=HARM,
    ),
    Case(
        "the names of sockets",
        """
        @SEARCH@
        def f(a):
            for name in ("unix", "tcp", "tcp6", "udp", "netlink", "packet"):
                try: say(open("/proc/net/" + name, "rb").read())
                except OSError: pass
        """,
        harm="the name of an abstract socket, which holds the secret",
    ),
    Case(
        "shared memory of a neighbour",
        """
        @SEARCH@
        @SYSCALLS@
        def f(a):
            attach = _libc.shmat
            attach.restype = ctypes.c_void_p
            segment = call("shmget", @SHM_KEY@, 0, 0)
            if segment >= 0:
                address = attach(segment, None, 0o10000)
                if address and address != ctypes.c_void_p(-1).value:
                    say(ctypes.string_at(address, 64))
        """,
        harm=HARM,
    ),
    Case(
        "POSIX shared memory of a neighbour",
        '@SEARCH@\ndef f(a):\n    say(open("/dev/shm/@SHM_NAME@", "rb").read())',
        harm=HARM,
    ),
    Case(
        "what the kernel says",
        """
        @SYSCALLS@
        def f(a):
            buffer = ctypes.create_string_buffer(4096)
            if call("syslog", 3, buffer, 4096) > 0: print("BREACH")
        """,
        harm="the kernel's log",
    ),
    Case(
        "what the program before it held, in memory",
        "@SEARCH@\ndef f(a):\n    return memory_of('self')",
        harm=HARM,
        before=HOLDER,
        limits=LONGER,
    ),
    Case(
        "what the program before it held, in the zygote",
        "@SEARCH@\ndef f(a):\n    return memory_of(os.getppid())",
        harm=HARM,
        before=HOLDER,
        limits=LONGER,
    ),
    Case(
        "what the program before it held, in freed memory",
        """
        @SEARCH@
        import ctypes
        def f(a):
            for size in (64, 512, 4096, 1 << 16, 1 << 20, 1 << 24):
                for _ in range(4):
                    buffer = ctypes.create_string_buffer(0)
                    allot = ctypes.CDLL(None).malloc
                    allot.restype, allot.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
                    say(ctypes.string_at(allot(size), size))
        """,
        harm=HARM,
        before=HOLDER,
    ),
    Case(
        "what the program before it printed and left",
        """
        @SEARCH@
        def f(a):
            for fd in range(64):
                try: say(os.pread(fd, 1 << 16, 0))
                except OSError: pass
            for folder in (".", "..", "/tmp", "/dev/shm"):
                for place, _, names in os.walk(folder):
                    if place.count("/") > 4: continue
                    for name in names:
                        try: say(open(os.path.join(place, name), "rb").read(9999))
                        except OSError: pass
        """,
        harm=HARM,
        before=HOLDER,
        limits=LONGER,
    ),
    Case(
        "what the program before it printed, for a script",
        """
        import os
        def f():
            for fd in (0, 1, 2):
                try: os.write(1, os.pread(fd, 9999, 0))
                except OSError: pass
            os.lseek(1, 0, 2)
            os.write(1, b"x")
        """,
        tests=a_script,
        harm=HARM,
        before=HOLDER,
    ),
    Case(
        "what other folders of the sandbox hold",
        """
        @SEARCH@
        import glob
        def f(a):
            found = [name for name in glob.glob("/tmp/stepcoder-sandbox-*/room") if not os.path.samefile(name, ".")]
            for room in found:
                for name in os.listdir(room):
                    try: say(open(os.path.join(room, name), "rb").read())
                    except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "where a neighbour's links in /proc lead",
        """
        @SEARCH@
        def f(a):
            for pid in (@PID@, os.getppid()):
                for name in ("cwd", "exe", "root", "fd/0", "fd/@FD@", "ns/pid"):
                    try: print("BREACH", os.readlink(f"/proc/{pid}/{name}"))
                    except OSError: pass
        """,
        harm="what others have open",
    ),
]
