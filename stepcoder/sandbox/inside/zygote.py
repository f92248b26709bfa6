"""The process that programs are forked from: started by exec with constants for an environment, single-threaded.

It knows two requests. FORK comes with descriptors (link to the judge, standard input, standard output, probe memory),
which the new process takes over; REAP ends a process, and whatever it started, and reports how it ended. Code, inputs
and answers never pass through here. When the judge is gone, so are all children.

Run as `python -S zygote.py CONTROL PACKAGE_ROOT LIBRARY...`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from types import ModuleType

REQUEST = struct.Struct("<ci")  # FORK or REAP, and the pid to reap
FORK, REAP = b"F", b"R"
FORKED = struct.Struct("<i")  # pid, with its pidfd attached
REAPED = struct.Struct("<id")  # wait status, CPU seconds
READY = struct.Struct("<q")  # bytes of address space in use

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
STACK_BYTES = 96 << 20  # deep recursion through C code; the gap that the kernel keeps free for it is 128 MiB
OPEN_FILES = 64

libc = ctypes.PyDLL(None)


def main() -> None:
    """Serves the judge until it hangs up."""
    control = socket.socket(fileno=int(sys.argv[1]))
    room = os.getcwd()
    live: set[int] = set()
    try:
        become_child, address_space = _prepare(control, sys.argv[2], sys.argv[3:])
        control.send(READY.pack(address_space))
        _serve(control, become_child, live)
    except (BrokenPipeError, ConnectionResetError):  # the judge was killed
        pass
    for pid in list(live):
        _reap(pid, live)
    for folder in (room, os.path.dirname(room)):  # a judge that was killed cannot do it
        try:
            os.rmdir(folder)  # never what has content: it would be a program's, or none of ours
        except OSError:
            break


def _prepare(
    control: socket.socket, package_root: str, libraries: list[str]
) -> tuple[Callable[[list[int]], None], int]:
    """Does once what every child needs.

    Returns:
        What a fork does with its descriptors, and the bytes of address space that it starts with.
    """
    _make_importable(package_root)
    sys.path += libraries
    from stepcoder.sandbox.inside import child, scope

    scope.install()
    prctl = libc.prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES if hard < 0 else min(STACK_BYTES, hard), hard))
    # Python ignores it; the default ends an endless printer at once.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.argv = ["program.py"]
    sys.dont_write_bytecode = True
    sys.setrecursionlimit(sys.getrecursionlimit() + child.FRAMES_BELOW)
    for name in [name for name in sys.modules if name.partition(".")[0] == "stepcoder"]:
        del sys.modules[name]
    gc.collect()
    gc.disable()
    gc.freeze()
    with open("/proc/self/statm") as pages:
        address_space = int(pages.read().split()[0]) * resource.getpagesize()

    def become_child(descriptors: list[int]) -> None:
        link, stdin, stdout, probe_memory = descriptors
        control.close()
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.dup2(1, 2)  # still /dev/null: what programs say on standard error is nobody's business
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.close(stdin)
        os.close(stdout)
        child.main(link, probe_memory, address_space)

    return become_child, address_space


def _serve(control: socket.socket, become_child: Callable[[list[int]], None], live: set[int]) -> None:
    """Answers requests until the judge hangs up; `live` holds the children that are not reaped."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 8)
        if not message:
            return
        request, pid = REQUEST.unpack(message)
        if request == REAP:
            control.send(REAPED.pack(*_reap(pid, live)))
            continue
        # Not `os.fork`: its hooks (threading, random) cost a child as much as everything else before the program's
        # first line. What they mend, locks of other threads, a process of one thread does not have.
        pid = libc.fork()
        if pid < 0:
            return
        if pid == 0:
            try:
                become_child(descriptors)
            finally:  # the judge hung up, or the machine is out of something
                os._exit(70)
        live.add(pid)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [FORKED.pack(pid)], [pidfd])
        for descriptor in (*descriptors, pidfd):
            os.close(descriptor)


def _reap(pid: int, live: set[int]) -> tuple[int, float]:
    """Ends a child and everything it started: its wait status and CPU seconds."""
    _kill(os.kill, pid)
    _kill(os.killpg, pid)
    _, status, usage = os.wait4(pid, 0)
    live.discard(pid)
    # Orphans of the child became children of this process.
    while strays := _strays(live):
        for stray in strays:
            _kill(os.kill, stray)
            os.waitpid(stray, 0)
    return status, usage.ru_utime + usage.ru_stime


def _strays(live: set[int]) -> list[int]:
    if not live:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return []
    return [pid for pid in children_of(os.getpid()) if pid not in live]


def children_of(parent: int) -> list[int]:
    """The child processes of a process of one thread."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as children:
            return [int(pid) for pid in children.read().split()]
    except FileNotFoundError:  # a kernel built without it
        return children_by_parent(parent)


def children_by_parent(parent: int) -> list[int]:
    """The same by asking every process for its parent."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    if int(stat.read().rpartition(")")[2].split()[1]) == parent:
                        found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _kill(how: Callable[[int, int], None], pid: int) -> None:
    try:
        how(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _lower(which: int, amount: int) -> None:
    _, hard = resource.getrlimit(which)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(which, (amount, amount))


def _make_importable(package_root: str) -> None:
    """Makes `stepcoder.*` importable without running any `__init__.py`, which would import pydantic."""
    for name in ("stepcoder", "stepcoder.problems", "stepcoder.sandbox", "stepcoder.sandbox.inside"):
        package = ModuleType(name)
        package.__path__ = [os.path.join(package_root, *name.split(".")[1:])]
        sys.modules[name] = package


if __name__ == "__main__":
    main()
