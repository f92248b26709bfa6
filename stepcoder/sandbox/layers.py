"""Which layers of isolation this machine has, and what takes the place of one that it lacks.

| the kernel has | files | signals to others | new processes, sockets, everything else |
| --- | --- | --- | --- |
| Landlock 6 and filters | Landlock | Landlock | filter |
| Landlock 1 to 5 and filters | Landlock | filter: none at all, to itself neither | filter |
| filters alone (gVisor) | filter: nothing can be opened | filter: none at all | filter |
| no filters | refused, unless told otherwise | | |
"""

from __future__ import annotations

import ctypes
import errno
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcoder.errors import StepCoderError
from stepcoder.sandbox.filters import child_filter, zygote_filter
from stepcoder.sandbox.inside import landlock

LIBRARIES = ("numpy", "scipy", "sortedcontainers")
"""What programs may import besides the standard library."""
SYSTEM_FILES = ("/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom", "/dev/zero")
WRITABLE = ("/dev/null",)
NOT_STANDARD = ("site-packages", "dist-packages", "test", "idlelib")
"""Folders inside that of the standard library which are not a program's business."""
READY_WITHOUT_FILES = (
    *("argparse", "asyncio", "base64", "binascii", "bz2", "cmd", "codecs", "configparser"),
    *("concurrent.futures.thread", "encodings.ascii", "encodings.cp1252", "encodings.idna", "encodings.latin_1"),
    *("encodings.utf_16", "encodings.utf_32", "encodings.utf_8_sig", "gettext", "urllib.parse", "sqlite3"),
    *("copyreg", "csv", "ctypes", "difflib", "dis", "email", "fileinput", "fnmatch", "getopt", "glob", "gzip"),
    *("hashlib", "hmac", "html", "inspect", "ipaddress", "keyword", "linecache", "locale", "logging", "lzma"),
    *("multiprocessing", "numpy", "numpy.ma", "numpy.polynomial", "optparse", "pathlib", "pickle", "platform"),
    *("pprint", "reprlib", "secrets"),
    *("selectors", "shlex", "shutil", "signal", "socket", "stat", "subprocess", "symtable", "tempfile", "timeit"),
    *("token", "tokenize", "unicodedata", "unittest", "uuid", "warnings", "weakref", "zlib", "zoneinfo"),
)
"""Imported beforehand where nothing can be opened later."""

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


@dataclass(frozen=True)
class Layers:
    """What this machine can do."""

    landlock: int
    """Version of Landlock, 0 for none."""
    filters: bool
    """Whether the kernel filters system calls."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """The layers that are not there, for the verdicts."""
        missing = [] if self.filters else ["system-call filter"]
        if self.landlock < landlock.SCOPES_SINCE:
            missing.append("Landlock's signal scope" if self.landlock else "Landlock")
        return tuple(missing)


def detect() -> Layers:
    """Asks the kernel."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # Without a filter to load this fails in any case, but not for the same reason.
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    filters = ctypes.get_errno() == errno.EFAULT
    return Layers(landlock.version(), filters)


def settings(layers: Layers, folders: list[str], unsafe: bool) -> dict[str, Any]:
    """What a zygote needs to know to seal itself.

    Args:
        layers: what `detect` found.
        folders: where `LIBRARIES` are.
        unsafe: do without filters where there are none.

    Raises:
        StepCoderError: without filters a program could do what it likes, and nobody said that it may.
    """
    if not layers.filters and not unsafe:
        raise StepCoderError(
            "this system does not filter system calls (seccomp), so programs cannot be kept from other processes and "
            "the network: run the sandbox elsewhere, or accept it with `--sandbox unsafe` (`sandbox serve --unsafe`)"
        )
    scoped = layers.landlock >= landlock.SCOPES_SINCE
    return {
        "landlock": layers.landlock,
        "scoped": scoped,
        "opens": layers.landlock > 0 or not layers.filters,
        "readable": readable(folders) if layers.landlock else [],
        "writable": WRITABLE,
        "zygote_filter": zygote_filter(opens=layers.landlock > 0).hex() if layers.filters else "",
        "child_filter": child_filter(signals=scoped).hex() if layers.filters else "",
        "libraries": LIBRARIES,
        "folders": folders,
        "modules": list(READY_WITHOUT_FILES) if not layers.landlock else [],
    }


def readable(folders: list[str]) -> list[str]:
    """Files and folders that a program may read: the standard library, the libraries it may import, the system's."""
    found = list(SYSTEM_FILES)
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(os.__file__).parent)}:
        found += [str(entry) for entry in Path(folder).iterdir() if entry.name not in NOT_STANDARD]
    return found + [f"{folder}/{name}{libs}" for folder in folders for name in LIBRARIES for libs in ("", ".libs")]
