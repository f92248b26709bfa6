"""The champion's alias: which version has it, how it moves, and what is recorded when it does.

Each move leaves tags on the version that gets the alias, named after the alias: `stepcoder.champion_since`, `…_by` and
`…_because`; a promotion also `stepcoder.previous_champion` (the version it won over, to go back to). A version that a
person took the alias from has `stepcoder.champion_rolled_back` with the version that came instead, until a person names
it again; by itself it is neither promoted nor gone back to.
"""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from typing import Any

from stepcoder.platform.tracking import model_registry
from stepcoder.platform.tracking.model_registry import TAG


def previous(version: Any, alias: str) -> str | None:
    """The number of the version that had the alias when this one was promoted."""
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
        model_registry.set_tag(client, model_name, version.version, name, text)
    model_registry.set_alias(client, model_name, alias, version.version)


def mark_rolled_back(client: Any, model_name: str, alias: str, number: str, instead: str) -> None:
    """Keeps a version from being promoted by itself."""
    model_registry.set_tag(client, model_name, number, f"{TAG}{alias}_rolled_back", instead)


def pardon(client: Any, model_name: str, alias: str, number: str) -> None:
    """Lets a version that was rolled back be promoted again."""
    # Emptied: to delete a tag, MLflow wants more rights than to write one.
    model_registry.set_tag(client, model_name, number, f"{TAG}{alias}_rolled_back", "")


def person() -> str:
    """Who acts: the MLflow user, else the user of this machine."""
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # A container may run as any number.
        return f"uid {os.getuid()}"
