"""What one step wants in MLflow and what of it is not there yet; sent once, however often it is tried.

MLflow's own requests are not all idempotent, and an answer may be lost after the work was done. So:

- a run is named by a tag and looked for before it is made: a step that is tried again goes on in the run it began;
- a metric is one value a name and step, and the first counts: what a found run has is asked for and not sent again.
  A repeated request of this process has the same timestamps, so the store itself drops its rows;
- parameters cannot be rewritten: those that a found run has are not sent again.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from stepcoder.platform import logs
from stepcoder.platform.redaction import first_line
from stepcoder.platform.tracking import mlflow_api

RECORD_TAG = "stepcoder.record"
CHECKPOINTS_TAG = "stepcoder.checkpoints"
ERROR_TAG = "stepcoder.error"
METRICS_A_REQUEST = 500
"""MLflow takes at most 1,000."""
TEXTS_A_REQUEST = 16
"""Parameters or tags in one request: MLflow takes 100, and a million bytes, six for a character."""

log = logs.get_logger("tracking")


class StepRun(BaseModel):
    """Which MLflow run a step's record belongs to: enough for any process to find or make it."""

    model_config = ConfigDict(frozen=True)

    step: str
    experiment: str
    pipeline_run: str
    """Empty outside a pipeline."""
    record: str
    """Value of `RECORD_TAG`, which no two records share."""
    checkpoints: str
    """Digest of the place of the step's checkpoints; empty without any."""

    @classmethod
    def of(cls, step: str, checkpoints: str) -> StepRun:
        """The run of a step that starts now: inside a pipeline there is one a step, however often it is tried.

        Args:
            step: name of the step.
            checkpoints: where its checkpoints lie; empty without any.
        """
        pipeline_run = os.environ.get(mlflow_api.RUN_ID, "")
        return cls(
            step=step,
            experiment=mlflow_api.experiment_name(),
            pipeline_run=pipeline_run,
            record=f"{pipeline_run}/{step}" if pipeline_run else uuid.uuid4().hex,
            checkpoints=sha256(checkpoints.encode()).hexdigest()[:24] if checkpoints else "",
        )


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    milliseconds: int
    """Time since the epoch."""
    step: int


class DeletedRunError(Exception):
    """The run that a record belongs to was deleted in MLflow."""


class Outbox:
    """Queues of one step. Filled by the step, emptied by `send`, which may run in another thread."""

    def __init__(self, target: StepRun) -> None:
        self.target = target
        self.run: str | None = None
        """MLflow's id of the run; None while MLflow has not been reached."""
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.points: list[Point] = []
        self.artifacts: list[tuple[Path, str | None]] = []
        self.status: str | None = None
        """How the step ended; None while it runs."""
        self.ended = 0
        """When, in milliseconds since the epoch."""
        self._client: Any = None
        self._given: dict[str, set[int]] = {}
        self._there: dict[str, set[int]] = {}
        self._params_there: set[str] = set()
        self._filling = threading.Lock()
        self._sending = threading.Lock()

    def put_params(self, values: Mapping[str, Any]) -> None:
        """Nested ones get dotted names. A name that was given before keeps its value."""
        with self._filling:
            for name, value in mlflow_api.flatten(values):
                self.params.setdefault(
                    mlflow_api.legal_name(name), mlflow_api.legal_text(value, mlflow_api.PARAM_CHARACTERS)
                )

    def put_tags(self, values: Mapping[str, Any]) -> None:
        """A name that was given before gets the new value."""
        with self._filling:
            for name, value in values.items():
                self.tags[mlflow_api.legal_name(name)] = mlflow_api.legal_text(value, mlflow_api.TAG_CHARACTERS)

    def put_metrics(self, values: Mapping[str, Any], step: int, seconds: float) -> None:
        """Numbers, or nested ones as `name/key`; other values are left out. The first value of a step counts.

        Args:
            values: Name to value.
            step: The optimiser step.
            seconds: When, since the epoch.
        """
        with self._filling:
            for name, value in mlflow_api.flatten(values, "/"):
                steps = self._given.setdefault(legal := mlflow_api.legal_name(name), set())
                if isinstance(value, int | float) and step not in steps:
                    steps.add(step)
                    self.points.append(Point(legal, float(value), round(seconds * 1000), step))

    def put_artifact(self, path: Path, folder: str | None) -> None:
        """A file or a folder, which has to stay where it is until it is sent."""
        with self._filling:
            self.artifacts.append((path, folder))

    def end(self, status: str) -> None:
        """Says how the step ended: `FINISHED`, `FAILED` or `KILLED`."""
        self.status, self.ended = status, self.ended or int(time.time() * 1000)

    def send(self, *, late: bool = False) -> None:
        """Sends what is queued. What has arrived leaves the queues; when this raises, the rest stays in them.

        Args:
            late: the step is over; a run that was deleted since is not made again.

        Raises:
            DeletedRunError: only when `late`.
            Exception: whatever MLflow's many layers raise.
        """
        with self._sending:
            if self.run is None:
                self._open(late)
            while params := self._some(self.params):
                self._log("params", {name: text for name, text in params.items() if name not in self._params_there})
                self._drop(self.params, params)
            while tags := self._some(self.tags):
                self._log("tags", tags)
                self._drop(self.tags, tags)
            while points := self.points[:METRICS_A_REQUEST]:
                self._log("metrics", [point for point in points if point.step not in self._there.get(point.name, ())])
                with self._filling:
                    del self.points[: len(points)]
            while self.artifacts:
                self._upload(*self.artifacts[0])
                del self.artifacts[0]
            if self.status is not None:
                self._client.set_terminated(self.run, self.status, self.ended)
                self.status = None

    def _some(self, texts: dict[str, str]) -> dict[str, str]:
        with self._filling:
            return dict(list(texts.items())[:TEXTS_A_REQUEST])

    def _drop(self, texts: dict[str, str], sent: dict[str, str]) -> None:
        with self._filling:
            for name, text in sent.items():
                if texts[name] == text:
                    del texts[name]

    def _log(self, what: str, values: Any) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if not values:
            return
        if what == "metrics":
            entities: list[Any] = [Metric(*point) for point in values]
        else:
            entities = [(Param if what == "params" else RunTag)(name, text) for name, text in values.items()]
        self._or_refused(what, lambda: self._client.log_batch(self.run, **{what: entities}))

    def _upload(self, path: Path, folder: str | None) -> None:
        if not path.exists():
            log.warning("an artifact is gone before it was sent", path=str(path))
            return
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._or_refused("artifact", lambda: send(self.run, str(path), folder))

    def _or_refused(self, what: str, request: Callable[[], Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            request()
        except MlflowException as error:
            # What MLflow will never take may not stand in the way of all that comes after. A bad request is what it
            # calls most troubles of its database, such as one that takes no writes for a while.
            if error.get_http_status_code() != 400 or error.error_code == "BAD_REQUEST":
                raise
            log.warning("MLflow refuses this; it is left out", what=what, error=first_line(error))

    def _open(self, late: bool) -> None:
        """Finds the run, with what it has, or makes it."""
        self._client = mlflow_client = mlflow_api.client()
        experiment = mlflow_api.experiment_id(mlflow_client, self.target.experiment)
        key = {RECORD_TAG: self.target.record}
        if late and mlflow_api.runs_tagged(mlflow_client, experiment, key, deleted=True):
            raise DeletedRunError(self.target.record)
        found = None if late else self._interrupted(experiment)
        if before := found is not None:
            self.target = self.target.model_copy(update={"record": found.data.tags[RECORD_TAG]})
        else:
            tags = {mlflow_api.STEP_TAG: self.target.step, CHECKPOINTS_TAG: self.target.checkpoints}
            if parent := mlflow_api.parent_run(mlflow_client, experiment, self.target.pipeline_run):
                tags |= {mlflow_api.RUN_ID_TAG: self.target.pipeline_run, "mlflow.parentRunId": parent}
            further = {name: value for name, value in tags.items() if value}
            found, before = mlflow_api.found_or_created(
                mlflow_client, experiment, key, name=self.target.step, tags=further
            )
        run = str(found.info.run_id)
        if before:
            self._params_there = set(found.data.params)
            self._there = {
                name: {point.step for point in mlflow_client.get_metric_history(run, name)}
                for name in found.data.metrics
            }
            if self.status is None and found.info.status != "RUNNING":
                mlflow_client.update_run(run, status="RUNNING")
            if ERROR_TAG in found.data.tags and ERROR_TAG not in self.tags:
                mlflow_client.delete_tag(run, ERROR_TAG)
        self.run = run

    def _interrupted(self, experiment: str) -> Any:
        """Outside a pipeline: the run of an earlier attempt with the same checkpoints, unless it came to its end."""
        if self.target.pipeline_run or not self.target.checkpoints:
            return None
        key = {mlflow_api.STEP_TAG: self.target.step, CHECKPOINTS_TAG: self.target.checkpoints}
        found = mlflow_api.runs_tagged(self._client, experiment, key, also="attributes.status != 'FINISHED'")
        return found[-1] if found else None
