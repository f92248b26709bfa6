"""Escapes to the network: no family of sockets reaches anyone. The listeners are the test's own, on this machine."""

from __future__ import annotations

from hostile.case import Case, a_script

HARM = "something reaches a listener"

CASES = [
    Case(
        "TCP",
        "import socket\ndef f(a):\n    socket.create_connection(('127.0.0.1', @TCP@), 1).send(b'x')",
        harm=HARM,
    ),
    Case(
        "TCP over IPv6",
        "import socket\ndef f(a):\n    socket.create_connection(('::1', @TCP6@), 1).send(b'x')",
        harm=HARM,
    ),
    Case(
        "TCP in a script",
        "import socket\ndef f():\n    socket.create_connection(('127.0.0.1', @TCP@), 1).send(b'x')",
        tests=a_script,
        harm=HARM,
    ),
    Case(
        "TCP without connecting first",
        """
        import socket
        def f(a):
            socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", @TCP@))  # MSG_FASTOPEN
        """,
        harm=HARM,
    ),
    Case(
        "TCP of many paths",
        """
        import socket
        def f(a):
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
            link.settimeout(1)
            link.connect(("127.0.0.1", @TCP@))
        """,
        harm=HARM,
    ),
    Case(
        "UDP",
        """
        import socket
        def f(a):
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP@))
        """,
        harm=HARM,
    ),
    Case(
        "UDP from IPv6",
        """
        import socket
        def f(a):
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", ("::ffff:127.0.0.1", @UDP@))
        """,
        harm=HARM,
    ),
    Case(
        "many messages at once",
        """
        import ctypes, socket
        def f(a):
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.connect(("127.0.0.1", @UDP@))
            link.sendmsg([b"x"])
        """,
        harm=HARM,
    ),
    Case(
        "a name in the file system",
        'import socket\ndef f(a):\n    socket.socket(socket.AF_UNIX).connect("@UNIX@")',
        harm=HARM,
    ),
    Case(
        "datagrams to a name in the file system",
        """
        import socket
        def f(a):
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "@UNIX_DATAGRAM@")
        """,
        harm=HARM,
    ),
    Case(
        "an abstract name",
        'import socket\ndef f(a):\n    socket.socket(socket.AF_UNIX).connect("\\0@ABSTRACT@")',
        harm=HARM,
    ),
    Case(
        "datagrams to an abstract name",
        """
        import socket
        def f(a):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            ours.sendto(b"x", "\\0@ABSTRACT@-datagram")
        """,
        harm=HARM,
    ),
    Case(
        "a descriptor for a neighbour",
        """
        import array, os, socket
        def f(a):
            link = socket.socket(socket.AF_UNIX)
            link.connect("\\0@ABSTRACT@")
            link.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        """,
        harm=HARM,
    ),
    Case(
        "listens",
        """
        import socket
        def f(a):
            link = socket.socket()
            link.bind(("0.0.0.0", 0))
            link.listen()
            print("BREACH", link.getsockname())
        """,
        harm="a port is open to others",
    ),
    Case(
        "listens without a bind",
        """
        import socket
        def f(a):
            link = socket.socket()
            link.listen()
            print("BREACH", link.getsockname())
        """,
        harm="a port is open to others",
    ),
    Case(
        "receives datagrams",
        """
        import socket
        def f(a):
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.bind(("127.0.0.1", 0))
            print("BREACH", link.getsockname())
        """,
        harm="a port is open to others",
    ),
    Case(
        "listens under an abstract name",
        """
        import socket
        def f(a):
            link = socket.socket(socket.AF_UNIX)
            link.bind("\\0@NAME@")
            link.listen()
            print("BREACH")
        """,
        harm="a name is taken that others may connect to",
    ),
    Case(
        "every other family",
        """
        import socket
        def f(a):
            for family in range(3, 46):
                if family == 10: continue
                for kind in (1, 2, 3, 5):
                    try: socket.socket(family, kind).close()
                    except OSError: continue
                    print("BREACH", family, kind)
        """,
        harm="NETLINK, PACKET, VSOCK, ALG or another family of the kernel is open",
    ),
    Case(
        "routes and interfaces by NETLINK",
        """
        import socket, struct
        def f(a):
            link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            link.bind((0, 0))
            link.send(struct.pack("=IHHIIB", 17, 18, 0x301, 1, 0, 0))
            if link.recv(1 << 16): print("BREACH")
        """,
        harm="the interfaces of the machine",
    ),
    Case(
        "raw packets",
        """
        import socket
        def f(a):
            for family, kind, protocol in ((17, 3, 768), (17, 2, 768), (2, 3, 1), (2, 3, 255), (2, 2, 1), (10, 3, 58)):
                try: socket.socket(family, kind, protocol).close()
                except OSError: continue
                print("BREACH", family, kind, protocol)
        """,
        harm="raw packets",
    ),
    Case(
        "the host of the machine by VSOCK",
        """
        import socket
        def f(a):
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
            print("BREACH")
        """,
        harm="the host of the machine can be reached",
    ),
    Case(
        "cipher of the kernel by ALG",
        """
        import socket
        def f(a):
            link = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
            link.bind(("hash", "sha256"))
            print("BREACH")
        """,
        harm="the kernel's cryptography",
    ),
    Case(
        "a name to be resolved",
        """
        import socket
        def f(a):
            open("hosts", "w").write("")
            socket.getaddrinfo("localhost", @TCP@)
            import urllib.request
            urllib.request.urlopen("http://127.0.0.1:@TCP@/", timeout=1)
        """,
        harm=HARM,
    ),
    Case(
        "names of interfaces",
        "import socket\ndef f(a):\n    if socket.if_nameindex(): print('BREACH')",
        harm="the interfaces of the machine",
    ),
    Case(
        "a shell that connects",
        """
        import subprocess
        def f(a):
            subprocess.run(["/bin/bash", "-c", "echo x > /dev/tcp/127.0.0.1/@TCP@"])
        """,
        harm=HARM,
    ),
    Case(
        "a ring that connects",
        """
        @SYSCALLS@
        def f(a):
            parameters = ctypes.create_string_buffer(120)
            if call("io_uring_setup", 8, parameters) >= 0: print("BREACH")
        """,
        harm="system calls that no filter sees",
    ),
]
