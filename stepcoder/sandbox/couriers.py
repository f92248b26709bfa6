"""The client's thread: jobs that wait are gathered into requests, and verdicts brought to those who wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from stepcoder.errors import StepCoderError
from stepcoder.sandbox.job import Verdict, broken
from stepcoder.sandbox.link import FaultyJobsError, Link, LostError, Parcel, TooLargeError

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
CLOSED = "the sandbox is closed"


@dataclass
class Task:
    """A distinct job that waits or is on its way, and everyone who waits for it."""

    parcel: Parcel
    key: Hashable
    waiting: list[tuple[str, Future[Verdict]]] = field(default_factory=list)


@dataclass
class State:
    """What the sandbox and its thread share. The thread does not hold the sandbox: one that nobody holds is closed."""

    link: Link
    ready_seconds: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    pending: deque[Task] = field(default_factory=deque)
    open_tasks: dict[Hashable, Task] = field(default_factory=dict)
    opened: Future[None] = field(default_factory=Future)
    loop: asyncio.AbstractEventLoop | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    woken: bool = False
    closed: bool = False


def run(state: State) -> None:
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


async def _serve(state: State) -> None:
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


async def _carry(state: State) -> None:
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


def _take(pending: deque[Task]) -> list[Task]:
    """The jobs of the next request: a fair share of what waits."""
    number = min(max(math.ceil(len(pending) / REQUESTS), JOBS_WORTH_SENDING), JOBS_SENT)
    tasks: list[Task] = []
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


async def _deliver(state: State, tasks: list[Task]) -> None:
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


def _finish(state: State, task: Task, result: Verdict | Exception) -> None:
    with state.lock:
        state.open_tasks.pop(task.key, None)
    _answer(task, result)


def _answer(task: Task, result: Verdict | Exception) -> None:
    for name, future in task.waiting:
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(replace(result, id=name))


def shut_down(state: State, process: int) -> None:
    """Asks the thread to end, in the process that started it. Can be called twice, and from any thread."""
    if os.getpid() != process:  # a fork runs finalizers too, and shares the loop's descriptors
        return
    with state.lock:
        state.closed = True
        loop = state.loop
    if loop is not None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(state.stop.set)
