"""The trusted process of a core: it holds the expected outputs, runs the jobs it is sent, and compares.

Started by exec with a scrubbed environment, so that it holds nothing of the process that asks but the jobs; no other
process of this user can look into it. It ends with the process that asks.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import threading

from stepcoder.errors import StepCoderError
from stepcoder.sandbox import layers, wire
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.job import Verdict, broken
from stepcoder.sandbox.prepared import PreparedTest, prepare
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.slot import Slot
from stepcoder.sandbox.zygote import ZygoteError

TESTS, JOB, END, VERDICTS, READY, REFUSED = b"T", b"J", b"E", b"V", b"R", b"X"
DIGEST = 64
ATTEMPTS = 3
YOUNG_OBJECTS = 200_000
PR_SET_DUMPABLE = 4
NO_RANDOM_ADDRESSES = 0x0040000


def main(link: int, folders: list[str], unsafe: bool) -> None:
    """Serves until the other side hangs up.

    Args:
        link: descriptor of a stream socket to the client.
        folders: where the libraries are that programs may import.
        unsafe: do without layers of isolation that the kernel lacks.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # So that `id` and what depends on it are the same each time; where it is refused, they are not.
    libc.personality(NO_RANDOM_ADDRESSES)
    threading.Thread(target=_end_with_the_other_side, args=(link,), daemon=True).start()
    found = layers.detect()
    try:
        slot = Slot(layers.settings(found, folders, unsafe))
        slot.start()
    except (StepCoderError, ZygoteError) as error:
        frames.send(link, REFUSED, str(error).encode())
        return
    frames.send(link, READY, json.dumps(found.lacking).encode())
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)  # jobs and verdicts have no cycles
    tests: Recent[str, tuple[PreparedTest, ...]] = Recent(wire.TEST_LISTS, wire.TEST_BYTES)  # whose sender counts along
    verdicts: list[Verdict] = []
    while True:
        kind, payload = frames.receive(link)
        if kind == TESTS:
            digest, text = payload[:DIGEST].decode(), payload[DIGEST:]
            tests.put(digest, prepare(wire.load_tests(json.loads(text))), len(text))
        elif kind == JOB:
            verdicts.append(_judged(slot, json.loads(payload), tests))
        else:
            frames.send(link, VERDICTS, wire.dump_verdicts(verdicts, found.lacking))
            verdicts = []


def _judged(slot: Slot, data: dict[str, object], tests: Recent[str, tuple[PreparedTest, ...]]) -> Verdict:
    """Judges a job, again on a new zygote when the judge's own processes fail."""
    prepared = tests.get(str(data["tests"]))
    if prepared is None:
        raise RuntimeError("a job came before its tests")
    job = wire.job_from_data(data, tuple(test.test for test in prepared))
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            return slot.judge(job, prepared)
        except ZygoteError as error:
            reason = str(error)
        except Exception as error:  # a fault of the judge must not pass for a verdict
            reason = f"{type(error).__name__}: {error}"
        slot.restart()
    return broken(job, reason)


def _end_with_the_other_side(link: int) -> None:
    """Waits for the other side to go, also in the middle of a job; the zygotes end with this process."""
    poll = select.poll()
    poll.register(link, select.POLLRDHUP)
    poll.poll()
    os._exit(0)
