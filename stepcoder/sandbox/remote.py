"""A sandbox behind HTTP: jobs from any thread, gathered into requests by one thread with an event loop.

Jobs that are equal and in work share one run, as in the pool: groups of samples hold many identical programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Self

from stepcoder.errors import StepCoderError
from stepcoder.problems.problem import Test
from stepcoder.sandbox import wire
from stepcoder.sandbox.job import Job, Outcome, TestResult, Verdict
from stepcoder.sandbox.link import FaultyJobsError, Link, LostError, Parcel, SentTests, TooLargeError
from stepcoder.sandbox.token import token_from_environment

REQUESTS = 4
"""Requests on their way at the same time."""
JOBS_SENT = 256
"""The most jobs of a request: what the service takes."""
JOBS_WORTH_SENDING = 64
"""Jobs beyond which a request gets hardly cheaper a job; more of them only when much is waiting."""
CHARACTERS_SENT = 1 << 22
"""Programs and tests of a request, in characters: at six bytes an escaped character they stay under what is taken."""
LINGER_SECONDS = 0.001
"""How long a few jobs wait for others that are being submitted."""
READY_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
TEST_LISTS_KEPT = 1024
CLOSED = "the sandbox is closed"


@dataclass
class _Task:
    """A distinct job that waits or is on its way, and everyone who waits for it."""

    parcel: Parcel
    key: Hashable
    waiting: list[tuple[str, Future[Verdict]]] = field(default_factory=list)


@dataclass
class _State:
    """What the sandbox and its thread share. The thread does not hold the sandbox: one that nobody holds is closed."""

    link: Link
    ready_seconds: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    pending: deque[_Task] = field(default_factory=deque)
    open_tasks: dict[Hashable, _Task] = field(default_factory=dict)
    opened: Future[None] = field(default_factory=Future)
    loop: asyncio.AbstractEventLoop | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    woken: bool = False
    closed: bool = False


class RemoteSandbox:
    """A sandbox service, used from here."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ready_seconds: float = READY_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Connects.

        Args:
            address: `http://HOST:PORT`, `https://HOST` or `http+unix:///PATH`.
            token: what the service asks for; default: the environment's.
            ready_seconds: how long to wait until the service can judge.
            patience: how long a service may fail, in seconds, before jobs get `infra_error`.

        Raises:
            StepCoderError: the service is not ready in time, or refuses the token.
        """
        token = token_from_environment() if token is None else token
        self._state = _State(Link(address, token, patience, REQUESTS), ready_seconds)
        self._process = os.getpid()
        self._tests: OrderedDict[int, SentTests] = OrderedDict()
        self._thread = threading.Thread(target=_run, args=(self._state,), name="sandbox-client", daemon=True)
        self._finalizer = weakref.finalize(self, _shut_down, self._state, self._process)
        self._thread.start()
        try:
            self._state.opened.result()
        except BaseException:
            self.close()
            raise

    def submit(self, job: Job) -> Future[Verdict]:
        """Judge one job in the background. The future never raises for what the program did.

        It raises a StepCoderError when the service refuses the job or the token.

        Raises:
            StepCoderError: the sandbox belongs to a process of which this one is a fork.
        """
        return self._submit([job])[0]

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Judge jobs and wait: verdicts in the order of the jobs.

        Raises:
            StepCoderError: the service refuses a job or the token.
        """
        return [future.result() for future in self._submit(jobs)]

    def close(self) -> None:
        """Ends the connection. Jobs that have no verdict yet give `infra_error`."""
        if os.getpid() != self._process:
            return
        self._finalizer()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _submit(self, jobs: Sequence[Job]) -> list[Future[Verdict]]:
        if os.getpid() != self._process:
            raise StepCoderError("a sandbox cannot be used after a fork: open one in this process")
        state = self._state
        futures: list[Future[Verdict]] = []
        late: list[tuple[Job, Future[Verdict]]] = []
        with state.lock:
            for job in jobs:
                future: Future[Verdict] = Future()
                future.set_running_or_notify_cancel()
                futures.append(future)
                tests = self._sent(job.tests)
                key = (tests.digest, job.program, job.preamble, job.entry_point, job.limits, job.trace, job.run)
                if state.closed:
                    late.append((job, future))
                elif (task := state.open_tasks.get(key)) is not None:
                    task.waiting.append((job.id, future))
                else:
                    task = state.open_tasks[key] = _Task(Parcel(job, tests), key, [(job.id, future)])
                    state.pending.append(task)
            if state.pending and not state.woken and state.loop is not None:
                state.woken = True
                state.loop.call_soon_threadsafe(state.wake.set)
        for job, future in late:
            future.set_result(broken(job, CLOSED))
        return futures

    def _sent(self, tests: tuple[Test, ...]) -> SentTests:
        """The form in which tests travel: samples of one problem share one tuple, which is kept alive here."""
        found = self._tests.get(id(tests))
        if found is None:
            text = wire.dump_tests(tests)
            found = self._tests[id(tests)] = SentTests(tests, text, wire.digest_of(text))
            if len(self._tests) > TEST_LISTS_KEPT:
                self._tests.popitem(last=False)
        return found


def broken(job: Job, reason: str) -> Verdict:
    """The verdict of a job that could not be judged."""
    return Verdict(job.id, Outcome.INFRA_ERROR, (TestResult(Outcome.INFRA_ERROR, detail=reason),) * len(job.tests))


def _run(state: _State) -> None:
    """The thread's life."""
    reason = CLOSED
    try:
        asyncio.run(_serve(state))
    except Exception as error:  # a fault of ours must leave nobody waiting
        reason = f"the sandbox's client failed: {type(error).__name__}: {error}"
        if not state.opened.done():
            state.opened.set_exception(error)
    with state.lock:
        state.closed = True
        state.loop = None
        left = list(state.open_tasks.values())
        state.open_tasks.clear()
        state.pending.clear()
    for task in left:
        _answer(task, broken(task.parcel.job, reason))


async def _serve(state: _State) -> None:
    async with state.link:
        with state.lock:
            state.loop = asyncio.get_running_loop()
            stopped = state.closed
        if stopped:
            return
        stop = asyncio.create_task(state.stop.wait())
        ready = asyncio.create_task(state.link.ready(state.ready_seconds))
        await asyncio.wait([stop, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            return
        ready.result()
        state.opened.set_result(None)
        couriers = [asyncio.create_task(_carry(state)) for _ in range(REQUESTS)]
        await asyncio.wait([stop, *couriers], return_when=asyncio.FIRST_COMPLETED)
        for courier in couriers:
            if courier.done():
                courier.result()
            courier.cancel()
        await asyncio.gather(*couriers, return_exceptions=True)


async def _carry(state: _State) -> None:
    """Sends what waits, one request after another."""
    while True:
        await state.wake.wait()
        if len(state.pending) < JOBS_WORTH_SENDING:
            await asyncio.sleep(LINGER_SECONDS)
        with state.lock:
            tasks = _take(state.pending)
            if not state.pending:
                state.wake.clear()
                state.woken = False
        if tasks:
            await _deliver(state, tasks)


def _take(pending: deque[_Task]) -> list[_Task]:
    """The jobs of the next request: a fair share of what waits."""
    number = min(max(math.ceil(len(pending) / REQUESTS), JOBS_WORTH_SENDING), JOBS_SENT)
    tasks: list[_Task] = []
    lists: set[str] = set()
    room = CHARACTERS_SENT
    while pending and len(tasks) < number:
        job, tests = pending[0].parcel.job, pending[0].parcel.tests
        room -= len(job.program) + len(job.preamble) + (0 if tests.digest in lists else len(tests.text))
        if room < 0 and tasks:
            break
        lists.add(tests.digest)
        tasks.append(pending.popleft())
    return tasks


async def _deliver(state: _State, tasks: list[_Task]) -> None:
    """Brings jobs their verdicts, whatever happens to the request."""
    try:
        verdicts = await state.link.judge([task.parcel for task in tasks])
    except LostError as error:
        for task in tasks:
            _finish(state, task, broken(task.parcel.job, str(error)))
    except TooLargeError as error:
        if len(tasks) == 1:
            _finish(state, tasks[0], error)
        else:
            await _deliver(state, tasks[: len(tasks) // 2])
            await _deliver(state, tasks[len(tasks) // 2 :])
    except FaultyJobsError as error:
        for number, fault in error.faults.items():
            _finish(state, tasks[number], StepCoderError(fault))
        rest = [task for number, task in enumerate(tasks) if number not in error.faults]
        if rest:
            await _deliver(state, rest)
    except StepCoderError as error:
        for task in tasks:
            _finish(state, task, error)
    else:
        for task, verdict in zip(tasks, verdicts, strict=True):
            _finish(state, task, verdict)


def _finish(state: _State, task: _Task, result: Verdict | Exception) -> None:
    with state.lock:
        state.open_tasks.pop(task.key, None)
    _answer(task, result)


def _answer(task: _Task, result: Verdict | Exception) -> None:
    for name, future in task.waiting:
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(replace(result, id=name))


def _shut_down(state: _State, process: int) -> None:
    if os.getpid() != process:  # a fork runs finalizers too, and shares the loop's descriptors
        return
    with state.lock:
        state.closed = True
        loop = state.loop
    if loop is not None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(state.stop.set)
