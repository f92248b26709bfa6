"""What the service has taken and not yet answered, and what it does not take any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from stepcoder.problems.problem import Test
from stepcoder.sandbox import wire
from stepcoder.sandbox.job import Job, Sandbox, Verdict
from stepcoder.sandbox.pool import Counts
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.service.config import MIB, ServeConfig
from stepcoder.sandbox.service.metrics import Metrics
from stepcoder.sandbox.service.refusal import RefusalError, busy, unavailable
from stepcoder.sandbox.service.selftest import SelfTest

BODIES_HELD = 4
"""Bodies of full size that are read at the same time; together they bound the memory that requests can take."""


class Intake:
    """The queue's bounds, and the way from jobs to verdicts. For one event loop; verdicts come from other threads."""

    def __init__(
        self, sandbox: Sandbox, config: ServeConfig, slots: int, counts: Callable[[], Counts] = Counts
    ) -> None:
        self.config = config
        self.slots = slots
        self.draining = False
        """Nothing more is taken; what was taken is finished."""
        self.self_test = SelfTest(sandbox)
        self.tests: Recent[str, tuple[Test, ...]] = Recent(wire.TEST_LISTS, config.tests_mib * MIB)
        """Lists that clients have sent, by digest: always the same objects, which the pool knows again."""
        self.metrics = Metrics(lambda: self._open, slots, lambda: self.tests.bytes, counts)
        self._sandbox = sandbox
        self._batches: set[_Batch] = set()
        self._lock = threading.Lock()
        self._open = 0
        self._requests = 0
        self._bytes = 0

    @property
    def idle(self) -> bool:
        """Whether every request that was taken has its answer."""
        return self._requests == 0

    def admit(self) -> None:
        """Before a request is read: whether it may be taken at all.

        Raises:
            RefusalError: programs cannot be judged now (503), or too many wait (429).
        """
        if self.draining:
            raise unavailable("the service is stopping")
        if self.self_test.state != "ready":
            raise unavailable(f"the service is not ready: {self.self_test.detail}")
        if self._open >= self.config.queue:
            raise self._full()

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Surrounds the work on a request that was read; a stop waits for its end.

        Raises:
            RefusalError: the service began to stop while the request was read (503).
        """
        if self.draining:
            raise unavailable("the service is stopping")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextlib.contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """Surrounds the reading and parsing of a body of so many bytes.

        Raises:
            RefusalError: too much is being read already (429).
        """
        if self._bytes + size > BODIES_HELD * self.config.body_mib * MIB:
            raise busy("too many large requests at the same time")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Judges jobs: verdicts in their order.

        Raises:
            RefusalError: the queue has no room for them (429), or a job's tests cannot be judged (422).
        """
        with self._lock:
            if self._open + len(jobs) > self.config.queue:
                raise self._full()
            self._open += len(jobs)
        batch = _Batch(len(jobs))
        started = time.monotonic()
        futures: list[Future[Verdict]] = []
        try:
            for job in jobs:
                # What was submitted counts, also when the next one fails.
                futures.append(self._sandbox.submit(job))  # noqa: PERF401
        except (ValueError, RecursionError) as error:
            place = f"jobs.{len(futures)}.tests"
            raise RefusalError(
                422, "the request is not valid", places=[(place, f"cannot be judged: {error}")]
            ) from error
        finally:
            with self._lock:
                self._open -= len(jobs) - len(futures)
            for future in futures:
                if future.done():
                    self.metrics.hit()
                future.add_done_callback(lambda future: self._judged(future, started, batch))
        self._batches.add(batch)
        try:
            await batch.wait()
        finally:
            self._batches.discard(batch)
        if batch.given_up:
            # No verdict, rather than that of a judge which was stopped: the client asks another service.
            raise unavailable("the service was stopped")
        return [future.result() for future in futures]

    def give_up(self) -> None:
        """Takes nothing more, and answers at once what was taken: without verdicts (503)."""
        self.draining = True
        for batch in list(self._batches):
            batch.give_up()

    def _judged(self, future: Future[Verdict], started: float, batch: _Batch) -> None:
        if future.exception() is None:  # a pool that raises has a fault: the request is told (500), and waits for none
            self.metrics.judged(future.result().outcome, time.monotonic() - started)
        with self._lock:
            self._open -= 1
        batch.one_done()

    def _full(self) -> RefusalError:
        return busy(f"{self._open} jobs are waiting, and the queue holds {self.config.queue}")


class _Batch:
    """Wakes the event loop once, when the last of the jobs is done: a wake-up a job would cost more than its JSON."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.given_up = False
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        if size == 0:
            self._ready.set()

    def one_done(self) -> None:
        """One more job is done. Can be called from any thread."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._wake()

    def give_up(self) -> None:
        """Does not wait for the rest."""
        self.given_up = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
            self._loop.call_soon_threadsafe(self._ready.set)

    async def wait(self) -> None:
        """Waits for all of them."""
        await self._ready.wait()
