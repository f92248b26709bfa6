"""A sandbox behind HTTP: jobs from any thread, sent by one thread with an event loop.

Jobs that are equal and in work share one run, as in the pool: groups of samples hold many identical programs.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future

from stepcoder.errors import StepCoderError
from stepcoder.sandbox import wire
from stepcoder.sandbox.couriers import CLOSED, REQUESTS, State, Task, run, shut_down
from stepcoder.sandbox.job import Job, Sandbox, Verdict, broken
from stepcoder.sandbox.link import Link, Parcel
from stepcoder.sandbox.token import token_from_environment

READY_SECONDS = 30.0
PATIENCE_SECONDS = 300.0


class RemoteSandbox(Sandbox):
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
        self._state = State(Link(address, token, patience, REQUESTS), ready_seconds)
        self._process = os.getpid()
        self._tests = wire.TestLists()
        self._thread = threading.Thread(target=run, args=(self._state,), name="sandbox-client", daemon=True)
        self._finalizer = weakref.finalize(self, shut_down, self._state, self._process)
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
                tests = self._tests.of(job.tests)
                key = (tests.digest, *job.content)
                if state.closed:
                    late.append((job, future))
                elif (task := state.open_tasks.get(key)) is not None:
                    task.waiting.append((job.id, future))
                else:
                    task = state.open_tasks[key] = Task(Parcel(job, tests), key, [(job.id, future)])
                    state.pending.append(task)
            if state.pending and not state.woken and state.loop is not None:
                state.woken = True
                state.loop.call_soon_threadsafe(state.wake.set)
        for job, future in late:
            future.set_result(broken(job, CLOSED))
        return futures
