"""The end of a pipeline run, told whatever happened: one log line, the run's status in MLflow, and a webhook."""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import urlsplit

from stepcoder.errors import DataError
from stepcoder.platform import tracking, webhook
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import first_line, redacted
from stepcoder.platform.tracking import pipeline_run
from stepcoder.prerequisites.checks import named

log = get_logger("notify")

URL_VARIABLE: Final = "STEPCODER_NOTIFY_URL"
UI_VARIABLE: Final = "STEPCODER_KUBEFLOW_URL"
ERROR_CHARACTERS: Final = 600
"""Of an error, in the message that is sent; the log and MLflow have all of it."""
UNKNOWN: Final = "UNKNOWN"
_MLFLOW_STATUS: Final = {"SUCCEEDED": "FINISHED", "CANCELLED": "KILLED"}
_STATES: Final = {
    **dict.fromkeys(("SUCCEEDED", "COMPLETE", "CACHED"), "SUCCEEDED"),
    **dict.fromkeys(("CANCELLED", "CANCELED"), "CANCELLED"),
    "FAILED": "FAILED",
}
"""What a state means. Kubeflow's metadata store, where 2.16 looks, has names of its own; and it says RUNNING of nested
pipelines that have ended, so any other state tells nothing."""
_REACHED_THE_END: Final = {"version", "outcome"}
"""Of what the steps report: a run writes one of these last, when it registers its model or has nothing to do."""
_SLACK: Final = ("hooks.slack.com", "hooks.slack-gov.com")
_TITLES: Final = {"error": "error", "outcome": "outcome", "pass_at_1": "pass@1", "gate": "gate", "version": "version"}


class NotifyConfig(StepConfig):
    """How a pipeline run ended. Who is told is in the environment: `STEPCODER_NOTIFY_URL`."""

    status: str
    """Final state as Kubeflow names it, `SUCCEEDED`, `FAILED` or `CANCELLED`; of any other one MLflow tells more."""
    pipeline: str = "stepcoder"
    """Name of the pipeline, for the message."""
    run: str = ""
    """Kubeflow's resource name of the run, for the message."""
    error: str = ""
    """What Kubeflow says about the failure; the failed step's own words, if MLflow has them, come first."""


def notify(config: NotifyConfig) -> str:
    """Logs the run's end, closes its MLflow run, and posts it to the webhook if there is one.

    Never fails: a run that succeeded must not be lost because nobody could be told.

    Returns:
        The message.
    """
    values = _values(config)
    (log.info if values["status"] == "SUCCEEDED" else log.error)("run ended", **values)
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url:
        try:
            webhook.post(url, document(url, values))
            log.info("notification sent")
        except Exception as error:  # Nothing here may fail the run.
            log.warning("notification not sent", why=redacted(str(error)), mend=named(URL_VARIABLE))
    return " ".join(f"{key}={value}" for key, value in values.items())


def check_url() -> None:
    """Checks the form of the webhook's address, if there is one; nothing is sent.

    Raises:
        DataError: it cannot be posted to; the message does not hold it.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url:
        try:
            webhook.check_form(url)
        except DataError as error:
            raise DataError(f"{URL_VARIABLE}: {error}; mend {named(URL_VARIABLE)}") from error


def document(url: str, values: dict[str, str]) -> dict[str, Any]:
    """What is posted: a text for Slack; every other host gets the values too.

    Args:
        url: where to; only its host counts.
        values: name to text.
    """
    text = _text(values)
    if urlsplit(url).hostname in _SLACK:
        # Slack reads these three as marks of its own.
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    return {"text": text, **values}


def _values(config: NotifyConfig) -> dict[str, str]:
    """Everything that is known of the run's end, without secrets."""
    status, found = _close_in_mlflow(_STATES.get(config.status.upper(), UNKNOWN))
    values = {"pipeline": config.pipeline, "status": status, "run": config.run, "link": _kubeflow_link()}
    if status == "FAILED":
        values |= {"failed_step": "unknown", "error": config.error or "see the failed step's log"}
    elif status == UNKNOWN:
        values["error"] = f"Kubeflow says {config.status or 'nothing'} of a run that has ended; see the run's page"
    values |= found
    return {key: redacted(value) for key, value in values.items() if value}


def _close_in_mlflow(status: str) -> tuple[str, dict[str, str]]:
    """Closes the run in MLflow; how it ended, and what the steps have written there, as far as MLflow answers."""
    found: dict[str, str] = {}
    try:
        found |= pipeline_run.reported_outcome()
        if status == UNKNOWN and os.environ.get(tracking.RUN_ID):
            status = "SUCCEEDED" if _REACHED_THE_END & found.keys() else "FAILED"
        if status not in _MLFLOW_STATUS:
            step, error = pipeline_run.reported_failure()
            found = ({"failed_step": step, "error": error} if step else {}) | found
        run = pipeline_run.finish(_MLFLOW_STATUS.get(status, "FAILED"))
        if run is not None:
            found |= {"mlflow_run": run, "mlflow_link": pipeline_run.link()}
    except Exception as error:  # Whatever MLflow raises.
        log.warning("the run's end is not in MLflow", error=first_line(error))
    return status, found


def _kubeflow_link() -> str:
    """The run's page, where the address of Kubeflow Pipelines' pages is known."""
    ui, run = os.environ.get(UI_VARIABLE, "").rstrip("/"), os.environ.get(tracking.RUN_ID, "")
    return f"{ui}/#/runs/details/{run}" if ui and run else ""


def _text(values: dict[str, str]) -> str:
    """The message for people: what ended how, then a line for each thing that there is to say."""
    lines = [f"{values['pipeline']}: {values['status']}"]
    if "failed_step" in values:
        lines[0] += f" at {values['failed_step']}"
    for key, title in _TITLES.items():
        if key in values:
            value = values[key]
            lines.append(f"{title}: {value if len(value) <= ERROR_CHARACTERS else value[:ERROR_CHARACTERS] + ' …'}")
    lines += [values[key] for key in ("link", "mlflow_link") if key in values]
    if not {"link", "mlflow_link"} & values.keys() and "run" in values:
        lines.append(f"run: {values['run']}")
    return "\n".join(lines)
