"""System-call filters as BPF programs: made by libseccomp on the judge's side, loaded by the zygote and its children.

An allowlist holds for the zygote and everything below it; what is not on it fails with EPERM. A child adds a short
list of what only the zygote may do. Both are compiled once in a supervisor.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from stepcoder.errors import StepCoderError

CLONE_THREAD = 0x10000
CLONE_NAMESPACES = 0x7E020000 | 0x80  # new user, pid, network, mount, uts, ipc, cgroup and time namespaces
TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
SAFE_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
PR_SET_PDEATHSIG, PR_SET_NAME, PR_GET_NAME, PR_SET_SECCOMP, PR_SET_VMA = 1, 15, 16, 22, 0x53564D41
SOCKET_TYPE = 0xF

ALLOWED = {
    "read and write what is open": (
        *("read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2"),
        *("lseek", "ftruncate", "fsync", "fdatasync", "close", "close_range", "dup", "dup2", "dup3"),
    ),
    "look at files; what may be opened is Landlock's matter": (
        *("fstat", "newfstatat", "statx", "stat", "lstat", "access", "faccessat", "faccessat2", "getcwd"),
        *("getdents", "getdents64", "fstatfs"),
    ),
    "wait for input": (
        *("poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait"),
        *("epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "pipe", "pipe2"),
    ),
    "the socket pair of asyncio's event loop": ("recvfrom", "shutdown", "getsockname", "getpeername", "getsockopt"),
    "memory": ("mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "msync"),
    "threads": (
        *("futex", "set_robust_list", "set_tid_address", "rseq", "gettid", "getpid", "getppid", "sched_yield"),
        *("sched_getaffinity", "sched_getparam", "sched_getscheduler", "membarrier", "arch_prctl"),
        *("exit", "exit_group"),
    ),
    "signals to itself; Landlock or the filter of a child keeps them inside": (
        *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait"),
        *("sigaltstack", "pause", "alarm", "setitimer", "getitimer", "restart_syscall", "kill", "tgkill", "tkill"),
    ),
    "time": (
        *("clock_gettime", "clock_getres", "gettimeofday", "time", "times", "nanosleep", "clock_nanosleep"),
    ),
    "who and where it is": (
        *("getuid", "geteuid", "getgid", "getegid", "getgroups", "getresuid", "getresgid", "getpgrp", "getpgid"),
        *("getsid", "getrandom", "uname", "sysinfo", "getrusage", "getrlimit", "setrlimit", "getpriority", "getcpu"),
        "umask",
    ),
    "the zygote's own work": (
        *("wait4", "recvmsg", "sendmsg", "setsid", "landlock_create_ruleset", "landlock_restrict_self"),
    ),
}  # fmt: skip
ZYGOTE_ONLY = (
    *("fork", "vfork", "wait4", "recvmsg", "sendmsg", "setsid"),
    *("landlock_create_ruleset", "landlock_restrict_self"),
)
SIGNALS = ("kill", "tgkill", "tkill")
OPENS = ("open", "openat")


def zygote_filter(opens: bool) -> bytes:
    """What a zygote and its children may ask of the kernel.

    Args:
        opens: files may be opened; without Landlock to say which, none may.

    Raises:
        StepCoderError: libseccomp is not installed.
    """
    s = _library()
    filter_ = s.SyscallFilter(s.ERRNO(errno.EPERM))
    add = _adder(s, filter_)
    for names in ALLOWED.values():
        for name in names:
            add(s.ALLOW, name)
    for name in OPENS if opens else ():
        add(s.ALLOW, name)
    add(s.ALLOW, "fork")
    add(s.ALLOW, "clone", s.Arg(0, s.MASKED_EQ, CLONE_NAMESPACES, 0))
    add(s.ERRNO(errno.ENOSYS), "clone3")  # its flags lie in memory, where no filter sees them; `clone` is tried next
    add(s.ALLOW, "prlimit64", s.Arg(0, s.EQ, 0))
    for command in SAFE_FCNTL:
        add(s.ALLOW, "fcntl", s.Arg(1, s.EQ, command))
    for request in (TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX):
        add(s.ALLOW, "ioctl", s.Arg(1, s.MASKED_EQ, 0xFFFFFFFF, request))
    for option in (PR_SET_PDEATHSIG, PR_SET_NAME, PR_GET_NAME, PR_SET_SECCOMP, PR_SET_VMA):
        add(s.ALLOW, "prctl", s.Arg(0, s.EQ, option))
    # A datagram pair could send to any socket in the file system, and so could a message with an address.
    stream = s.Arg(1, s.MASKED_EQ, SOCKET_TYPE, socket.SOCK_STREAM)
    add(s.ALLOW, "socketpair", s.Arg(0, s.EQ, socket.AF_UNIX), stream)
    add(s.ALLOW, "sendto", s.Arg(4, s.EQ, 0))
    return _compiled(filter_)


def child_filter(signals: bool) -> bytes:
    """What a child may not do although its zygote may.

    Args:
        signals: signals may be sent; without Landlock's scopes they would reach every process of this user.

    Raises:
        StepCoderError: libseccomp is not installed.
    """
    s = _library()
    filter_ = s.SyscallFilter(s.ALLOW)
    add = _adder(s, filter_)
    refused = s.ERRNO(errno.EPERM)
    for name in ZYGOTE_ONLY:
        add(refused, name)
    for name in () if signals else SIGNALS:
        add(refused, name)
    add(refused, "clone", s.Arg(0, s.MASKED_EQ, CLONE_THREAD, 0))
    for option in (PR_SET_PDEATHSIG, PR_SET_SECCOMP):
        add(refused, "prctl", s.Arg(0, s.EQ, option))
    return _compiled(filter_)


def _library() -> Any:
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise StepCoderError(
            f"the sandbox needs libseccomp and its Python binding: {error}; "
            "install stepcoder[sandbox] and the system's libseccomp2"
        ) from error
    return pyseccomp


def _adder(s: Any, filter_: Any) -> Callable[..., None]:
    """Adds rules for the system calls that this architecture and this libseccomp have."""

    def add(action: int, name: str, *arguments: Any) -> None:
        if s.resolve_syscall(s.Arch.NATIVE, name) >= 0:
            filter_.add_rule(action, name, *arguments)

    return add


def _compiled(filter_: Any) -> bytes:
    with open(os.memfd_create("filter"), "w+b", buffering=0) as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()
