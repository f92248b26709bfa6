"""Canaries on the machine of the sandbox: what a hostile program is after, and what shows whether it got there.

A program names them by words: FOLDER (files), PID, ADDRESS, LENGTH, FD (a neighbour process, a buffer in its memory, a
descriptor of its), TCP, TCP6, UDP, UNIX, UNIX_DATAGRAM, ABSTRACT (listeners), SHM_KEY, SHM_NAME (shared memory), SECRET
(what is in all of them). NAME and KEY are new for each case: what a program leaves anywhere bears them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import hashlib
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import stepcoder
from stepcoder.sandbox.inside import zygote

NEIGHBOUR = """
import ctypes, os, sys
buffer = ctypes.create_string_buffer(os.environ["CANARY"].encode())
secret = open("secret.txt")
print(ctypes.addressof(buffer), secret.fileno(), flush=True)
for line in sys.stdin:
    print(buffer.value.decode(), flush=True)
"""
ANSWER_SECONDS = 5.0
MOST_GROWTH = 96 << 20
"""Bytes by which the judge's memory may grow over one case."""
MOST_DESCRIPTORS = 8
SETTLE_SECONDS = 3.0
"""Processes that were killed may take so long to vanish."""

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


class Neighbour:
    """A process of the same user that holds the secret in its memory, environment, arguments and descriptors."""

    def __init__(self, folder: Path, secret: str) -> None:
        self.secret = secret
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", NEIGHBOUR, secret],
            env={"CANARY": secret},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.address, self.descriptor = map(int, self._process.stdout.readline().split())
        self.pid = self._process.pid
        self._state = self._settings()

    def harm(self) -> list[str]:
        """What happened to it."""
        if self._process.poll() is not None:
            return [f"the neighbour ended with {self._process.returncode}"]
        found = []
        with open(f"/proc/{self.pid}/status") as file:
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
        if status["State"][0] in "Tt":
            found.append("the neighbour is stopped")
        if status["TracerPid"] != "0":
            found.append("the neighbour is traced")
        if not found and self._said() != self.secret:
            found.append("the neighbour's memory changed, or it does not answer")
        found += [
            f"the neighbour's {name} changed" for name, value in self._settings().items() if value != self._state[name]
        ]
        return found

    def end(self) -> None:
        """Ends it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self._process.kill()
        self._process.communicate()

    def _said(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # It may be dying.
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        return self._process.stdout.readline().rstrip() if ready else ""

    def _settings(self) -> dict[str, object]:
        limits = [resource.prlimit(self.pid, which) for which in range(16)]
        return {
            "limits": limits,
            "priority": os.getpriority(os.PRIO_PROCESS, self.pid),
            "cores": os.sched_getaffinity(self.pid),
            "scheduling": os.sched_getscheduler(self.pid),
            "input and output priority": libc.syscall(252 if os.uname().machine == "x86_64" else 31, 1, self.pid),
            "name": Path(f"/proc/{self.pid}/comm").read_text(),
            "score": Path(f"/proc/{self.pid}/oom_score_adj").read_text(),
            "group": os.getpgid(self.pid),
        }


class Listeners:
    """Sockets that nobody but a hostile program speaks to."""

    def __init__(self, folder: Path, name: str) -> None:
        self.paths = (folder / "stream", folder / "datagram")
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        self._sockets = {
            "TCP": self._bound(socket.AF_INET, stream, ("127.0.0.1", 0)),
            "UDP": self._bound(socket.AF_INET, datagram, ("127.0.0.1", 0)),
            "a UNIX path": self._bound(socket.AF_UNIX, stream, str(self.paths[0])),
            "a UNIX path by datagram": self._bound(socket.AF_UNIX, datagram, str(self.paths[1])),
            "an abstract name": self._bound(socket.AF_UNIX, stream, f"\0{name}"),
            "an abstract name by datagram": self._bound(socket.AF_UNIX, datagram, f"\0{name}-datagram"),
        }
        with contextlib.suppress(OSError):  # a machine without IPv6
            self._sockets["TCP6"] = self._bound(socket.AF_INET6, stream, ("::1", 0))

    def port(self, name: str) -> int:
        """The port; a port that nobody has where the machine lacks the family."""
        return int(self._sockets[name].getsockname()[1]) if name in self._sockets else 9

    def harm(self) -> list[str]:
        """What came in."""
        found = []
        for name, listener in self._sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    if listener.type == socket.SOCK_STREAM:
                        listener.accept()[0].close()
                    else:
                        listener.recv(100)
                    found.append(f"something came in by {name}")
        return found

    def end(self) -> None:
        """Closes them."""
        for listener in self._sockets.values():
            listener.close()

    @staticmethod
    def _bound(family: int, kind: int, address: object) -> socket.socket:
        bound = socket.socket(family, kind)
        bound.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            bound.listen()
        bound.setblocking(False)
        return bound


class Host:
    """All canaries, and what was there before a case."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"canary-{secrets.token_hex(12)}"
        self._folder = folder / "data"
        self._sockets = folder / "sockets"
        self._sockets.mkdir(parents=True)
        self._shm_key = secrets.randbelow(1 << 30) + 1
        self._shm_name = f"canary-shm-{secrets.token_hex(6)}"
        self._abstract = f"abstract-{self.secret}"
        Path("/dev/shm", self._shm_name).write_text(self.secret)
        self._segment = libc.shmget(self._shm_key, 4096, 0o1600)
        address = libc.shmat(self._segment, None, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        libc.shmdt(ctypes.c_void_p(address))
        self.listeners = Listeners(self._sockets, self._abstract)
        self._fill_folder()
        self.neighbour = Neighbour(self._folder, self.secret)

    def begin(self, answer: str) -> None:
        """Before a case: a new name, the answer where others would keep it, and a look at what there is."""
        self._name = f"sc{secrets.token_hex(6)}"
        self._key = secrets.randbelow(1 << 30) + 1
        (self._folder / "test.jsonl").write_text(answer)
        self._before = snapshot(self._folder)
        self._processes = programs()
        self._cores = set(glob.glob("/core*"))
        self._descriptors = len(os.listdir("/proc/self/fd"))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self._peaks = _peaks()

    def words(self) -> dict[str, object]:
        """What the words of programs stand for."""
        return {
            "@FOLDER@": self._folder,
            "@PID@": self.neighbour.pid,
            "@ADDRESS@": self.neighbour.address,
            "@LENGTH@": len(self.secret),
            "@FD@": self.neighbour.descriptor,
            "@TCP@": self.listeners.port("TCP"),
            "@TCP6@": self.listeners.port("TCP6"),
            "@UDP@": self.listeners.port("UDP"),
            "@UNIX@": self.listeners.paths[0],
            "@UNIX_DATAGRAM@": self.listeners.paths[1],
            "@ABSTRACT@": self._abstract,
            "@SHM_KEY@": self._shm_key,
            "@SHM_NAME@": self._shm_name,
            "@SECRET@": self.secret,
            "@NAME@": self._name,
            "@KEY@": self._key,
        }

    def harm(self) -> list[str]:
        """What happened to the canaries and what was left; mends it for the next case."""
        found = self.neighbour.harm()
        if found:
            self.neighbour.end()
        if (now := snapshot(self._folder)) != self._before or self._is_locked():
            changed = [name for name in self._before.keys() | now.keys() if self._before.get(name) != now.get(name)]
            found.append(f"the folder changed: {sorted(changed) or 'a file is locked'}")
            self._fill_folder()
        if found:
            if not self.neighbour.harm():
                self.neighbour.end()
            self.neighbour = Neighbour(self._folder, self.secret)
        found += self.listeners.harm()
        found += self._left_behind()
        found += [f"process {pid} was left: {_name_of(pid)}" for pid in self._strays()]
        for pid, peak in _peaks().items():
            grown = peak - self._peaks.get(pid, peak)
            if grown > MOST_GROWTH:
                found.append(f"the memory of the judge's process {pid} grew by {grown >> 20} MiB")
        more = len(os.listdir("/proc/self/fd")) - self._descriptors
        if more > MOST_DESCRIPTORS:
            found.append(f"the judge has {more} more descriptors")
        return found

    def end(self) -> None:
        """Removes everything."""
        self.neighbour.end()
        self.listeners.end()
        libc.shmctl(self._segment, 0, None)
        Path("/dev/shm", self._shm_name).unlink(missing_ok=True)

    def _fill_folder(self) -> None:
        for path in (self._folder, *self._folder.rglob("*")):
            with contextlib.suppress(OSError):
                path.chmod(0o700)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        (self._folder / "empty").mkdir()
        (self._folder / ".aws").mkdir()
        for name in ("precious.txt", "test.jsonl"):
            (self._folder / name).write_text("precious\n")
        for name in ("secret.txt", "model.safetensors", ".netrc", ".aws/credentials", f"named-{self.secret}"):
            (self._folder / name).write_text(self.secret)
        (self._folder / "link").symlink_to(f"/nowhere/{self.secret}")
        with contextlib.suppress(OSError):  # a file system without them
            os.setxattr(self._folder / "secret.txt", "user.token", self.secret.encode())

    def _is_locked(self) -> bool:
        with open(self._folder / "precious.txt") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _strays(self) -> set[int]:
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            new = programs() - self._processes
            if not new or time.monotonic() > end:
                return new
            time.sleep(0.05)

    def _left_behind(self) -> list[str]:
        """Files and objects of the kernel that bear this case's name or key."""
        packages = {sysconfig.get_path(name) for name in ("purelib", "stdlib")}
        judge = Path(stepcoder.__file__).parent
        inside = (judge, judge / "problems", judge / "sandbox", judge / "sandbox" / "inside")
        homes = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "/sys/fs/cgroup", "/tmp/stepcoder-sandbox-*")
        found = []
        for folder in (*homes, str(Path.home()), *packages, *map(str, inside), *sys.path):
            for path in (*glob.glob(f"{folder}/*{self._name}*"), *glob.glob(f"{folder}/__pycache__/*{self._name}*")):
                found.append(f"{path} was left")
                with contextlib.suppress(OSError):
                    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        for path in set(glob.glob("/core*")) - self._cores:
            found.append(f"{path} was left")
            os.unlink(path)
        queue = libc.mq_open(f"/{self._name}".encode(), os.O_RDONLY)
        if queue >= 0:
            os.close(queue)
            libc.mq_unlink(f"/{self._name}".encode())
            found.append("a POSIX queue was left")
        for kind, get, control in (
            ("shared memory", lambda: libc.shmget(self._key, 0, 0), lambda it: libc.shmctl(it, 0, None)),
            ("semaphores", lambda: libc.semget(self._key, 0, 0), lambda it: libc.semctl(it, 0, 0)),
            ("a queue", lambda: libc.msgget(self._key, 0), lambda it: libc.msgctl(it, 0, None)),
        ):
            number = get()
            if number >= 0:
                control(number)
                found.append(f"{kind} of System V was left")
        with contextlib.suppress(OSError):
            if self._name in Path("/proc/keys").read_text():
                found.append("a key was left")
        return found


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that may change of the files of a folder, by name."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        try:
            about = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            found[str(path.relative_to(folder))] = (str(error),)
            continue
        found[str(path.relative_to(folder))] = (
            *(about.st_mode, about.st_uid, about.st_gid, about.st_nlink, about.st_mtime_ns, about.st_dev),
            *(content, tuple(sorted(names)), _flags(path)),
        )
    return found


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        parent = todo.pop()
        todo += _children(parent)
        found.add(parent)
    return found - {pid}


def programs() -> set[int]:
    """Processes that hold a program of this tree's sandbox, or one that was orphaned by it.

    All forks of a zygote share its command line. Each zygote keeps one of them for compiling.
    """
    mine = descendants(os.getpid())
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if zygote.__file__.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    forks = {pid: parent for pid, parent in parents.items() if parent in parents or parent not in mine}
    found = {pid for pid, parent in forks.items() if pid in mine or parent == 1}
    return found - {min(pid for pid in forks if forks[pid] == parent) for parent in forks.values() if parent in mine}


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
    return "gone"


def _peaks() -> dict[int, int]:
    """The most memory that this process and its children (the supervisors) have used."""
    found = {}
    for pid in (os.getpid(), *_children(os.getpid())):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:
            found[pid] = sum(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    return found


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    # A thread or a process may end between two looks.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                found.update(map(int, children.read().split()))
    return found


def _flags(path: Path) -> int:
    if not path.is_file() or path.is_symlink():
        return 0
    buffer = bytearray(8)
    with open(path, "rb") as file:
        try:
            fcntl.ioctl(file, 0x80086601, buffer)
        except OSError:
            return 0
    return int.from_bytes(buffer, "little")
