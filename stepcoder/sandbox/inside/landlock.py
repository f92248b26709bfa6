"""Landlock: what files a process and all its descendants can still reach, without any privilege.

By the kernel's system calls, which have the same numbers on x86-64 and arm64; Python has no binding of its own.
Source: Documentation/userspace-api/landlock.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1

_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# Rights by the version of Landlock that brought them; what is handled and not granted is refused.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # refer, truncate, ioctl on devices
_TCP_RIGHTS = {4: 0b11}  # bind, connect
_SCOPES = {6: 0b11}  # abstract Unix sockets, signals
SCOPES_SINCE = 6

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that this kernel offers, 0 for none."""
    return max(0, int(_syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))))


def restrict(readable: Iterable[str], writable: Iterable[str], offered: int) -> None:
    """Leaves this process and its descendants nothing but to read some files, and to write to a few.

    Args:
        readable: files and folders; those that do not exist are passed over.
        writable: files; those that do not exist are passed over.
        offered: what `version` gave.

    Raises:
        OSError: the kernel refuses.
    """
    ruleset = _create(_Ruleset(_of(_FILE_RIGHTS, offered), _of(_TCP_RIGHTS, offered), _of(_SCOPES, offered)))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0))
        for path in writable:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        _call(_RESTRICT, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def scope(offered: int) -> Callable[[], None]:
    """Makes ready what puts a process into a domain of its own, from which no signal reaches another process.

    Returns:
        What a forked process calls; its parent's domain is another one too.
    """
    ruleset = ctypes.c_int(_create(_Ruleset(0, 0, _of(_SCOPES, offered))))
    arguments = (ctypes.c_long(_RESTRICT), ruleset, ctypes.c_uint32(0))
    descriptor = ruleset.value

    def enter() -> None:
        if _syscall(*arguments):
            os._exit(71)
        os.close(descriptor)

    return enter


def _of(rights: dict[int, int], offered: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= offered)


def _create(attributes: _Ruleset) -> int:
    return _call(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), ctypes.c_uint32(0))


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathBeneath(rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
