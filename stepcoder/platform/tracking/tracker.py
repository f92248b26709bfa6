"""The record of a step, on disk and in MLflow; training never waits for MLflow and never fails by it.

Every metric is first a line of `metrics.jsonl` in the step's folder, which checkpoints carry: what a killed process did
not send is sent by the one that goes on. A thread sends; at the end the step waits a while for a server that is away,
and leaves a file beside the metrics that says what is still to be sent (`unsent.py`).
"""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepcoder.platform import logs
from stepcoder.platform.redaction import first_line, redacted
from stepcoder.platform.tracking import unsent
from stepcoder.platform.tracking.mlflow_api import tracking_uri
from stepcoder.platform.tracking.outbox import ERROR_TAG, METRICS_A_REQUEST, Outbox, StepRun
from stepcoder.platform.tracking.unsent import METRICS_NAME, SECONDS

WAIT = "STEPCODER_MLFLOW_WAIT"
"""Variable: seconds that a step which succeeded waits at its end for MLflow."""
WAIT_SECONDS = 60.0
FLUSH_SECONDS = 5.0
"""Metrics wait at most this long before they are sent."""
RETRY_SECONDS = 15.0
"""After a failure MLflow is left alone for this long."""

log = logs.get_logger("tracking")


class Tracker:
    """The record of one step: parameters, metrics, tags and artifacts.

    >>> with Tracker.start(step="sft", folder=folder) as tracker:
    ...     tracker.params(config.model_dump())
    ...     tracker.metrics({"loss": 1.2}, step=1)
    """

    def __init__(self, step: str, folder: Path, checkpoints: str) -> None:
        self.folder = folder
        self._outbox = Outbox(StepRun.of(step, checkpoints))
        self._wake = threading.Event()
        self._over = False
        self._sender: threading.Thread | None = None
        self._said = False

    @classmethod
    def start(cls, step: str, folder: Path, checkpoints: str = "") -> Tracker:
        """Opens the record of a step.

        Args:
            step: Name of the step.
            folder: The step's output, where `metrics.jsonl` is written.
            checkpoints: Where the step's checkpoints lie: by that a step which is started again outside a pipeline
                finds the MLflow run that it began. Inside a pipeline it is found by the names of run and step.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return cls(step, folder, checkpoints)

    @property
    def run_id(self) -> str | None:
        """The step's MLflow run id; None while MLflow has not been reached."""
        return self._outbox.run

    def __enter__(self) -> Self:
        if not logs.rank():
            self._sender = threading.Thread(target=self._send_now_and_then, name="tracking", daemon=True)
            self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is None:
            return
        self._over = True
        self._wake.set()
        self._sender.join()
        if error is None:
            self._outbox.end("FINISHED")
        else:
            self.tags({ERROR_TAG: f"{type(error).__name__}: {first_line(error)}"})
            self._outbox.end("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        # A step that failed is tried again soon, and one that is told to end has seconds.
        deadline = time.monotonic() + (logs.seconds_of(WAIT, WAIT_SECONDS) if error is None else 0.0)
        while not self.flush():
            if time.monotonic() >= deadline:
                self._leave(finished=error is None)
                return
            time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the step; nested ones get dotted names. A name that was given before keeps its value."""
        self._outbox.put_params(values)
        self._wake.set()

    def tags(self, values: Mapping[str, Any]) -> None:
        """Short texts to search runs by."""
        self._outbox.put_tags(values)

    def metrics(self, values: Mapping[str, Any], step: int) -> None:
        """Appends a line to `metrics.jsonl` and queues the numbers for MLflow, where a step's first value counts.

        Args:
            values: Name to number, or to a dictionary of numbers (in MLflow `name/key`).
            step: The optimiser step, from 1.
        """
        now = round(time.time(), 3)
        line = {"step": step, SECONDS: now, **values}
        with (self.folder / METRICS_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        if not logs.rank():
            self._outbox.put_metrics(values, step, now)
            if len(self._outbox.points) >= METRICS_A_REQUEST:
                self._wake.set()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file or a folder to the run's artifacts, under `folder` if given; it stays until the step ends."""
        self._outbox.put_artifact(path, folder)

    def resume(self, metrics: Path) -> None:
        """Goes on with the `metrics.jsonl` of a checkpoint: what of it is not in MLflow is sent."""
        shutil.copyfile(metrics, self.folder / METRICS_NAME)
        if not logs.rank():
            try:
                unsent.queue_metrics(self._outbox, metrics)
            except (ValueError, KeyError) as error:
                log.warning("the checkpoint's metrics cannot be read", file=str(metrics), error=first_line(error))

    def flush(self) -> bool:
        """Tries to send what is queued, and tells whether MLflow has everything now. Nothing queued is lost."""
        try:
            self._outbox.send()
        except Exception as error:  # Whatever MLflow's many layers raise, the step's work is worth more.
            if not self._said:
                self._said = True
                log.warning(
                    "MLflow cannot be reached; the step goes on and keeps its metrics on disk",
                    uri=redacted(tracking_uri()),
                    metrics=METRICS_NAME,
                    error=first_line(error),
                )
            return False
        if self._said:
            self._said = False
            log.info("MLflow answers again; what it missed is sent")
        return True

    def _send_now_and_then(self) -> None:
        while not self._over:
            reached = self.flush()
            self._wake.clear()
            if not reached:
                self._pause(RETRY_SECONDS)
            elif not self._over:
                self._wake.wait(FLUSH_SECONDS)

    def _pause(self, seconds: float) -> None:
        """Waits even when more is queued, but not when the step is over."""
        end = time.monotonic() + seconds
        while not self._over and (left := end - time.monotonic()) > 0:
            self._wake.wait(min(left, 1.0))
            self._wake.clear()

    def _leave(self, *, finished: bool) -> None:
        rest = "the step's next attempt sends what its checkpoint has"
        if finished:
            unsent.write(self._outbox, self.folder)
            rest = f"in {unsent.UNSENT_NAME} of the output; send it with: stepcoder send-metrics --folder OUTPUT"
        log.warning("not everything is in MLflow", metrics=len(self._outbox.points), rest=rest)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
