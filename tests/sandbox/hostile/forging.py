"""Forging results: what a program writes on the judge's own channel, or leaves where a judge might look."""

from __future__ import annotations

from hostile.case import (
    ERROR,
    FAILS,
    OUTPUT,
    SECURITY,
    TIMEOUT,
    WRONG,
    Case,
    a_float,
    a_number,
    a_script,
    exactly,
    two_calls,
)
from stepcoder.problems import CallTest, StdinTest

CASES = [
    Case(
        "junk on every descriptor",
        '@FORGE@\ndef f(a):\n    on_all(b"\\0\\0\\0\\1RR" * 9)\n    return 0',
        {SECURITY, ERROR},
        two_calls,
    ),
    Case(
        "a claim before it is loaded",
        '@FORGE@\nforge(b\'{"test":0,"value":0}\')\ndef f(a):\n    return 0',
        {SECURITY},
        two_calls,
    ),
    Case(
        "it says itself that it is loaded",
        "@FORGE@\nforge(b'{}', b'L')\ndef f(a):\n    return 0",
        {SECURITY},
        two_calls,
    ),
    Case(
        "it says that the preamble is at fault",
        "@FORGE@\nforge(b'{\"exception\":\"x\"}', b'B')\ndef f(a):\n    return 0",
        {SECURITY},
        two_calls,
    ),
    Case(
        "it says that it begins now, with CPU time it never used",
        "@FORGE@\nforge(b'-1e9', b'G')\ndef f(a):\n    return 0",
        {SECURITY},
        two_calls,
    ),
    Case(
        "two claims for one test",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":%d,"value":41}' % (a - 1))
            return 41
        """,
        {SECURITY},
        exactly(CallTest.of((1,), 41), CallTest.of((2,), 41)),
    ),
    Case(
        "the right claim of its own, and a second at its end",
        """
        @FORGE@
        import atexit
        def f(a):
            if a == 2:
                on_all(framed(b'{"test":1,"value":41}') * 2)
                os._exit(0)
            return 41
        """,
        {SECURITY},
        exactly(CallTest.of((1,), 41), CallTest.of((2,), 41)),
    ),
    Case(
        "claims for later tests in advance",
        """
        @FORGE@
        def f(a):
            on_all(b"".join(framed(b'{"test":%d,"value":41}' % test) for test in range(8)))
            return 41
        """,
        {SECURITY},
        exactly(*[CallTest.of((number,), 41) for number in range(8)]),
    ),
    Case(
        "a claim of a pass",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"outcome":"pass"}\')\n    os._exit(0)',
        {SECURITY},
        two_calls,
    ),
    Case(
        "a claim without a value",
        "@FORGE@\ndef f(a):\n    forge(b'{\"test\":0}')\n    os._exit(0)",
        {WRONG, SECURITY},
        exactly(CallTest.of((1,), None)),
    ),
    Case("an empty list", "@FORGE@\ndef f(a):\n    forge(b'[]')\n    os._exit(0)", {SECURITY}, two_calls),
    Case("an empty claim", "@FORGE@\ndef f(a):\n    forge(b'')\n    os._exit(0)", {SECURITY}, two_calls),
    Case("an empty message", "@FORGE@\ndef f(a):\n    on_all(bytes(4))\n    os._exit(0)", {SECURITY}, two_calls),
    Case(
        "half a message",
        '@FORGE@\ndef f(a):\n    on_all(framed(b\'{"test":0,"value":0}\')[:9])\n    os._exit(0)',
        {ERROR, SECURITY},
        two_calls,
    ),
    Case(
        "half a message, and then it waits",
        "@FORGE@\nimport time\ndef f(a):\n    on_all(framed(b'x' * 99)[:9])\n    time.sleep(99)",
        {TIMEOUT},
    ),
    Case(
        "a huge length",
        '@FORGE@\ndef f(a):\n    on_all(b"\\xff\\xff\\xff\\x7fR" + b"[" * 9999)\n    os._exit(0)',
        {SECURITY},
        two_calls,
        "the judge waits for, or allots, two gigabytes",
    ),
    Case(
        "as much as the pipe takes, without end",
        '@FORGE@\ndef f(a):\n    while True: on_all(b"\\0\\0\\1\\0" + b"x" * 65536)',
        {SECURITY, TIMEOUT},
        harm="the judge's memory grows",
    ),
    Case(
        "deep nesting",
        "@FORGE@\ndef f(a):\n    forge(b'{\"test\":0,\"value\":' + b'[' * 60000)\n    os._exit(0)",
        {SECURITY},
        two_calls,
    ),
    Case(
        "deep nesting that is well formed",
        "@FORGE@\ndef f(a):\n    forge(b'{\"test\":0,\"value\":' + b'[' * 900 + b']' * 900 + b'}')\n    os._exit(0)",
        {SECURITY, WRONG, ERROR},
        exactly(CallTest.of((1,), [[[[]]]])),
    ),
    Case(
        "duplicate keys",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":1,"test":0,"value":1,"value":0}\')\n    os._exit(0)',
        {WRONG, SECURITY, ERROR},
    ),
    Case(
        "NaN where a number belongs",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":NaN,"value":NaN}\')\n    os._exit(0)',
        {SECURITY},
        a_float,
    ),
    Case(
        "NaN as a value",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":NaN}\')\n    os._exit(0)',
        {WRONG, SECURITY, ERROR},
        a_float,
    ),
    Case(
        "a number of 60,000 digits",
        "@FORGE@\ndef f(a):\n    forge(b'{\"test\":0,\"value\":' + b'9' * 60000 + b'}')\n    os._exit(0)",
        {SECURITY, WRONG, ERROR},
        a_number,
    ),
    Case(
        "a true test number",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":false,"value":0}\')\n    os._exit(0)',
        {SECURITY},
    ),
    Case(
        "an exception that is no text",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"exception":{"$opaque":1},"line":"x"}\')\n    os._exit(0)',
        {SECURITY},
    ),
    Case(
        "a status that is no number",
        '@FORGE@\ndef f():\n    forge(b\'{"test":0,"status":"0"}\')\n    os._exit(0)',
        {SECURITY},
        a_script,
    ),
    Case(
        "text that is no text",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":"\\xff\\xfe"}\')\n    os._exit(0)',
        {SECURITY},
    ),
    Case(
        "tags that the judge never writes",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":{"$any":1}}\')\n    os._exit(0)',
        {SECURITY},
    ),
    Case(
        "payloads that no tag has",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":0,"value":{"$complex":["1","2","3"]}}' if a == 1 else b'{"test":1,"value":{"$dict":[[1]]}}')
            os._exit(0)
        """,
        {SECURITY, WRONG, ERROR},
        exactly(CallTest.of((1,), 1 + 2j), CallTest.of((2,), {1: 2})),
    ),
    Case(
        "a list of one part where a complex number is expected",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":{"$complex":["1"]}}\')\n    os._exit(0)',
        {SECURITY, WRONG, ERROR},
        exactly(CallTest.of((1,), 1 + 2j)),
    ),
    Case(
        "a set whose elements take long to tell apart",
        """
        @FORGE@
        def f(a):
            items = b",".join(b'{"$tuple":[%d,[]]}' % number for number in range(190))
            forge(b'{"test":0,"value":{"$set":[' + items + b']}}')
            os._exit(0)
        """,
        {WRONG, SECURITY, ERROR},
        exactly(CallTest.of((1,), {(number, (str(number),)) for number in range(190)})),
        "the judge computes for long",
    ),
    Case(
        "keys that collide",
        """
        @FORGE@
        def f(a):
            pairs = b",".join(b'[{"$int":"%x"},0]' % (number * (2**61 - 1)) for number in range(2000))
            forge(b'{"test":0,"value":{"$dict":[' + pairs + b']}}')
            os._exit(0)
        """,
        {WRONG, SECURITY, ERROR},
        exactly(CallTest.of((1,), dict.fromkeys(range(2000), 0))),
        "the judge computes for long",
    ),
    Case(
        "descriptors for the judge, by SCM_RIGHTS",
        """
        @FORGE@
        import array, socket, stat
        def f(a):
            rights = array.array("i", [0] * 40)
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        link = socket.socket(fileno=os.dup(fd))
                        for _ in range(20):
                            link.sendmsg([b"\\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                except OSError: continue
            return 0
        """,
        {SECURITY, ERROR, WRONG},
        two_calls,
        "the judge's descriptors are used up",
    ),
    Case(
        "credentials and urgent data on the link",
        """
        @FORGE@
        import socket, stat, struct
        def f(a):
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        link = socket.socket(fileno=os.dup(fd))
                        link.send(b"!", socket.MSG_OOB)
                        link.sendmsg([b""], [(socket.SOL_SOCKET, 2, struct.pack("3i", 1, 0, 0))])
                except OSError: continue
            return 0
        """,
        {WRONG, SECURITY, ERROR},
    ),
    Case(
        "the link, shut for writing",
        """
        import os, socket, stat
        def f(a):
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
                except OSError: continue
            return 0
        """,
        {ERROR, SECURITY},
        two_calls,
    ),
    Case(
        "the link, never read again and never let go",
        """
        import os, time
        def f(a):
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        """,
        {ERROR, TIMEOUT},
        harm="a process outlives the verdict",
    ),
    Case(
        "a sentinel on standard output",
        "def f(a):\n    print('PASS', 'passed', True, '{\"verdict\": \"pass\"}', '...\\nOK\\n')",
        {WRONG},
        two_calls,
    ),
    Case(
        "a claim on standard output",
        'def f():\n    print(\'{"test": 0, "verdict": "pass"}\', \'1 passed in 0.01s\')',
        {WRONG},
        a_script,
    ),
    Case(
        "a claim of its own and no answer",
        "@FORGE@\ndef f():\n    forge(b'{\"test\":0}')",
        {WRONG, SECURITY},
        a_script,
    ),
    Case(
        "a pickle that runs where it is read",
        """
        import os
        class Pickle:
            def __reduce__(self):
                return os.system, ("echo BREACH > @NAME@",)
        def f(a):
            return Pickle()
        """,
        {WRONG},
        harm="the judge unpickles",
    ),
    Case(
        "a pickle on the link",
        "@FORGE@\nimport pickle\ndef f(a):\n    forge(pickle.dumps({'test': 0, 'passed': True}))\n    os._exit(0)",
        {SECURITY},
    ),
    Case(
        "the map of executed statements",
        """
        import builtins, gc, mmap
        def f(a):
            for o in gc.get_objects():
                if type(o) is mmap.mmap: o[:] = b"\\xff" * len(o)
            for cell in getattr(vars(builtins).get("hit!"), "__closure__", None) or ():
                if type(cell.cell_contents) is mmap.mmap:
                    memory = cell.cell_contents
                    memory[:] = b"\\xff" * len(memory)
            return 0
        """,
        {WRONG, ERROR},
    ),
    Case(
        "the map of executed statements, made shorter",
        """
        import os
        def f(a):
            for fd in range(3, 64):
                try: os.ftruncate(fd, 0)
                except OSError: pass
            return 0
        """,
        {WRONG, ERROR, SECURITY},
        harm="the judge reads statements that are not there",
    ),
    Case(
        "the judge's memory files, sealed",
        """
        import fcntl
        def f(a):
            for fd in (0, 1):
                try: fcntl.fcntl(fd, 1033, 0x1 | 0x2 | 0x4 | 0x8)
                except OSError: pass
            return 0
        """,
        {WRONG, ERROR, SECURITY},
        two_calls,
        "the judge cannot empty the file for the next test",
    ),
    Case(
        "standard output of a terabyte with holes",
        "import os\ndef f(a):\n    os.lseek(1, 1 << 40, 0)\n    os.write(1, b'x')\n    return 0",
        {OUTPUT, ERROR, WRONG},
        harm="the judge reads a terabyte",
    ),
    Case(
        "standard output that is stretched",
        "import os\ndef f(a):\n    os.ftruncate(1, 1 << 40)\n    return 0",
        {OUTPUT, ERROR, WRONG},
        harm="the judge reads a terabyte",
    ),
    Case(
        "standard output, rewritten by a child after the end",
        """
        import os, time
        def f():
            if os.fork() == 0:
                for _ in range(100):
                    os.pwrite(1, b"answer", 0)
                    time.sleep(0.01)
        """,
        {WRONG, ERROR},
        a_script,
    ),
    Case(
        "the answer and a bad status",
        "import os\ndef f():\n    os.write(1, b'%d' % sum(map(int, input().split())))\n    os._exit(1)",
        {ERROR},
        exactly(StdinTest(stdin="3 4\n", stdout="7\n")),
    ),
    Case(
        "the answer and a kill",
        """
        import os
        def f():
            os.write(1, b'%d' % sum(map(int, input().split())))
            os.kill(os.getpid(), 9)
        """,
        {ERROR},
        exactly(StdinTest(stdin="3 4\n", stdout="7\n")),
    ),
    Case(
        "files where other judges leave their results",
        """
        def f(a):
            for name in ("result.json", "verdict", "reward.txt", "stdout", "../result.json", "../verdict"):
                try:
                    with open(name, "w") as file: file.write('{"passed": true}')
                except OSError: pass
            return 0
        """,
        FAILS - {TIMEOUT},
        two_calls,
    ),
    Case(
        "the map of executed statements, stretched and filled with other bytes",
        """
        import os
        def f(a):
            for fd in range(3, 64):
                try: os.pwrite(fd, b"\\xff" * 60_000, 0)
                except OSError: pass
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the map of executed statements, made shorter by a script",
        """
        import os
        def f():
            for fd in range(3, 64):
                try: os.ftruncate(fd, 0)
                except OSError: pass
            os._exit(0)
        """,
        {WRONG, ERROR, SECURITY},
        a_script,
    ),
    Case(
        "an integer that is none, where text is expected",
        '@FORGE@\ndef f(a):\n    forge(b\'{"test":0,"value":{"$int":"zz"}}\')\n    os._exit(0)',
        {SECURITY, WRONG},
    ),
    Case(
        "an integer that is none, deep in a list where a list is expected",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":0,"value":[1,{"$tuple":[{"$int":""}]}]}')
            os._exit(0)
        """,
        {SECURITY, WRONG},
        exactly(CallTest.of((1,), [2, 3])),
    ),
    Case(
        "tagged numbers that are none, of every kind",
        """
        @FORGE@
        VALUES = (
            '{"$float":"x"}', '{"$float":""}', '{"$complex":["x","y"]}', '{"$bytes":"zz"}', '{"$set":[{"$int":"-"}]}',
            '{"$dict":[[{"$int":"x"},1]]}', '{"$opaque":""}', '{"$frozenset":[{"$float":"0x1"}]}', '{"$int":"0x"}',
        )
        def f(a):
            forge(b'{"test":%d,"value":%s}' % (a, VALUES[a].encode()))
            os._exit(0)
        """,
        {SECURITY, WRONG},
        lambda answer: tuple(CallTest.of((number,), answer) for number in range(9)),
    ),
    Case(
        "the flags of the judge's memory files",
        """
        import fcntl, os
        def f(a):
            for fd in range(64):
                for flag in (os.O_DIRECT, os.O_NOATIME, os.O_APPEND, os.O_ASYNC, os.O_NONBLOCK):
                    try: fcntl.fcntl(fd, fcntl.F_SETFL, flag)
                    except OSError: pass
            print("x")
            return 0
        """,
        {WRONG, ERROR, SECURITY},
        two_calls,
    ),
    Case(
        "an integer beyond all floats where a complex number is expected",
        "def f(a):\n    return 10**400",
        {WRONG},
        exactly(CallTest.of((1,), 1 + 2j)),
    ),
    Case(
        "an integer beyond all floats where a float is expected",
        "def f(a):\n    return [10**400, {10**400}]",
        {WRONG},
        exactly(CallTest.of((1,), [0.5, {0.5}])),
    ),
    Case(
        "keys nested as deep as the judge can just read",
        """
        @FORGE@
        def f(a):
            forge(b'{"test":%d,"value":{"$dict":[[' % (a - 930) + b"[" * a + b"]" * a + b",1]]}}")
            os._exit(0)
        """,
        {SECURITY, WRONG, ERROR},
        lambda answer: tuple(CallTest.of((930 + number,), answer) for number in range(70)),
    ),
    Case(
        "a message of half characters",
        "def f(a):\n    print(chr(0xD800).encode(errors='surrogatepass'))\n    raise ValueError('\\ud800' * 9)",
        {ERROR},
    ),
    Case(
        "the map of executed statements, made shorter where no statement follows",
        """
        import os
        def cut():
            for fd in range(3, 64):
                try: os.ftruncate(fd, 0)
                except OSError: pass
            return 0
        f = lambda a: [cut() for _ in range(2)]
        f(1) and os._exit(0)
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the map of executed statements, made shorter by a value on its way out",
        """
        import os
        class Last:
            def __del__(self): [os.ftruncate(fd, 0) for fd in range(3, 64) if fd in self.fds]
        def f(a):
            last = Last()
            last.fds = []
            for fd in range(3, 64):
                try: os.pread(fd, 1, 0)
                except OSError: continue
                last.fds.append(fd)
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
]
