"""The MLflow run of a whole pipeline run: its parameters, which step failed and why, its end.

The runs of single steps are nested in it; `tracker` writes them. Everything here does nothing outside a pipeline, and
raises whatever MLflow raises.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from stepcoder.platform.tracking import mlflow_api
from stepcoder.platform.tracking.outbox import ERROR_TAG, TEXTS_A_REQUEST

FAILED_STEP_TAG = "stepcoder.failed_step"
OUTCOME_TAG = "stepcoder.outcome."


def describe(values: Mapping[str, Any]) -> None:
    """Writes parameters to the pipeline's MLflow run; does nothing outside a pipeline. What is there already stays."""
    if (here := _here()) is None:
        return
    from mlflow.entities import Param

    mlflow_client, _, run = here
    present = mlflow_client.get_run(run).data.params
    params = [
        Param(mlflow_api.legal_name(name), mlflow_api.legal_text(value, mlflow_api.PARAM_CHARACTERS))
        for name, value in mlflow_api.flatten(values)
        if mlflow_api.legal_name(name) not in present
    ]
    for begin in range(0, len(params), TEXTS_A_REQUEST):
        mlflow_client.log_batch(run, params=params[begin : begin + TEXTS_A_REQUEST])


def report_failure(step: str, error: str) -> None:
    """Writes which step failed and why to the pipeline's MLflow run; does nothing outside a pipeline."""
    if (here := _here()) is None:
        return
    mlflow_client, _, run = here
    mlflow_client.set_tag(run, FAILED_STEP_TAG, step)
    mlflow_client.set_tag(run, ERROR_TAG, mlflow_api.legal_text(error, mlflow_api.TAG_CHARACTERS))


def reported_failure() -> tuple[str, str]:
    """The failed step and its error as the pipeline's MLflow run has them; empty when it has none."""
    tags = _tags()
    return tags.get(FAILED_STEP_TAG, ""), tags.get(ERROR_TAG, "")


def report_outcome(**values: str) -> None:
    """Writes what came of the run to the pipeline's MLflow run, for `notify`; does nothing outside a pipeline."""
    if (here := _here()) is None:
        return
    mlflow_client, _, run = here
    for name, value in values.items():
        mlflow_client.set_tag(run, f"{OUTCOME_TAG}{name}", mlflow_api.legal_text(value, mlflow_api.TAG_CHARACTERS))


def reported_outcome() -> dict[str, str]:
    """What `report_outcome` wrote in this run; empty when it did not."""
    tags = _tags()
    return {name.removeprefix(OUTCOME_TAG): value for name, value in tags.items() if name.startswith(OUTCOME_TAG)}


def link() -> str:
    """The page of the pipeline's MLflow run; empty outside a pipeline, and where the store is no server."""
    uri = mlflow_api.tracking_uri()
    if not uri.startswith("http") or (here := _here()) is None:
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{here.experiment}/runs/{here.run}"


def finish(status: str) -> str | None:
    """Closes the pipeline's MLflow run, and those of steps that were killed and could not close their own.

    Args:
        status: `FINISHED`, `FAILED` or `KILLED`.

    Returns:
        The run's id; None outside a pipeline.
    """
    if (here := _here()) is None:
        return None
    mlflow_client, experiment, run = here
    left = f"tags.`mlflow.parentRunId` = '{run}' and attributes.status = 'RUNNING'"
    for step in mlflow_client.search_runs([experiment], left):
        mlflow_client.set_terminated(step.info.run_id, "KILLED")
    mlflow_client.set_terminated(run, status)
    return run


class _Here(NamedTuple):
    client: Any
    experiment: str
    run: str


def _here() -> _Here | None:
    """The pipeline's MLflow run, created when it is missing; None outside a pipeline."""
    if not os.environ.get(mlflow_api.RUN_ID):
        return None
    mlflow_client = mlflow_api.client()
    experiment = mlflow_api.experiment_id(mlflow_client)
    return _Here(mlflow_client, experiment, str(mlflow_api.parent_run(mlflow_client, experiment)))


def _tags() -> Mapping[str, str]:
    here = _here()
    return {} if here is None else here.client.get_run(here.run).data.tags
