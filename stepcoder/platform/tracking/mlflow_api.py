"""How MLflow is reached, what names it allows, and how one of its runs is found again or made."""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from stepcoder.errors import StepCoderError
from stepcoder.platform.redaction import first_line, redacted

RUN_ID = "STEPCODER_RUN_ID"
RUN_ID_TAG = "stepcoder.run_id"
STEP_TAG = "stepcoder.step"
PIPELINE = "pipeline"
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000


def home() -> Path:
    """Where runs are kept on one machine: `$STEPCODER_HOME/runs`, else `runs` in the working folder."""
    return Path(os.environ.get("STEPCODER_HOME") or Path.cwd()).absolute() / "runs"


def tracking_uri() -> str:
    """The MLflow server of `MLFLOW_TRACKING_URI`, or a database file in `home()`.

    Credentials in a server's address move into `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, where MLflow
    looks for them too: errors and logs quote addresses.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return uri
    given, _, host = parts.netloc.rpartition("@")
    user, _, password = given.partition(":")
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(user))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(password))
    os.environ["MLFLOW_TRACKING_URI"] = clean = urlunsplit(parts._replace(netloc=host))
    return clean


def client() -> Any:
    """An MLflow client that gives up within seconds when its server does not answer.

    Raises:
        StepCoderError: the store cannot be opened.
    """
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0"),
        # Clusters without a way out would only collect its failed connections.
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        # Standard output belongs to a step's result.
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # It logs every retry; the failure is logged once.
        return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
    except Exception as error:
        raise StepCoderError(f"MLflow at {redacted(uri)} cannot be opened: {first_line(error)}") from error


def experiment_name() -> str:
    """The experiment that runs go to: `$MLFLOW_EXPERIMENT_NAME`, else `stepcoder`."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "stepcoder"


def experiment_id(mlflow_client: Any, name: str | None = None) -> str:
    """The id of an experiment (default `experiment_name()`), created when it is missing."""
    name = name or experiment_name()
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


def parent_run(mlflow_client: Any, experiment: str, run_id: str | None = None) -> str | None:
    """The MLflow id of a pipeline's run, created when it is missing.

    Args:
        mlflow_client: From `client()`.
        experiment: From `experiment_id()`.
        run_id: The pipeline run; None for that of `STEPCODER_RUN_ID`.

    Returns:
        None outside a pipeline.
    """
    run_id = os.environ.get(RUN_ID, "") if run_id is None else run_id
    if not run_id:
        return None
    run, _ = found_or_created(mlflow_client, experiment, {RUN_ID_TAG: run_id, STEP_TAG: PIPELINE}, name=run_id)
    return str(run.info.run_id)


def found_or_created(
    mlflow_client: Any, experiment: str, key: Mapping[str, str], *, name: str, tags: Mapping[str, str] | None = None
) -> tuple[Any, bool]:
    """The run that has all tags of `key`, and whether it was there before.

    Creating is not idempotent: an answer may be lost, and two processes may create at once. So a run is looked for
    before and after, and the oldest counts.

    Args:
        mlflow_client: From `client()`.
        experiment: From `experiment_id()`.
        key: Tags that name the run.
        name: Name of a new run.
        tags: Further tags of a new run.
    """
    from mlflow.exceptions import MlflowException

    made = None
    if not (found := runs_tagged(mlflow_client, experiment, key)):
        made = mlflow_client.create_run(experiment, tags={**(tags or {}), **key}, run_name=name)
        found = runs_tagged(mlflow_client, experiment, key) or [made]
    for other in found[1:]:
        if not other.data.metrics and not other.data.params:
            # Only for order: the oldest counts, and an account that may edit need not be one that may delete.
            with suppress(MlflowException):
                mlflow_client.delete_run(other.info.run_id)
    return found[0], made is None or found[0].info.run_id != made.info.run_id


def runs_tagged(
    mlflow_client: Any, experiment: str, key: Mapping[str, str], *, also: str = "", deleted: bool = False
) -> list[Any]:
    """Runs that have all these tags, the oldest first.

    Args:
        mlflow_client: From `client()`.
        experiment: From `experiment_id()`.
        key: Tags that name the runs.
        also: A further condition, in MLflow's language.
        deleted: Look among the deleted runs instead.
    """
    from mlflow.entities import ViewType

    # The filter's language has no escapes, but either kind of quotes.
    conditions = [f"tags.`{name}` = " + (f'"{value}"' if "'" in value else f"'{value}'") for name, value in key.items()]
    wanted = " and ".join([*conditions, also] if also else conditions)
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = mlflow_client.search_runs([experiment], wanted, run_view_type=view)
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def flatten(values: Mapping[str, Any], separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Pairs of joined name and leaf value of nested dictionaries, in order."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, leaf in flatten(value, separator):
                yield f"{name}{separator}{inner}", leaf
        else:
            yield str(name), value


def legal_name(name: str) -> str:
    """The name with everything replaced that MLflow does not allow: other characters, and what no path may be."""
    text = re.sub(r"[^\w\-./ ]", "_", name)[:250]
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return posixpath.join(*(re.sub(r"^\.\.", "__", part) for part in parts)) if parts else "_"


def legal_text(value: Any, limit: int) -> str:
    """The value as a text of at most `limit` characters, without secrets and what PostgreSQL does not take."""
    return redacted(str(value))[:limit].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
