"""MLflow: one parent run a pipeline run, one nested run a step; training never waits for it and never fails by it.

Every metric is also a line of `metrics.jsonl` in the step's folder. The parent run is found by the tag
`stepcoder.run_id`, whose value is the environment's `STEPCODER_RUN_ID`: a parameter would defeat Kubeflow's cache.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepcoder.errors import StepCoderError
from stepcoder.platform import logs

METRICS_NAME = "metrics.jsonl"
RUN_ID = "STEPCODER_RUN_ID"
RUN_ID_TAG = "stepcoder.run_id"
STEP_TAG = "stepcoder.step"
FAILED_STEP_TAG = "stepcoder.failed_step"
ERROR_TAG = "stepcoder.error"
PIPELINE = "pipeline"
FLUSH_SECONDS = 5.0
"""Metrics wait at most this long before they are sent."""
RETRY_SECONDS = 60.0
"""After a failure MLflow is left alone for this long, so that an absent server costs next to nothing."""
BATCH = 500
"""Metrics in one request; MLflow takes at most 1,000."""

log = logs.get_logger("tracking")


def home() -> Path:
    """Where runs are kept on one machine: `$STEPCODER_HOME/runs`, else `runs` in the working folder."""
    return Path(os.environ.get("STEPCODER_HOME") or Path.cwd()).absolute() / "runs"


def tracking_uri() -> str:
    """The MLflow server of `MLFLOW_TRACKING_URI`, or a database file in `home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def client() -> Any:
    """An MLflow client that gives up within seconds when its server does not answer.

    Raises:
        StepCoderError: the store cannot be opened.
    """
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # It logs every retry; the failure is logged once, here.
        return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
    except Exception as error:
        raise StepCoderError(f"MLflow at {uri} cannot be opened: {_first_line(error)}") from error


def experiment_id(mlflow_client: Any) -> str:
    """The id of the experiment `$MLFLOW_EXPERIMENT_NAME` (default `stepcoder`), created when it is missing."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "stepcoder"
    found = mlflow_client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    uri = tracking_uri()
    # A database file would otherwise put artifacts into whatever folder the step happens to run in.
    beside = Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts"
    location = beside.as_uri() if uri.startswith("sqlite:///") else None
    try:
        return str(mlflow_client.create_experiment(name, artifact_location=location))
    except Exception:
        # Another step of the same pipeline was faster.
        found = mlflow_client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def parent_run(mlflow_client: Any, experiment: str) -> str | None:
    """The MLflow id of the pipeline's run, created when it is missing; None outside a pipeline."""
    run_id = os.environ.get(RUN_ID, "")
    if not run_id:
        return None
    wanted = f"tags.`{RUN_ID_TAG}` = '{run_id}' and tags.`{STEP_TAG}` = '{PIPELINE}'"
    found = mlflow_client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    if found:
        return str(found[0].info.run_id)
    tags = {RUN_ID_TAG: run_id, STEP_TAG: PIPELINE}
    return str(mlflow_client.create_run(experiment, tags=tags, run_name=run_id).info.run_id)


class Tracker:
    """The record of one step: parameters, metrics, tags and artifacts, on disk and in MLflow.

    >>> with Tracker.start(step="sft", folder=folder) as tracker:
    ...     tracker.params(config.model_dump())
    ...     tracker.metrics({"loss": 1.2}, step=1)
    """

    def __init__(self, step: str, folder: Path) -> None:
        self.step = step
        self.folder = folder
        self._client: Any = None
        self._run: str | None = None
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._metrics: list[tuple[str, float, int, int]] = []
        self._artifacts: list[tuple[Path, str | None]] = []
        self._flushed = -math.inf
        self._failed: float | None = None
        self._said = False

    @classmethod
    def start(cls, step: str, folder: Path) -> Tracker:
        """Opens the record of a step that writes into `folder`; MLflow is told at the first flush."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(step, folder)

    @property
    def run_id(self) -> str | None:
        """The step's MLflow run id; None while MLflow has not been reached."""
        return self._run

    def __enter__(self) -> Self:
        self.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.tags({ERROR_TAG: f"{type(error).__name__}: {_first_line(error)}"})
        self._failed = None
        self.flush()
        if self._run is not None:
            status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self._guarded(lambda: self._client.set_terminated(self._run, status))

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the step; nested ones get dotted names. A name that was given before keeps its value."""
        for name, value in flatten(values):
            self._params.setdefault(legal_name(name), str(value)[:6000])

    def tags(self, values: Mapping[str, Any]) -> None:
        """Short texts to search runs by."""
        self._tags.update({legal_name(name): str(value)[:5000] for name, value in values.items()})

    def metrics(self, values: Mapping[str, Any], step: int) -> None:
        """Appends a line to `metrics.jsonl` and queues the numbers for MLflow.

        Args:
            values: Name to number, or to a dictionary of numbers (in MLflow `name/key`).
            step: The optimiser step, from 1.
        """
        line = {"step": step, **values}
        with (self.folder / METRICS_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        now = int(time.time() * 1000)
        for name, value in flatten(values, "/"):
            if isinstance(value, int | float):
                self._metrics.append((legal_name(name), float(value), now, step))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS or len(self._metrics) >= BATCH:
            self.flush()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file or a folder to the run's artifacts, under `folder` if given."""
        self._artifacts.append((path, folder))
        self.flush()

    def flush(self) -> None:
        """Sends what is queued. After a failure nothing is tried for `RETRY_SECONDS`, and nothing queued is lost."""
        self._flushed = time.monotonic()
        if logs.rank():
            self._metrics.clear()
            return
        if self._failed is not None and time.monotonic() - self._failed < RETRY_SECONDS:
            return
        if self._guarded(self._send):
            self._failed = None

    def _send(self) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if self._run is None:
            self._client = client()
            experiment = experiment_id(self._client)
            parent = parent_run(self._client, experiment)
            tags = {STEP_TAG: self.step}
            if parent is not None:
                tags |= {RUN_ID_TAG: os.environ[RUN_ID], "mlflow.parentRunId": parent}
            self._run = str(self._client.create_run(experiment, tags=tags, run_name=self.step).info.run_id)
        while self._params or self._tags or self._metrics:
            params = [Param(*pair) for pair in list(self._params.items())[:100]]
            tags_ = [RunTag(*pair) for pair in list(self._tags.items())[:100]]
            metrics = [Metric(*queued) for queued in self._metrics[:BATCH]]
            self._client.log_batch(self._run, metrics=metrics, params=params, tags=tags_)
            self._params = dict(list(self._params.items())[100:])
            self._tags = dict(list(self._tags.items())[100:])
            del self._metrics[: len(metrics)]
        while self._artifacts:
            path, folder = self._artifacts[0]
            send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            send(self._run, str(path), folder)
            del self._artifacts[0]

    def _guarded(self, action: Callable[[], Any]) -> bool:
        try:
            action()
        except Exception as error:  # Whatever MLflow's many layers raise, the step's work is worth more.
            self._failed = time.monotonic()
            if not self._said:
                self._said = True
                log.warning(
                    "MLflow cannot be reached; the step goes on and keeps its metrics on disk",
                    uri=_without_password(tracking_uri()),
                    metrics=str(self.folder / METRICS_NAME),
                    error=_first_line(error),
                )
            return False
        return True


def flatten(values: Mapping[str, Any], separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Pairs of joined name and leaf value of nested dictionaries, in order."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, leaf in flatten(value, separator):
                yield f"{name}{separator}{inner}", leaf
        else:
            yield str(name), value


def legal_name(name: str) -> str:
    """The name with every character replaced that MLflow does not allow."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _first_line(error: BaseException) -> str:
    text = _without_password(str(error).strip())
    return text.splitlines()[0][:300] if text else type(error).__name__


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
