"""Whether there is anything to retrain for: problems that differ from those of the newest registered version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from stepcoder.inputs import problems_digest, registry_error
from stepcoder.platform import pipeline_run, tracking
from stepcoder.platform.config import StepConfig, parse
from stepcoder.platform.logs import get_logger
from stepcoder.preflight import companions_of
from stepcoder.verification import VerifyConfig

log = get_logger("check-new-data")

PARENTS_TAG: Final = "stepcoder.parents"
"""Tag by which registration names what a version was made from, as `name=digest, name=digest`."""


class NewDataConfig(StepConfig):
    """The data in question, and the model that may have seen it."""

    problems: str
    """File of problem records: a path or an `s3://` address."""
    problem_format: str = "apps_plus"
    """Format of the records: `apps_plus`, `leetcode`, `humaneval` or `mbpp`."""
    verification: dict[str, Any] = Field(default_factory=dict)
    """Settings of verify; the files that they name count as data."""
    model_name: str = "stepcoder"
    """Name in the MLflow model registry."""


@dataclass(frozen=True)
class NewData:
    """What the check found."""

    new: bool
    problems_digest: str
    since: str
    """Newest registered version; empty when there is none."""


def check(config: NewDataConfig) -> NewData:
    """Compares the data's digest with that of the newest version, promoted or not.

    A version that was not promoted has seen its data too: training on the same again would end at the same gate.

    Raises:
        DataError: the problems are missing, or the settings are wrong.
        StepCoderError: an object store or the registry does not answer.
    """
    stand_ins = {"problems": config.problems, "format": config.problem_format, "out": "-"}
    verification = parse(VerifyConfig, config.verification, where="verification", **stand_ins)
    digest = problems_digest(config.problems, companions_of(verification))
    version, seen = newest(config.model_name)
    found = NewData(new=digest != seen, problems_digest=digest, since=version)
    if found.new:
        log.info("new data", since_version=version or "none", problems=digest[:12])
        return found
    outcome = f"no new data since version {version}"
    log.info(outcome, model=config.model_name, problems=digest[:12])
    try:
        pipeline_run.report_outcome(outcome=f"{outcome} of {config.model_name}; nothing was trained")
    except Exception as error:  # Whatever MLflow raises; it is in the log.
        log.warning("the outcome is not in MLflow", error=str(error).splitlines()[0])
    return found


def newest(model_name: str) -> tuple[str, str]:
    """Number and problems' digest of the newest version of a model; empty texts when there is none.

    Raises:
        StepCoderError: the registry cannot be read.
    """
    mlflow_client = tracking.client()
    from mlflow.exceptions import MlflowException

    try:
        versions = mlflow_client.search_model_versions(f"name = '{model_name}'", order_by=["version_number DESC"])
    except MlflowException as error:
        raise registry_error(error) from error
    if not versions:
        return "", ""
    last = max(versions, key=lambda version: int(version.version))
    parents = dict(item.partition("=")[::2] for item in str(last.tags.get(PARENTS_TAG, "")).split(", "))
    return str(last.version), parents.get("problems", "")
