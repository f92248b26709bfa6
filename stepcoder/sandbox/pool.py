"""A pool of supervisors on this machine: a queue, a thread for each supervisor, and a cache by content.

The threads sleep while supervisors work. Groups of samples hold many identical programs, so a job whose content is
known, or in work, is not run again.
"""

from __future__ import annotations

import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from stepcoder.errors import StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.sandbox import wire
from stepcoder.sandbox.job import Job, Sandbox, Verdict, broken
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.supervisor import Supervisor, SupervisorError

ATTEMPTS = 3
BATCH = 16
"""So many jobs go to a supervisor at a time, fewer where the others would have nothing to do."""
VERDICTS_KEPT = 4096

log = get_logger("sandbox")


@dataclass
class Counts:
    """What a pool has done so far."""

    judged: int = 0
    """Programs that were run."""
    restarts: int = 0
    """Supervisors that had to be replaced."""
    twice: int = 0
    """Programs that ran a second time."""
    disagreements: int = 0
    """Of those, how many had another outcome."""


@dataclass
class _Task:
    """A distinct program in the queue or in work, and everyone who waits for it."""

    job: Job
    tests: wire.SentTests
    key: Hashable
    waiting: list[tuple[str, Future[Verdict]]] = field(default_factory=list)
    attempts: int = 0
    first: Verdict | None = None
    """The verdict of the first run, of a job that runs twice."""


@dataclass
class _State:
    """What the pool and its threads share. The threads hold this, not the pool: a pool nobody holds is closed."""

    unsafe: bool
    twice: float
    slots: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    queue: deque[_Task] = field(default_factory=deque)
    open_tasks: dict[Hashable, _Task] = field(default_factory=dict)
    verdicts: Recent[Hashable, Verdict] = field(default_factory=lambda: Recent(VERDICTS_KEPT))
    supervisors: dict[int, Supervisor] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    random: random.Random = field(default_factory=lambda: random.Random(0))
    closed: bool = False


class Pool(Sandbox):
    """A sandbox on this machine."""

    def __init__(self, slots: int, unsafe: bool = False, twice: float = 0) -> None:
        """Starts the first supervisor; the others start with their first job.

        Args:
            slots: programs judged at the same time.
            unsafe: run programs even where the kernel cannot keep them from other processes and the network.
            twice: share of the programs that run a second time, to count verdicts that differ.

        Raises:
            StepCoderError: this system cannot run it.
        """
        self._state = _State(unsafe, twice, slots)
        try:  # what keeps one from starting would keep all: better now than at each job
            self._state.supervisors[0] = Supervisor(unsafe)
        except SupervisorError as error:
            raise StepCoderError(f"the sandbox cannot start: {error}") from error
        self.lacking = self._state.supervisors[0].lacking
        """Layers of isolation that this machine does not have."""
        if self.lacking:
            log.warning("isolation", lacking=", ".join(self.lacking))
        self._process = os.getpid()
        self._tests = wire.TestLists()
        self._threads = [
            threading.Thread(target=_work, args=(self._state, number), name=f"sandbox-{number}", daemon=True)
            for number in range(slots)
        ]
        self._finalizer = weakref.finalize(self, _shut_down, self._state)
        for thread in self._threads:
            thread.start()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return replace(self._state.counts)

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
        with state.changed:
            tests = self._tests.of(job.tests)
            key = (tests.digest, *job.content)
            known = state.verdicts.get(key)
            if known is None:
                if state.closed:
                    known = broken(job, "the sandbox is closed")
                elif (task := state.open_tasks.get(key)) is not None:
                    task.waiting.append((job.id, future))
                else:
                    task = state.open_tasks[key] = _Task(job, tests, key, [(job.id, future)])
                    state.queue.append(task)
                    state.changed.notify()
        if known is not None:
            future.set_result(replace(known, id=job.id))
        return future

    def close(self) -> None:
        """Ends all processes of the pool. Jobs that have not ended give `infra_error`."""
        if os.getpid() != self._process:
            return
        self._finalizer()
        for thread in self._threads:
            thread.join(timeout=10)


def _work(state: _State, number: int) -> None:
    """A thread's life: takes tasks until the pool closes."""
    while batch := _next(state):
        try:
            verdicts = _supervisor(state, number).judge([(task.job, task.tests) for task in batch])
        except (StepCoderError, SupervisorError) as error:
            _again(state, number, batch, str(error))
        except Exception as error:  # a fault of ours must neither end the thread nor leave anybody waiting
            _again(state, number, batch, f"{type(error).__name__}: {error}")
        else:
            for task, verdict in zip(batch, verdicts, strict=True):
                _done(state, task, verdict)
    supervisor = state.supervisors.pop(number, None)
    if supervisor is not None:
        supervisor.close()


def _next(state: _State) -> list[_Task]:
    """The tasks to do next: a fair share of what waits; none when the pool closes."""
    with state.changed:
        while not state.queue and not state.closed:
            state.changed.wait()
        if state.closed:
            return []
        # What failed once goes alone: it may be what ends its supervisor, and must not take others along.
        if state.queue[0].attempts:
            return [state.queue.popleft()]
        share = min(BATCH, len(state.queue) // (2 * state.slots) + 1)
        batch: list[_Task] = []
        while len(batch) < share and state.queue and not state.queue[0].attempts:
            batch.append(state.queue.popleft())
        return batch


def _supervisor(state: _State, number: int) -> Supervisor:
    """The thread's own supervisor, a new one if there is none."""
    found = state.supervisors.get(number)
    if found is None:
        found = Supervisor(state.unsafe)
        with state.changed:
            if state.closed:
                found.close()
                raise SupervisorError("the sandbox is closed")
            state.supervisors[number] = found
    return found


def _again(state: _State, number: int, batch: list[_Task], reason: str) -> None:
    """Replaces a supervisor that failed, and puts its tasks back, unless they were tried often enough."""
    with state.changed:
        supervisor = state.supervisors.pop(number, None)
        state.counts.restarts += 1
        closed = state.closed
        for task in reversed(batch):
            task.attempts += 1
            if task.attempts < ATTEMPTS and not closed:
                state.queue.appendleft(task)
        state.changed.notify_all()
    if supervisor is not None:
        supervisor.close()
    for task in batch:
        if task.attempts >= ATTEMPTS or closed:
            _done(state, task, broken(task.job, "the sandbox is closed" if closed else reason))


def _done(state: _State, task: _Task, verdict: Verdict) -> None:
    """Tells everyone who waits, or has the program run a second time."""
    judged = verdict.judged
    with state.changed:
        state.counts.judged += judged
        if judged and task.first is None and state.twice and state.random.random() < state.twice and not state.closed:
            task.first = verdict
            state.queue.append(task)
            state.changed.notify()
            return
        if task.first is not None:
            state.counts.twice += 1
            if judged and verdict.outcome is not task.first.outcome:
                state.counts.disagreements += 1
                log.warning("disagreement", id=task.job.id, first=task.first.outcome, second=verdict.outcome)
            verdict = task.first
            judged = True
        state.open_tasks.pop(task.key, None)
        if judged:
            state.verdicts.put(task.key, verdict)
    for name, future in task.waiting:
        future.set_result(replace(verdict, id=name))


def _shut_down(state: _State) -> None:
    with state.changed:
        state.closed = True
        waiting = list(state.queue)
        state.queue.clear()
        supervisors = list(state.supervisors.values())
        state.changed.notify_all()
    for supervisor in supervisors:
        supervisor.kill()
    for task in waiting:
        _done(state, task, broken(task.job, "the sandbox is closed"))
