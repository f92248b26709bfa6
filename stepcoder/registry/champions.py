"""The champion's alias: which version has it, how it moves, and what is recorded when it does.

Each move leaves tags on the version that gets the alias, named after the alias: `stepcoder.previous_champion` (the
version before, to go back to), `stepcoder.champion_since`, `…_by` and `…_because`. A version that a person took the
alias from has `stepcoder.champion_rolled_back` with the version that came instead; it is not promoted again by itself.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from stepcoder.errors import StepCoderError
from stepcoder.platform import tracking
from stepcoder.platform.redaction import first_line

TAG: Final = "stepcoder."
"""Prefix of the tags of a version and of a registered model."""
_ABSENT: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow answers for an unknown model, version or alias."""


def champion(model_name: str, alias: str = "champion") -> str | None:
    """The address of the version that carries the alias; None when there is none.

    Raises:
        StepCoderError: MLflow cannot be reached.
    """
    with reporting():
        found = holder(tracking.client(), model_name, alias)
    return None if found is None else str(found.source)


def holder(client: Any, model_name: str, alias: str) -> Any:
    """The version that carries the alias; None when there is none."""
    return _unless_absent(lambda: client.get_model_version_by_alias(model_name, alias))


def version_of(client: Any, model_name: str, number: str) -> Any:
    """A version by its number; None when there is none."""
    return _unless_absent(lambda: client.get_model_version(model_name, number))


def previous(version: Any, alias: str) -> str | None:
    """The number of the version that had the alias before this one got it."""
    number = version.tags.get(f"{TAG}previous_{alias}")
    return None if number is None else str(number)


def rolled_back(version: Any, alias: str) -> str | None:
    """The number of the version that a person chose instead of this one."""
    number = version.tags.get(f"{TAG}{alias}_rolled_back")
    return str(number) if number else None


def move(client: Any, model_name: str, alias: str, version: Any, *, before: str | None, by: str, why: str) -> None:
    """Gives the alias to a version, and records on it when, by whom and why.

    The record comes first: after a crash between the two the alias stands where it stood.

    Args:
        client: From `tracking.client()`.
        model_name: Name in the registry.
        alias: What moves.
        version: Who gets it.
        before: Number of the version to go back to from here; None leaves what is recorded.
        by: Person or run.
        why: In a sentence.
    """
    tags = {
        f"{TAG}{alias}_since": datetime.now(UTC).isoformat(timespec="seconds"),
        f"{TAG}{alias}_by": by,
        f"{TAG}{alias}_because": why[:5000] or "not said",
    }
    if before is not None:
        tags[f"{TAG}previous_{alias}"] = before
    for name, text in tags.items():
        client.set_model_version_tag(model_name, version.version, name, text)
    client.set_registered_model_alias(model_name, alias, version.version)


def mark_rolled_back(client: Any, model_name: str, alias: str, number: str, instead: str) -> None:
    """Keeps a version from being promoted by itself."""
    client.set_model_version_tag(model_name, number, f"{TAG}{alias}_rolled_back", instead)


def pardon(client: Any, model_name: str, alias: str, number: str) -> None:
    """Lets a version that was rolled back be promoted again."""
    client.delete_model_version_tag(model_name, number, f"{TAG}{alias}_rolled_back")


def person() -> str:
    """Who acts: the MLflow user, else the user of this machine."""
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # A container may run as any number.
        return f"uid {os.getuid()}"


@contextmanager
def reporting() -> Iterator[None]:
    """Turns MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise StepCoderError(
            f"MLflow's model registry: {first_line(error)}; check MLFLOW_TRACKING_URI and the account's rights"
        ) from error


def _unless_absent(ask: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise
