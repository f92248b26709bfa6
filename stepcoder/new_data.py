"""Whether there is anything to retrain for: problems that differ from those of the last registration."""

from __future__ import annotations

from dataclasses import dataclass

from stepcoder.inputs import problems_digest
from stepcoder.platform import tracking
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import first_line
from stepcoder.platform.tracking import model_registry, pipeline_run
from stepcoder.platform.tracking.model_registry import PROBLEMS_TAG, ModelName

log = get_logger("check-new-data")


class NewDataConfig(StepConfig):
    """The data in question, and the model that may have seen it."""

    problems: str
    """File of problem records: a path or an `s3://` address."""
    companions: tuple[str, ...] = ()
    """Further files that count as data: those that verify's settings name, corrections first."""
    model_name: ModelName = "stepcoder"
    """Name in the MLflow model registry."""


@dataclass(frozen=True)
class NewData:
    """What the check found."""

    new: bool
    problems_digest: str
    since: str
    """Newest registered version; empty when there is none."""


def check(config: NewDataConfig) -> NewData:
    """Compares the data's digest with that of the last registration, promoted or not.

    A version that was not promoted has seen its data too: training on the same again would end at the same gate. So
    has an earlier version that was registered again, as a policy from the cache is.

    Raises:
        DataError: a file is missing.
        StepCoderError: an object store or the registry does not answer.
    """
    digest = problems_digest(config.problems, config.companions)
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
        log.warning("the outcome is not in MLflow", error=first_line(error))
    return found


def newest(model_name: str) -> tuple[str, str]:
    """Number of a model's newest version, and problems' digest of its last registration; empty texts without one.

    Raises:
        StepCoderError: the registry cannot be read.
    """
    with model_registry.reporting():
        client = tracking.client()
        last = model_registry.newest(client, model_name)
        if last is None:
            return "", ""
        return str(last.version), model_registry.model_tag(client, model_name, PROBLEMS_TAG)
