"""The MLflow run of a whole pipeline run: its parameters, which step failed and why, its end.

The runs of single steps are nested in it; `stepcoder.platform.tracking` writes them. Everything here does nothing
outside a pipeline, and raises whatever MLflow raises.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stepcoder.platform import tracking
from stepcoder.platform.mlflow_api import PARAM_CHARACTERS, TAG_CHARACTERS, legal_text
from stepcoder.platform.outbox import TEXTS_A_REQUEST

OUTCOME_TAG = "stepcoder.outcome."


def describe(values: Mapping[str, Any]) -> None:
    """Writes parameters to the pipeline's MLflow run; does nothing outside a pipeline. What is there already stays."""
    if not os.environ.get(tracking.RUN_ID):
        return
    from mlflow.entities import Param

    mlflow_client = tracking.client()
    run = tracking.parent_run(mlflow_client, tracking.experiment_id(mlflow_client))
    present = mlflow_client.get_run(run).data.params
    params = [
        Param(tracking.legal_name(name), legal_text(value, PARAM_CHARACTERS))
        for name, value in tracking.flatten(values)
        if tracking.legal_name(name) not in present
    ]
    for begin in range(0, len(params), TEXTS_A_REQUEST):
        mlflow_client.log_batch(run, params=params[begin : begin + TEXTS_A_REQUEST])


def report_failure(step: str, error: str) -> None:
    """Writes which step failed and why to the pipeline's MLflow run; does nothing outside a pipeline."""
    if not os.environ.get(tracking.RUN_ID):
        return
    mlflow_client = tracking.client()
    run = tracking.parent_run(mlflow_client, tracking.experiment_id(mlflow_client))
    mlflow_client.set_tag(run, tracking.FAILED_STEP_TAG, step)
    mlflow_client.set_tag(run, tracking.ERROR_TAG, legal_text(error, TAG_CHARACTERS))


def reported_failure() -> tuple[str, str]:
    """The failed step and its error as the pipeline's MLflow run has them; empty when it has none."""
    mlflow_client = tracking.client()
    run = tracking.parent_run(mlflow_client, tracking.experiment_id(mlflow_client))
    tags = {} if run is None else mlflow_client.get_run(run).data.tags
    return tags.get(tracking.FAILED_STEP_TAG, ""), tags.get(tracking.ERROR_TAG, "")


def report_outcome(**values: str) -> None:
    """Writes what came of the run to the pipeline's MLflow run, for `notify`; does nothing outside a pipeline."""
    if not os.environ.get(tracking.RUN_ID):
        return
    mlflow_client = tracking.client()
    run = tracking.parent_run(mlflow_client, tracking.experiment_id(mlflow_client))
    for name, value in values.items():
        mlflow_client.set_tag(run, f"{OUTCOME_TAG}{name}", legal_text(value, TAG_CHARACTERS))


def reported_outcome() -> dict[str, str]:
    """What `report_outcome` wrote in this run; empty when it did not."""
    mlflow_client = tracking.client()
    run = tracking.parent_run(mlflow_client, tracking.experiment_id(mlflow_client))
    tags = {} if run is None else mlflow_client.get_run(run).data.tags
    return {name.removeprefix(OUTCOME_TAG): value for name, value in tags.items() if name.startswith(OUTCOME_TAG)}


def link() -> str:
    """The page of the pipeline's MLflow run; empty outside a pipeline, and where the store is no server."""
    uri = tracking.tracking_uri()
    if not os.environ.get(tracking.RUN_ID) or not uri.startswith("http"):
        return ""
    mlflow_client = tracking.client()
    experiment = tracking.experiment_id(mlflow_client)
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{tracking.parent_run(mlflow_client, experiment)}"


def finish(status: str) -> str | None:
    """Closes the pipeline's MLflow run, and those of steps that were killed and could not close their own.

    Args:
        status: `FINISHED`, `FAILED` or `KILLED`.

    Returns:
        The run's id; None outside a pipeline.
    """
    mlflow_client = tracking.client()
    experiment = tracking.experiment_id(mlflow_client)
    run = tracking.parent_run(mlflow_client, experiment)
    if run is not None:
        left = f"tags.`mlflow.parentRunId` = '{run}' and attributes.status = 'RUNNING'"
        for step in mlflow_client.search_runs([experiment], left):
            mlflow_client.set_terminated(step.info.run_id, "KILLED")
        mlflow_client.set_terminated(run, status)
    return run
