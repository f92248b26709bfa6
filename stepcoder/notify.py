"""The end of a pipeline run, told whatever happened: one log line, and the status of the run in MLflow."""

from __future__ import annotations

from typing import Final

from stepcoder.platform import pipeline_run
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger

log = get_logger("notify")

_MLFLOW_STATUS: Final = {"SUCCEEDED": "FINISHED", "CANCELLED": "KILLED"}


class NotifyConfig(StepConfig):
    """How a pipeline run ended."""

    status: str
    """Final state as Kubeflow names it: `SUCCEEDED`, `FAILED` or `CANCELLED`."""
    pipeline: str = "stepcoder"
    """Name of the pipeline, for the message."""
    run: str = ""
    """Kubeflow's resource name of the run, for the message."""
    error: str = ""
    """What Kubeflow says about the failure; the failed step's own words, if MLflow has them, come first."""


def notify(config: NotifyConfig) -> str:
    """Logs the run's end and closes its MLflow run.

    Never fails: a run that succeeded must not be lost because nobody could be told.

    Returns:
        The message.
    """
    succeeded = config.status == "SUCCEEDED"
    values: dict[str, str] = {"pipeline": config.pipeline, "status": config.status}
    if config.run:
        values["run"] = config.run
    if config.status not in _MLFLOW_STATUS:
        step, error = _failure()
        values |= {"failed_step": step or "unknown", "error": error or config.error or "see the failed step's log"}
    try:
        run = pipeline_run.finish(_MLFLOW_STATUS.get(config.status, "FAILED"))
        if run is not None:
            values["mlflow_run"] = run
    except Exception as error:  # Whatever MLflow raises.
        log.warning("the run's status is not in MLflow", error=str(error).splitlines()[0])
    (log.info if succeeded else log.error)("run ended", **values)
    return " ".join(f"{key}={value}" for key, value in values.items())


def _failure() -> tuple[str, str]:
    try:
        return pipeline_run.reported_failure()
    except Exception as error:  # Whatever MLflow raises.
        log.warning("MLflow does not say which step failed", error=str(error).splitlines()[0])
        return "", ""
