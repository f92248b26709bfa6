"""What Prometheus may ask for."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stepcoder.sandbox.job import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The figures of one service."""

    def __init__(self, open_jobs: Callable[[], int], slots: int, tests_bytes: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        programs = Counter(
            "stepcoder_sandbox_programs", "Programs judged, by outcome", ["outcome"], registry=self._registry
        )
        # Resolved once: a look-up by label costs as much as all else here.
        self._programs = {outcome: programs.labels(outcome.value) for outcome in Outcome}
        self._seconds = Histogram(
            "stepcoder_sandbox_judge_seconds",
            "Seconds from taking a program to its verdict, waiting included",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._hits = Counter(
            "stepcoder_sandbox_cache_hits", "Programs answered from an earlier verdict", registry=self._registry
        )
        self._rejected = Counter(
            "stepcoder_sandbox_rejected", "Requests refused, by status", ["status"], registry=self._registry
        )
        for name, help, value in (
            ("in_flight", "Jobs in work, at most one a slot", lambda: min(open_jobs(), slots)),
            ("queue_depth", "Jobs that wait for a slot", lambda: max(open_jobs() - slots, 0)),
            ("slots", "Programs judged at the same time", lambda: slots),
            ("tests_bytes", "Size of the test lists that are kept", tests_bytes),
        ):
            Gauge(f"stepcoder_sandbox_{name}", help, registry=self._registry).set_function(value)

    def judged(self, outcome: Outcome, seconds: float) -> None:
        """A program has its verdict. Can be called from any thread."""
        self._programs[outcome].inc()
        self._seconds.observe(seconds)

    def hit(self) -> None:
        """A program was answered at once."""
        self._hits.inc()

    def rejected(self, status: int) -> None:
        """A request was refused."""
        self._rejected.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text form."""
        return generate_latest(self._registry)
