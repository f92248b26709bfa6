"""A pool of slots on this machine: a queue, a thread a slot, and a cache by content.

The threads sleep while children run; each owns one slot. Groups of samples hold many identical programs, so a job
whose content is known, or in work, is not run again.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Self

from stepcoder.errors import DataError, StepCoderError
from stepcoder.problems.problem import Test
from stepcoder.sandbox.job import Job, Outcome, Sandbox, Verdict
from stepcoder.sandbox.prepared import PreparedTests, prepare
from stepcoder.sandbox.slot import Slot, broken
from stepcoder.sandbox.zygote import ZygoteError

ATTEMPTS = 3
VERDICTS_KEPT = 4096
TEST_LISTS_KEPT = 1024


def open_sandbox(address: str = "local", slots: int | None = None) -> Sandbox:
    """Opens a sandbox; close it, or use it in a `with`.

    Args:
        address: `local`, a pool of processes on this machine.
        slots: programs judged at the same time; default: the cores this process may use.

    Raises:
        DataError: the address or the number of slots is not valid.
        StepCoderError: this system cannot run the pool.
    """
    if address != "local":
        raise DataError(f"sandbox address {address!r} is not known: use 'local'")
    if slots is not None and slots < 1:
        raise DataError(f"a sandbox needs at least one slot, not {slots}")
    if sys.platform != "linux":
        raise StepCoderError("the sandbox runs on Linux only: use the container image on other systems")
    return Pool(slots or len(os.sched_getaffinity(0)))


@dataclass
class _Task:
    """A distinct program in the queue or in work, and everyone who waits for it."""

    job: Job
    prepared: PreparedTests
    key: bytes
    waiting: list[tuple[str, Future[Verdict]]] = field(default_factory=list)


@dataclass
class _State:
    """What the pool and its threads share. The threads hold this, not the pool: a pool nobody holds is closed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    tasks: queue.SimpleQueue[_Task | None] = field(default_factory=queue.SimpleQueue)
    slots: list[Slot] = field(default_factory=list)
    open_tasks: dict[bytes, _Task] = field(default_factory=dict)
    verdicts: OrderedDict[bytes, Verdict] = field(default_factory=OrderedDict)
    closed: bool = False


class Pool:
    """A sandbox on this machine."""

    def __init__(self, slots: int) -> None:
        self._state = _State(slots=[Slot() for _ in range(slots)])
        try:
            self._state.slots[0].start()  # what keeps one from starting would keep all: better now than at each job
        except ZygoteError as error:
            self._state.slots[0].restart()
            raise StepCoderError(f"the sandbox cannot start: {error}") from error
        self._process = os.getpid()
        self._prepared: OrderedDict[int, tuple[tuple[Test, ...], PreparedTests]] = OrderedDict()
        self._threads = [
            threading.Thread(target=_work, args=(self._state, slot), name=f"sandbox-{number}", daemon=True)
            for number, slot in enumerate(self._state.slots)
        ]
        self._finalizer = weakref.finalize(self, _shut_down, self._state)
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> Future[Verdict]:
        """Judge one job in the background. The future never raises for what the program did.

        Raises:
            StepCoderError: the pool belongs to a process of which this one is a fork.
        """
        if os.getpid() != self._process:
            raise StepCoderError("a sandbox cannot be used after a fork: open one in this process")
        future: Future[Verdict] = Future()
        future.set_running_or_notify_cancel()
        state = self._state
        with state.lock:
            prepared = self._prepare(job.tests)
            key = _key(job, prepared)
            known = state.verdicts.get(key)
            if known is not None:
                state.verdicts.move_to_end(key)
            elif state.closed:
                known = broken(job, "the sandbox is closed")
            elif (task := state.open_tasks.get(key)) is not None:
                task.waiting.append((job.id, future))
            else:
                task = state.open_tasks[key] = _Task(job, prepared, key, [(job.id, future)])
                state.tasks.put(task)
        if known is not None:
            future.set_result(replace(known, id=job.id))
        return future

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Judge jobs and wait: verdicts in the order of the jobs."""
        futures = [self.submit(job) for job in jobs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Ends all processes of the pool. Jobs that have not ended give `infra_error`."""
        if os.getpid() != self._process:
            return
        self._finalizer()
        for thread in self._threads:
            thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _prepare(self, tests: tuple[Test, ...]) -> PreparedTests:
        """The prepared form of a problem's tests: samples of one problem share one tuple, which is kept alive here."""
        found = self._prepared.get(id(tests))
        if found is None:
            found = self._prepared[id(tests)] = (tests, prepare(tests))
            if len(self._prepared) > TEST_LISTS_KEPT:
                self._prepared.popitem(last=False)
        return found[1]


def _key(job: Job, prepared: PreparedTests) -> bytes:
    """The hash of everything that decides a verdict."""
    settings = (repr(job.limits), str(job.trace), str(job.run), str(job.branches), job.checker.model_dump_json())
    parts = (job.program, job.preamble, job.entry_point, *settings)
    digest = hashlib.sha256(prepared.digest)
    for part in parts:
        data = part.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def _work(state: _State, slot: Slot) -> None:
    """A thread's life: takes tasks until the pool closes."""
    while (task := state.tasks.get()) is not None:
        verdict = _judge(state, slot, task)
        with state.lock:
            state.open_tasks.pop(task.key, None)
            if verdict.outcome is not Outcome.INFRA_ERROR:
                state.verdicts[task.key] = verdict
                if len(state.verdicts) > VERDICTS_KEPT:
                    state.verdicts.popitem(last=False)
        for name, future in task.waiting:
            future.set_result(replace(verdict, id=name))
    slot.restart()


def _judge(state: _State, slot: Slot, task: _Task) -> Verdict:
    """Judges a task, again on a new zygote when the judge's own processes fail."""
    reason = "the sandbox is closed"
    for _ in range(ATTEMPTS):
        if state.closed:
            break
        try:
            return slot.judge(task.job, task.prepared)
        except ZygoteError as error:
            reason = str(error)
        except Exception as error:  # a fault of the judge must not end the thread, nor pass for a verdict
            reason = f"{type(error).__name__}: {error}"
        slot.restart()
    return broken(task.job, reason)


def _shut_down(state: _State) -> None:
    with state.lock:
        state.closed = True
    for _ in state.slots:
        state.tasks.put(None)
    for slot in state.slots:
        slot.stop()
