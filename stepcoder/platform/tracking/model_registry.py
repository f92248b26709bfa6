"""The registered versions of a model, their names, tags and aliases, and errors of the registry in our words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from stepcoder.errors import StepCoderError
from stepcoder.platform.redaction import first_line, redacted
from stepcoder.platform.tracking.mlflow_api import tracking_uri

TAG: Final = "stepcoder."
"""Prefix of the tags of a version and of a registered model."""
DIGEST_TAG: Final = f"{TAG}policy_digest"
"""The checkpoint of a version, by content."""
PARENTS_TAG: Final = f"{TAG}parents"
"""Digests of what a version was made from: `name=digest`, joined by a comma and a space."""
PROBLEMS_TAG: Final = f"{TAG}problems_digest"
"""Of a registered model: the problems that its last registration was made from, be the version new or not."""
_ABSENT: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow answers for an unknown model, version or alias."""


def _not_reserved(alias: str) -> str:
    # MLflow sets neither, and answers `latest` with the newest version, so every candidate would pass for the champion.
    if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError("MLflow keeps `latest`, and `v` with a number, for itself; give another name")
    return alias


ModelName = Annotated[str, Field(pattern=r"""^[^\s./:'"`][^/:'"`]*$""", max_length=200)]
"""Name of a registered model: no path, and no quotes, because MLflow's filters know no escapes."""
Alias = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$", max_length=200), AfterValidator(_not_reserved)]
"""Name of an alias."""


def holder(client: Any, model_name: str, alias: str) -> Any:
    """The version that carries the alias; None when there is none."""
    return _unless_absent(lambda: client.get_model_version_by_alias(model_name, alias))


def version_of(client: Any, model_name: str, number: str) -> Any:
    """A version by its number; None when there is none."""
    return _unless_absent(lambda: client.get_model_version(model_name, number))


def newest(client: Any, model_name: str) -> Any:
    """The version with the highest number; None when there is none."""
    found = client.search_model_versions(f"name = '{model_name}'", order_by=["version_number DESC"])
    return max(found, key=lambda version: int(version.version), default=None)


def model_tag(client: Any, model_name: str, name: str) -> str:
    """A tag of a registered model; empty when it has none of this name."""
    return str(client.get_registered_model(model_name).tags.get(name, ""))


def set_model_tag(client: Any, model_name: str, name: str, text: str) -> None:
    """Writes a tag of a registered model."""
    _written(lambda: client.set_registered_model_tag(model_name, name, text))


def set_tag(client: Any, model_name: str, number: str, name: str, text: str) -> None:
    """Writes a tag of a version."""
    _written(lambda: client.set_model_version_tag(model_name, number, name, text))


def set_alias(client: Any, model_name: str, alias: str, number: str) -> None:
    """Gives an alias to a version."""
    _written(lambda: client.set_registered_model_alias(model_name, alias, number))


@contextmanager
def reporting() -> Iterator[None]:
    """Turns MLflow's errors into ours, without the password that its address may hold."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise StepCoderError(
            f"MLflow's model registry at {redacted(tracking_uri())}: {first_line(error)}; "
            "check MLFLOW_TRACKING_URI and the account's rights"
        ) from error


def _written(write: Callable[[], Any]) -> None:
    """Writes, and once more where the database refuses: MLflow looks, then inserts, so of two writers one is late."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        write()


def _unless_absent(ask: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise
