"""What a zygote does to itself, and each child on top of it, before any program runs: it cannot be undone.

Landlock decides what files can be reached, the system-call filters what can be asked of the kernel at all. The
filters come compiled from the judge, so libseccomp is not needed here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from stepcoder.sandbox.inside import landlock

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
STACK_BYTES = 96 << 20  # deep recursion through C code; the gap that the kernel keeps free for it is 128 MiB
OPEN_FILES = 64
INSTRUCTION_BYTES = 8

libc = ctypes.PyDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def seal(settings: dict[str, Any]) -> Callable[[], None]:
    """Seals this process and all that it will fork.

    Args:
        settings: `landlock` (version to use, 0 for none), `readable` and `writable` paths, `zygote_filter` and
            `child_filter` (BPF in hexadecimal, empty for none), `scoped` (whether Landlock keeps signals inside).

    Returns:
        What a child calls before its program; it costs some microseconds.

    Raises:
        OSError: the kernel refuses a layer that was asked for.
    """
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # nor do its children leave core files
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES if hard < 0 else min(STACK_BYTES, hard), hard))
    _drop_capabilities()
    offered: int = settings["landlock"]
    if offered:
        landlock.restrict(settings["readable"], settings["writable"], offered)
    enter_scope = landlock.scope(offered) if settings["scoped"] else None
    buffers = [bytes.fromhex(settings[name]) for name in ("zygote_filter", "child_filter")]
    programs = [_Program(len(code) // INSTRUCTION_BYTES, _address(code)) for code in buffers]
    if buffers[0] and libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(programs[0]), 0, 0):
        raise OSError(ctypes.get_errno(), "the system-call filter is refused")
    prctl, exit_now, child_program = libc.prctl, os._exit, ctypes.byref(programs[1])

    def seal_child(_alive: object = (buffers, programs)) -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if enter_scope is not None:
            enter_scope()
        if buffers[1] and prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, child_program, 0, 0):
            exit_now(71)

    return seal_child


def limit(which: int, amount: int) -> None:
    """Sets a limit for good, unless a lower one holds already."""
    _, hard = resource.getrlimit(which)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(which, (amount, amount))


def _address(code: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value or 0


def _drop_capabilities() -> None:
    """Root without capabilities is a user like others; who has none keeps none."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
