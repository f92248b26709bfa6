"""The process that programs are forked from: started by exec with constants for an environment, single-threaded.

It seals itself, then knows two requests. FORK comes with descriptors (link to the judge, standard input, standard
output, standard error, probe memory), which the new process takes over and no other has; REAP ends a process and
reports how it ended. Code, inputs and answers never pass through here. When the judge is gone, so are all children.

Run as `python -S zygote.py CONTROL PACKAGE_ROOT`; the settings follow over CONTROL.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

REQUEST = struct.Struct("<ci")  # FORK or REAP, and the pid to reap
FORK, REAP = b"F", b"R"
FORKED = struct.Struct("<i")  # pid, negative where none could be made
REAPED = struct.Struct("<id")  # wait status, CPU seconds
READY = struct.Struct("<q")  # bytes of address space in use
SETTINGS_BYTES = 1 << 17

libc = ctypes.PyDLL(None)


def main() -> None:
    """Serves the judge until it hangs up."""
    control = socket.socket(fileno=int(sys.argv[1]))
    live: set[int] = set()
    try:
        become_child, address_space = _prepare(control, sys.argv[2])
        control.send(READY.pack(address_space))
        _serve(control, become_child, live)
    except (BrokenPipeError, ConnectionResetError):  # the judge was killed
        pass
    for pid in list(live):
        _reap(pid, live)


def _prepare(control: socket.socket, package_root: str) -> tuple[Callable[[list[int]], None], int]:
    """Does once what every child needs.

    Returns:
        What a fork does with its descriptors, and the bytes of address space that it starts with.
    """
    settings: dict[str, Any] = json.loads(control.recv(SETTINGS_BYTES))
    _make_importable(package_root)
    from stepcoder.sandbox.inside import child, isolation, scope

    sys.meta_path.append(scope.Libraries(settings["libraries"], settings["folders"]))
    scope.install(settings["modules"])
    if not settings["opens"]:
        scope.open_what_is_open()
    # Python ignores it; the default ends an endless printer at once.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.argv = ["program.py"]
    sys.dont_write_bytecode = True
    sys.setrecursionlimit(sys.getrecursionlimit() + child.FRAMES_BELOW)
    for name in [name for name in sys.modules if name.partition(".")[0] == "stepcoder"]:
        del sys.modules[name]
    with open("/proc/self/statm") as pages:
        address_space = int(pages.read().split()[0]) * resource.getpagesize()
    child.warm_up()
    seal_child = isolation.seal(settings)
    gc.collect()
    gc.disable()
    gc.freeze()

    def become_child(descriptors: list[int]) -> None:
        link, *standard, probe_memory = descriptors
        control.close()
        os.setsid()
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
            os.close(descriptor)
        seal_child()
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
        if pid == 0:
            try:
                become_child(descriptors)
            finally:  # the judge hung up, or the machine is out of something
                os._exit(70)
        if pid > 0:
            live.add(pid)
        control.send(FORKED.pack(pid))
        for descriptor in descriptors:
            os.close(descriptor)


def _reap(pid: int, live: set[int]) -> tuple[int, float]:
    """Ends a child and what it started: its wait status and CPU seconds."""
    for kill in (os.kill, os.killpg):  # the group: where no filter keeps a program from forking
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status, usage = os.wait4(pid, 0)
    live.discard(pid)
    return status, usage.ru_utime + usage.ru_stime


def _make_importable(package_root: str) -> None:
    """Makes `stepcoder.*` importable without running any `__init__.py`, which would import pydantic."""
    for name in ("stepcoder", "stepcoder.problems", "stepcoder.sandbox", "stepcoder.sandbox.inside"):
        package = ModuleType(name)
        package.__path__ = [os.path.join(package_root, *name.split(".")[1:])]
        sys.modules[name] = package


if __name__ == "__main__":
    main()
