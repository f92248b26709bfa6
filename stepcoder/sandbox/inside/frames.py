"""Messages over a stream socket: four bytes of length, then one byte that says what it is, then the payload."""

from __future__ import annotations

import os
import struct

HEADER = struct.Struct("<I")

# From the judge to a child.
JOB = b"J"  # JSON: entry point, mode, limits; then the preamble's and the program's code
CODE = b"K"  # marshalled code; the judge passes it on and never looks into it
TEST = b"T"  # JSON: one test's input
CALL = b"Q"  # JSON: a call by a check
ANSWER = b"W"  # JSON: to a check, what its call gave
# From a child to the judge.
BROKEN = b"B"  # JSON: what the preamble raised, which is the dataset's fault
TOO_LARGE = b"M"  # empty: the program's code does not fit into its memory
STARTED = b"G"  # the program begins; CPU seconds that the judge's own work has taken
LOADED = b"L"  # JSON: the module level ran, or what it raised
CLAIM = b"R"  # JSON: what one test showed
ASK = b"A"  # JSON: a check calls the candidate
# With the process that compiles.
SOURCE = b"S"  # JSON: source text; first message of all, it makes a child the one that compiles
COMPILED = b"C"  # JSON: statement spans; code follows
REJECTED = b"E"  # JSON: why it does not compile


def pack(kind: bytes, payload: bytes) -> bytes:
    """One message, ready to be written."""
    return HEADER.pack(len(payload) + 1) + kind + payload


def send(descriptor: int, kind: bytes, payload: bytes) -> None:
    """Writes one message to a blocking descriptor."""
    rest = memoryview(pack(kind, payload))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int) -> tuple[bytes, bytes]:
    """Reads one message from a blocking descriptor: its kind and payload.

    Raises:
        EOFError: the other side is gone.
    """
    (length,) = HEADER.unpack(_exactly(descriptor, HEADER.size))
    body = _exactly(descriptor, length)
    return body[:1], body[1:]


def _exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
