"""Poisoned state: what a program leaves must not reach the one after it on the same slot."""

from __future__ import annotations

from hostile.case import Case

HARM = "a later program meets what this one left"

CLEAN = """
    import builtins, heapq, json, math, os, random, re, resource, signal, sys, threading
    def f(a, b):
        assert not hasattr(builtins, "poison") and "poison" not in sys.modules and not hasattr(json, "poison")
        assert sys.argv == ["program.py"] and threading.active_count() == 1 and "poison" not in os.environ
        assert json.loads(json.dumps([a, b])) == [a, b] and math.isclose(1, 1) and re.findall("a", "aba") == ["a", "a"]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and os.getpriority(os.PRIO_PROCESS, 0) < 19
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 16 and os.umask(0o22) != 0
        assert heapq.nsmallest(1, [2, 1]) == [1] and len([a, b]) == 2
        return a + b
"""


def _leaves(name: str, program: str) -> Case:
    return Case(name, program, harm=HARM, after=CLEAN)


CASES = [
    _leaves(
        "bytecode of the standard library",
        """
        import importlib.util, os, heapq
        def f(a):
            folder = os.path.dirname(importlib.util.cache_from_source(heapq.__file__))
            open(os.path.join(folder, "@NAME@.cpython-311.pyc"), "wb").write(b"x")
        """,
    ),
    _leaves(
        "a module in the standard library",
        "import os\ndef f(a):\n    open(os.path.join(os.path.dirname(os.__file__), '@NAME@.py'), 'w').write('x = 1')",
    ),
    _leaves(
        "a module among the installed packages",
        """
        import os, sys
        def f(a):
            for folder in sys.path:
                try: open(os.path.join(folder, "@NAME@.py"), "w").write("x = 1")
                except OSError: pass
                try: open(os.path.join(folder, "@NAME@.pth"), "w").write("import x")
                except OSError: pass
        """,
    ),
    _leaves(
        "a module in the judge's own code",
        """
        import os, sys
        def f(a):
            frame = sys._getframe(1)
            folder = os.path.dirname(frame.f_code.co_filename)
            open(os.path.join(folder, "@NAME@.py"), "w").write("x = 1")
        """,
    ),
    _leaves(
        "modules of its process",
        """
        import builtins, json, sys, types
        sys.modules["poison"] = types.ModuleType("poison")
        builtins.poison = json.poison = 1
        builtins.len = lambda x: 0
        json.dumps = lambda *a: "[]"
        def f(a):
            sys.argv[:] = ["poison"]
            return 0
        """,
    ),
    _leaves(
        "its environment, mask, limits and signals",
        """
        import os, resource, signal
        def f(a):
            os.environ["poison"] = "1"
            os.umask(0)
            os.nice(19)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
            return 0
        """,
    ),
    _leaves(
        "files of every kind in its folder",
        """
        import os, socket
        def f(a):
            os.mkfifo("queue")
            try: socket.socket(socket.AF_UNIX).bind("socket")
            except OSError: pass
            os.symlink("/", "root")
            os.symlink("loop", "loop")
            open(b"\\xff\\n \\x01", "w").close()
            open("-rf", "w").close()
            os.makedirs("a/b/c")
            open("a/b/c/.hidden", "w").close()
            os.chmod("a/b", 0)
            os.chmod("a", 0)
            os.chmod(".", 0)
            return 0
        """,
    ),
    _leaves(
        "folders nested beyond any path",
        """
        import os
        def f(a):
            name = "d" * 200
            for _ in range(1500):
                os.mkdir(name)
                os.chdir(name)
            return 0
        """,
    ),
    _leaves(
        "folders nested deeper than Python recurses",
        """
        import os
        def f(a):
            for _ in range(5000):
                os.mkdir("d")
                os.chdir("d")
            return 0
        """,
    ),
    _leaves(
        "three thousand files",
        """
        def f(a):
            for number in range(3000): open(f"file{number}", "w").close()
            return 0
        """,
    ),
    _leaves(
        "a file that cannot be removed",
        """
        import array, fcntl, os
        def f(a):
            fd = os.open("mine", os.O_CREAT | os.O_RDWR)
            fcntl.ioctl(fd, 0x40086602, array.array("l", [0x10]))  # immutable
            return 0
        """,
    ),
    _leaves(
        "a folder that cannot be emptied",
        """
        import array, fcntl, os
        def f(a):
            fcntl.ioctl(os.open(".", os.O_RDONLY), 0x40086602, array.array("l", [0x20]))  # append only
            return 0
        """,
    ),
    _leaves(
        "no folder",
        "import os\ndef f(a):\n    os.rmdir(os.getcwd())\n    return 0",
    ),
    _leaves(
        "a folder of another name",
        "import os\ndef f(a):\n    os.rename(os.getcwd(), os.getcwd() + '-moved')\n    return 0",
    ),
    _leaves(
        "a folder that is removed with all above it",
        "import os\ndef f(a):\n    os.rmdir(os.getcwd())\n    os.rmdir(os.path.dirname(os.getcwd()))\n    return 0",
    ),
    _leaves(
        "a process that fills its folder again",
        """
        import os, time
        def f(a):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    while True:
                        open(f"again{time.time()}", "w").close()
            return 0
        """,
    ),
    _leaves(
        "mapped memory that it holds",
        """
        import mmap
        def f(a):
            open("held", "wb").write(bytes(4096))
            f.held = [mmap.mmap(open("held", "r+b").fileno(), 4096) for _ in range(9)]
            return 0
        """,
    ),
    _leaves(
        "a broken standard output for those after it",
        """
        import fcntl, os
        def f(a):
            for fd in range(64):
                try: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK | os.O_ASYNC)
                except OSError: pass
            return 0
        """,
    ),
    _leaves(
        "a lock on the judge's memory files",
        """
        import fcntl
        def f(a):
            for fd in (0, 1, 2):
                try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError: pass
            return 0
        """,
    ),
]
