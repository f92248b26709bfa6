"""What the processes of one training, its ranks, need of one another; all of it is trivially true of one process.

The watchdog ends a training in which a rank hangs: torch would only say, much later, that others had waited in vain.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from stepcoder.platform.logs import get_logger
from stepcoder.platform.logs import rank as rank

T = TypeVar("T")

WATCH_SECONDS = 1800.0
"""How long a rank may stay where it is before the watchdog ends the training."""

FAULT = "STEPCODER_FAULT"
"""Names the file in which the first rank that fails leaves its error for the process that launched the ranks."""

log = get_logger("ranks")

_group: Any = None
"""The group over which objects travel: by gloo, whatever the tensors travel by."""


def local_rank() -> int:
    """This process's number among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or 0)


def local_count() -> int:
    """How many processes of this machine train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this is rank 0, which writes what is written once."""
    return rank() == 0


def start(timeout: float = WATCH_SECONDS) -> None:
    """Makes the ranks known to one another, once torch.distributed is initialised, and starts the watchdog.

    Args:
        timeout: seconds that a rank may stay where it is, see `at`.
    """
    global _group, _watchdog
    if count() == 1 or _group is not None:
        return
    import torch.distributed as dist

    _group = dist.new_group(backend="gloo", timeout=patience(timeout))
    _watchdog = _Watchdog(timeout)
    atexit.register(_stop)
    together("start")


def _stop() -> None:
    """Ends threads of torch that would abort the process while Python shuts down."""
    global _group, _watchdog
    import torch.distributed as dist

    if _watchdog is not None:
        _watchdog.ended.set()
        _watchdog.exchange.join(_watchdog.interval + 5)
    if dist.is_initialized():  # Of NCCL's group nothing: it would wait for ranks that are gone.
        dist.destroy_process_group(None if dist.get_backend() == "gloo" else _group)
    _group = _watchdog = None


def patience(timeout: float) -> timedelta:
    """The time-out for torch's own collectives: never before the watchdog has spoken."""
    return timedelta(seconds=2 * timeout + 60)


def gathered(mine: T) -> list[T]:
    """Every rank's object, in the order of ranks; all ranks call it."""
    if count() == 1:
        return [mine]
    import torch.distributed as dist

    detail("waiting for the other ranks")
    everyone: list[Any] = [None] * count()
    dist.all_gather_object(everyone, mine, group=_group)
    detail("after all ranks met")
    return everyone


def largest(value: int) -> int:
    """The largest of all ranks' values; all ranks call it."""
    return max(gathered(value))


def once(make: Callable[[], T]) -> T:
    """What `make` gives on rank 0, which alone runs it, on every rank; all ranks call it."""
    return gathered(make() if is_main() else None)[0]  # type: ignore[return-value]


def once_a_machine(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank of this machine, which alone runs it; all ranks call it."""
    return gathered(make() if local_rank() == 0 else None)[rank() - local_rank()]  # type: ignore[return-value]


def together(what: str) -> None:
    """Waits until every rank is here; `what` names the place for the watchdog."""
    at(what)
    gathered(None)


def at(where: str) -> None:
    """Tells the watchdog that this rank has come on, and where it is now, for example `roll-outs of step 3`.

    To be called whenever something begins that takes less than the watchdog's time.
    """
    if _watchdog is not None:
        _watchdog.come_on(where, "")


def detail(text: str) -> None:
    """Tells the watchdog that this rank has come on within the place that `at` named last."""
    if _watchdog is not None:
        _watchdog.come_on(None, text)


def busy() -> None:
    """Tells the watchdog that this rank is at work where it is; for work of which ranks have unequal shares."""
    if _watchdog is not None:
        _watchdog.mine = replace(_watchdog.mine, since=time.monotonic())


def leave_fault(text: str, exit_status: int) -> bool:
    """Leaves why this rank ends for the process that launched it; False if there is none, or another rank was first."""
    if not (place := os.environ.get(FAULT)):
        return False
    partial = f"{place}.{os.getpid()}"
    with open(partial, "w") as stream:
        json.dump({"rank": rank(), "error": text, "exit_status": exit_status}, stream)
    try:
        os.link(partial, place)  # Unlike a rename, this fails where a file is.
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class _Mark:
    """How far a rank has come."""

    count: int
    """How often it has come on: all ranks do the same work, so the smallest count is furthest behind."""
    where: str
    since: float
    """Monotonic time, of the process that holds this object, at which the rank came there."""
    heard: float
    """Monotonic time at which the rank was last heard of; a stopped process is silent."""


class _Watchdog:
    """Two threads: one tells the others this rank's mark and asks for theirs, one judges.

    They are two because the store may be served by the very process that hangs, and asking it then hangs too; what was
    heard before still tells who it is.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.interval = min(5.0, timeout / 10)
        now = time.monotonic()
        self.mine = _Mark(0, "start", now, now)
        self.others: dict[int, _Mark] = {}
        self.ended = threading.Event()
        self.exchange = threading.Thread(target=self._exchange, daemon=True, name="ranks-exchange")
        self.exchange.start()
        threading.Thread(target=self._watch, daemon=True, name="ranks-watch").start()

    def come_on(self, where: str | None, text: str) -> None:
        place = self.mine.where.partition(" (")[0] if where is None else where
        now = time.monotonic()
        self.mine = _Mark(self.mine.count + 1, f"{place} ({text})" if text else place, now, now)

    def _exchange(self) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        # A connection of its own: torch's is locked while the main thread waits on it.
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=60),
        )
        marks = PrefixStore("stepcoder-watchdog", store)
        beats: dict[int, int] = {}
        beat = 0
        while not self.ended.wait(self.interval):
            mine, beat = self.mine, beat + 1
            marks.set(str(rank()), json.dumps([beat, mine.count, mine.where, time.monotonic() - mine.since]))
            for other in range(count()):
                if other == rank() or not marks.check([str(other)]):
                    continue
                heard, steps, where, stayed = json.loads(marks.get(str(other)))
                if heard != beats.get(other):
                    now = time.monotonic()
                    beats[other] = heard
                    self.others[other] = _Mark(steps, where, now - stayed, now)

    def _watch(self) -> None:
        verdict: list[str] = []
        while not verdict:
            time.sleep(min(1.0, self.interval))
            # A rank that waits for others is stale too: what counts is whether those behind still come on.
            if time.monotonic() - self.mine.since >= self.timeout:
                verdict = self._verdict()
        leave_fault("training hangs: " + "; ".join(verdict), 1)
        for line in verdict:
            log.error("training hangs", error=line)
        # The main thread may be anywhere, even in a loop that takes no signal.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    def _verdict(self) -> list[str]:
        """One line for each rank that is furthest behind and stays there, the silent ones of them if there are any."""
        now = time.monotonic()
        marks = {**self.others, rank(): self.mine}
        unheard = [
            f"rank {other} has not been heard of since the start" for other in range(count()) if other not in marks
        ]
        least = min(mark.count for mark in marks.values())
        behind = {
            other: mark for other, mark in marks.items() if mark.count == least and now - mark.since >= self.timeout
        }
        silent = {other for other, mark in behind.items() if other != rank() and now - mark.heard > 4 * self.interval}
        return unheard or [
            f"rank {other} is furthest behind: at {mark.where} for {now - mark.since:.0f} s"
            + (f", silent for {now - mark.heard:.0f} s (stopped, or its machine is gone)" if other in silent else "")
            for other, mark in sorted(behind.items())
            if not silent or other in silent
        ]


_watchdog: _Watchdog | None = None
