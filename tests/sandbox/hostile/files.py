"""Escapes to files: nothing outside a program's own folder is written, renamed, relabelled or removed."""

from __future__ import annotations

from hostile.case import Case

HARM = "the folder of canaries changes"


def _deed(name: str, deed: str, head: str = "import os") -> Case:
    """A program that does one deed and says what came of it."""
    return Case(name, f"{head}\ndef f(a):\n    return {deed}", harm=HARM)


CASES = [
    _deed("writes a file", "open('@FOLDER@/precious.txt', 'w').write('gone')"),
    _deed("appends to a file", "open('@FOLDER@/precious.txt', 'a').write('more')"),
    _deed("writes into a file", "os.pwrite(os.open('@FOLDER@/precious.txt', os.O_RDWR), b'X', 0)"),
    _deed("makes a file", "open('@FOLDER@/new.txt', 'w').write('new')"),
    _deed("makes a file beside its own folder", "open('../@NAME@', 'w').write('new')"),
    _deed("removes a file", "os.unlink('@FOLDER@/precious.txt')"),
    _deed("removes all", "shutil.rmtree('@FOLDER@')", "import shutil"),
    _deed("cuts a file", "os.truncate('@FOLDER@/precious.txt', 0)"),
    _deed("cuts a file as it opens it", "os.open('@FOLDER@/precious.txt', os.O_RDONLY | os.O_TRUNC)"),
    _deed("changes permissions", "os.chmod('@FOLDER@/precious.txt', 0o777)"),
    _deed("changes permissions of the folder", "os.chmod('@FOLDER@', 0)"),
    _deed(
        "changes permissions by a descriptor of the place",
        "os.fchmod(os.open('@FOLDER@/precious.txt', os.O_RDONLY), 0o777)",
    ),
    _deed("changes the owner", "os.chown('@FOLDER@/precious.txt', 12345, 12345)"),
    _deed("changes the owner of a link", "os.lchown('@FOLDER@/link', 12345, 12345)"),
    _deed("changes the times", "os.utime('@FOLDER@/precious.txt', (1, 1))"),
    _deed("changes the times of the folder", "os.utime('@FOLDER@', (1, 1))"),
    _deed("adds an attribute", "os.setxattr('@FOLDER@/precious.txt', 'user.mine', b'1')"),
    _deed("removes an attribute", "os.removexattr('@FOLDER@/secret.txt', 'user.token')"),
    _deed("renames a file", "os.rename('@FOLDER@/precious.txt', '@FOLDER@/other.txt')"),
    _deed("moves a file to its own folder", "os.rename('@FOLDER@/precious.txt', 'mine')"),
    _deed("moves a file of its own over it", "(open('x', 'w').close(), os.rename('x', '@FOLDER@/precious.txt'))"),
    _deed("links a file to its own folder", "os.link('@FOLDER@/precious.txt', 'mine')"),
    _deed("links a file under another name", "os.link('@FOLDER@/precious.txt', '@FOLDER@/other.txt')"),
    _deed("makes a link", "os.symlink('/nowhere', '@FOLDER@/away')"),
    _deed("makes a folder", "os.mkdir('@FOLDER@/folder')"),
    _deed("removes a folder", "os.rmdir('@FOLDER@/empty')"),
    _deed("makes a queue", "os.mkfifo('@FOLDER@/queue')"),
    _deed("makes a device", "os.mknod('@FOLDER@/device', 0o20600, os.makedev(1, 3))"),
    _deed(
        "makes a socket",
        "socket.socket(socket.AF_UNIX).bind('@FOLDER@/socket')",
        "import socket",
    ),
    Case(
        "a device of its own that is the machine's disk",
        """
        import os
        def f(a):
            os.mknod("disk", 0o60600, os.stat("/").st_dev)
            os.close(os.open("disk", os.O_RDONLY))
            print("BREACH")
        """,
        harm="the program reads the disk",
    ),
    Case(
        "writes through a link in its own folder",
        """
        def f(a):
            import os
            os.symlink("@FOLDER@", "out")
            with open("out/precious.txt", "w") as file: file.write("gone")
        """,
        harm=HARM,
    ),
    Case(
        "writes through dots",
        """
        import os
        def f(a):
            with open("../" * 20 + "@FOLDER@/precious.txt", "w") as file: file.write("gone")
        """,
        harm=HARM,
    ),
    Case(
        "writes through /proc",
        """
        import os
        def f(a):
            for root in ("/proc/self/root", f"/proc/{os.getppid()}/root", "/proc/self/task/../root", "/proc/1/root"):
                try:
                    with open(root + "@FOLDER@/precious.txt", "w") as file: file.write("gone")
                except OSError: pass
        """,
        harm=HARM,
    ),
    Case(
        "writes after it changed its folder",
        'import os\ndef f(a):\n    os.chdir("@FOLDER@")\n    open("precious.txt", "w").write("gone")',
        harm=HARM,
    ),
    Case(
        "writes to memory that is a file",
        """
        import mmap, os
        def f(a):
            fd = os.open("@FOLDER@/precious.txt", os.O_RDWR)
            mmap.mmap(fd, 0)[:4] = b"gone"
        """,
        harm=HARM,
    ),
    Case(
        "copies between descriptors",
        """
        import os
        def f(a):
            with open("mine", "wb") as file: file.write(b"gone")
            source = os.open("mine", os.O_RDONLY)
            target = os.open("@FOLDER@/precious.txt", os.O_WRONLY)
            os.copy_file_range(source, target, 4)
            os.sendfile(target, source, 0, 4)
        """,
        harm=HARM,
    ),
    Case(
        "makes a file without a name and then names it",
        """
        import ctypes, os
        def f(a):
            fd = os.open("@FOLDER@", os.O_TMPFILE | os.O_RDWR)
            os.write(fd, b"x")
            ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"@FOLDER@/named", 0x400)
        """,
        harm=HARM,
    ),
    Case(
        "digs a hole",
        """
        import ctypes, os
        def f(a):
            fd = os.open("@FOLDER@/precious.txt", os.O_RDWR)
            ctypes.CDLL(None).fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4))
        """,
        harm=HARM,
    ),
    Case(
        "locks a file for ever by a flag",
        """
        import array, fcntl, os
        def f(a):
            flags = array.array("l", [0])
            fd = os.open("@FOLDER@/precious.txt", os.O_RDONLY)
            fcntl.ioctl(fd, 0x80086601, flags)
            flags[0] |= 0x40  # no dump: a flag that can be seen and does no harm
            fcntl.ioctl(fd, 0x40086602, flags)
        """,
        harm=HARM,
    ),
    Case(
        "takes a lock that others wait for",
        """
        import fcntl, os, time
        def f(a):
            fcntl.flock(os.open("@FOLDER@/precious.txt", os.O_RDONLY), fcntl.LOCK_EX)
            if os.fork() == 0: time.sleep(60)
        """,
        harm="a file stays locked",
    ),
    Case(
        "writes by a shell",
        """
        import os, subprocess
        def f(a):
            os.system("echo gone > @FOLDER@/precious.txt")
            subprocess.run(["/bin/rm", "-f", "@FOLDER@/precious.txt"])
        """,
        harm=HARM,
    ),
    Case(
        "writes with a database",
        """
        import sqlite3
        def f(a):
            with sqlite3.connect("@FOLDER@/base") as base: base.execute("create table t (x)")
        """,
        harm=HARM,
    ),
    Case(
        "writes by a thread and by a child",
        """
        import os, threading
        def write():
            try: open("@FOLDER@/precious.txt", "w").write("gone")
            except OSError: pass
        def f(a):
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            if os.fork() == 0:
                os.setsid()
                write()
                os._exit(0)
            os.wait()
        """,
        harm=HARM,
    ),
    Case(
        "writes a file that it was not given, by handle",
        """
        @SYSCALLS@
        def f(a):
            handle = ctypes.create_string_buffer(136)
            ctypes.c_uint.from_buffer(handle).value = 128
            mount = ctypes.c_int()
            call("name_to_handle_at", -100, b"@FOLDER@/precious.txt", handle, ctypes.byref(mount), 0)
            fd = call("open_by_handle_at", os.open(".", os.O_RDONLY), handle, os.O_WRONLY)
            os.write(fd, b"gone")
        """,
        harm=HARM,
    ),
    Case(
        "mounts over it",
        """
        @SYSCALLS@
        def f(a):
            call("mount", b"none", b"@FOLDER@/empty", b"tmpfs", 0, 0)
            return os.path.ismount("@FOLDER@/empty")
        """,
        harm=HARM,
    ),
    Case(
        "moves its own folder and leaves a link in its place",
        """
        import os
        def f(a):
            room = os.getcwd()
            os.mkdir("inner")
            os.symlink("@FOLDER@", "link")
            os.rename(room, room + "2")
            os.symlink("@FOLDER@", room)
            return None
        """,
        harm="the judge empties the wrong folder",
    ),
    Case(
        "puts links where the judge will remove",
        """
        import os, threading
        def f(a):
            os.makedirs("deep/er")
            os.symlink("@FOLDER@", "deep/er/link")
            os.symlink("@FOLDER@", "deep/link")
            os.symlink("@FOLDER@/precious.txt", "file")
        """,
        harm="the judge follows a link as it empties the folder",
    ),
    Case(
        "changes its folder under the judge as it is emptied",
        """
        import os
        def f(a):
            for number in range(200): os.makedirs(f"a{number}/b")
            if os.fork() == 0:
                os.setsid()
                for _ in range(2000):
                    try:
                        os.rename("a1", "c")
                        os.symlink("@FOLDER@", "a1")
                        os.unlink("a1")
                        os.rename("c", "a1")
                    except OSError: pass
                os._exit(0)
        """,
        harm="the judge follows a link as it empties the folder",
    ),
    Case(
        "opens settings of the kernel to write",
        """
        import os
        def f(a):
            for name in ("core_pattern", "hostname", "panic", "yama/ptrace_scope"):
                try: os.close(os.open("/proc/sys/kernel/" + name, os.O_WRONLY))
                except OSError: continue
                print("BREACH", name)
        """,
        harm="core_pattern can be set",
    ),
    Case(
        "opens the machine's disks and memory to write",
        """
        import os
        def f(a):
            for name in ("/dev/mem", "/dev/sda", "/dev/vda", "/dev/vdb", "/dev/loop-control", "/proc/sysrq-trigger"):
                try: os.close(os.open(name, os.O_WRONLY))
                except OSError: continue
                print("BREACH", name)
        """,
        harm="the machine's disk can be written",
    ),
    Case(
        "opens files of the system to write",
        """
        import os
        def f(a):
            for name in ("/etc/passwd", "/etc/ld.so.preload", "/bin/sh", os.__file__, "/root/.bashrc", "/etc/crontab"):
                try: os.close(os.open(name, os.O_WRONLY))
                except OSError: continue
                print("BREACH", name)
        """,
        harm="a file of the system can be written",
    ),
    Case(
        "types into a terminal",
        """
        import fcntl, os
        def f(a):
            for name in ("/dev/tty", "/dev/console", "/dev/pts/0", "/dev/tty0", "/dev/ptmx"):
                try: fd = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                except OSError: continue
                print("BREACH", name)
        """,
        harm="a terminal is opened, and TIOCSTI would type into it",
    ),
    Case(
        "makes a control group",
        'import os\ndef f(a):\n    os.mkdir("/sys/fs/cgroup/@NAME@")',
        harm="a control group is left",
    ),
    Case(
        "leaves temporary files",
        """
        import tempfile
        def f(a):
            for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/root", "/home"):
                try: open(folder + "/@NAME@", "w").close()
                except OSError: pass
        """,
        harm="a file is left",
    ),
    Case(
        "watches what others do with files",
        """
        @SYSCALLS@
        def f(a):
            watch = _libc.inotify_init()
            if _libc.inotify_add_watch(watch, b"@FOLDER@", 0xFFF) >= 0: print("BREACH inotify")
            if call("fanotify_init", 0, 0) >= 0: print("BREACH fanotify")
        """,
        harm="the program sees what others open",
    ),
    Case(
        "a file without end",
        "def f(a):\n    with open('big', 'wb') as file:\n        while True: file.write(b'x' * 10**6)",
        harm="the disk is full",
    ),
]
