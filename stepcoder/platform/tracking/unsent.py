"""What MLflow has not got when a step ends: left in the step's output, and sent from there later.

Nothing is ever marked as sent: outputs do not change once they are published, and MLflow itself tells what it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import logs, storage
from stepcoder.platform.config import StepConfig
from stepcoder.platform.redaction import first_line
from stepcoder.platform.tracking.outbox import DeletedRunError, Outbox, StepRun

METRICS_NAME: Final = "metrics.jsonl"
UNSENT_NAME: Final = "mlflow-unsent.json"
SECONDS: Final = "unix_seconds"
"""When a line of `metrics.jsonl` was written, in seconds since the epoch."""

log = logs.get_logger("send-metrics")


class Unsent(BaseModel):
    """The content of `mlflow-unsent.json`; the metrics are those of `metrics.jsonl` beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    target: StepRun
    params: dict[str, str]
    tags: dict[str, str]
    artifacts: list[tuple[str, str | None]]
    """Paths below the folder, and the folder of the run's artifacts that each goes to."""
    status: str
    ended: int
    """Milliseconds since the epoch."""


class SendConfig(StepConfig):
    """Which step's record to complete in MLflow."""

    folder: str
    """Output of a step, with `mlflow-unsent.json`: a path or an `s3://` address."""


@dataclass(frozen=True)
class Sent:
    """What was done."""

    step: str
    run_id: str
    """MLflow's id of the step's run."""
    metrics: int
    """Values that MLflow has now because of this or an earlier call."""


def write(outbox: Outbox, folder: Path) -> None:
    """Writes what is still to be sent into the step's output."""
    artifacts = [
        (path.relative_to(folder).as_posix(), place) for path, place in outbox.artifacts if path.is_relative_to(folder)
    ]
    left = Unsent(
        target=outbox.target,
        params=outbox.params,
        tags=outbox.tags,
        artifacts=artifacts,
        status=outbox.status or "FINISHED",
        ended=outbox.ended,
    )
    (folder / UNSENT_NAME).write_text(left.model_dump_json(indent=1) + "\n", encoding="utf-8")


def queue_metrics(outbox: Outbox, path: Path) -> None:
    """Queues every line of a `metrics.jsonl`."""
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        step, seconds = line.pop("step"), line.pop(SECONDS, path.stat().st_mtime)
        outbox.put_metrics(_numbers(line), step, seconds)


def send(config: SendConfig) -> Sent:
    """Sends what a step could not: nothing twice, however often it is called.

    Raises:
        DataError: the folder has nothing to send, or it cannot be read.
        StepCoderError: MLflow cannot be reached, or the run was deleted there.
    """
    where = f"{config.folder.rstrip('/')}/{UNSENT_NAME}"
    if not storage.exists(where):
        raise DataError(f"{where}: there is no such file, so that step's record is complete in MLflow")
    address = config.folder.rstrip("/")
    try:
        # One by one: the weights of a policy lie in the same folder.
        left = Unsent.model_validate_json(storage.fetch(where).read_text(encoding="utf-8"))
        outbox = Outbox(left.target)
        if storage.exists(f"{address}/{METRICS_NAME}"):
            queue_metrics(outbox, storage.fetch(f"{address}/{METRICS_NAME}"))
    except (ValidationError, ValueError, KeyError) as error:
        raise DataError(f"{where}: cannot be read: {first_line(error)}") from error
    outbox.put_params(left.params)
    outbox.put_tags(left.tags)
    for name, place in left.artifacts:
        if storage.exists(f"{address}/{name}"):  # A training record carries the metrics alone.
            outbox.put_artifact(storage.fetch(f"{address}/{name}"), place)
    outbox.ended = left.ended
    outbox.end(left.status)
    metrics = len(outbox.points)
    try:
        outbox.send(late=True)
    except DeletedRunError as error:
        raise StepCoderError(f"{where}: the run {error} was deleted in MLflow; restore it there first") from error
    except Exception as error:  # Whatever MLflow's many layers raise.
        raise StepCoderError(f"{where}: not everything could be sent: {first_line(error)}") from error
    log.info("sent", folder=config.folder, run=outbox.run, metrics=metrics)
    return Sent(left.target.step, outbox.run or "", metrics)


def send_all(folders: Sequence[str]) -> None:
    """Sends what earlier steps could not; only says so where that fails again."""
    for folder in folders:
        try:
            if storage.exists(f"{folder.rstrip('/')}/{UNSENT_NAME}"):
                send(SendConfig(folder=folder))
        except StepCoderError as error:
            log.warning("an earlier step's record is still not complete in MLflow", error=str(error))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is not finite stands in the file as null."""
    return {
        name: _numbers(value) if isinstance(value, Mapping) else math.nan if value is None else value
        for name, value in values.items()
    }
