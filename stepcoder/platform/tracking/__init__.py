"""What a run leaves in MLflow, and what MLflow tells about earlier ones.

`tracker` records a step, by way of an `outbox` whose rest `unsent` sends later; `pipeline_run` is the record of a whole
run, `model_registry` the registered versions; `mlflow_api` is how all of them reach MLflow.
"""

from stepcoder.platform.tracking.mlflow_api import (
    RUN_ID,
    RUN_ID_TAG,
    STEP_TAG,
    client,
    experiment_id,
    home,
    parent_run,
    tracking_uri,
)
from stepcoder.platform.tracking.outbox import ERROR_TAG
from stepcoder.platform.tracking.tracker import WAIT, Tracker
from stepcoder.platform.tracking.unsent import METRICS_NAME

__all__ = [
    "ERROR_TAG",
    "METRICS_NAME",
    "RUN_ID",
    "RUN_ID_TAG",
    "STEP_TAG",
    "WAIT",
    "Tracker",
    "client",
    "experiment_id",
    "home",
    "parent_run",
    "tracking_uri",
]
