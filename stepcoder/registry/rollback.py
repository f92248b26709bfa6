"""Takes a champion back: the alias returns to the version that it won over, or goes to one that is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import tracking
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.platform.tracking import model_registry
from stepcoder.platform.tracking.model_registry import Alias, ModelName
from stepcoder.prerequisites import models
from stepcoder.registry import champions

log = get_logger("rollback")


class RollbackConfig(StepConfig):
    """Which champion to take back, and what comes instead."""

    model_name: ModelName = "stepcoder"
    """Name in the MLflow model registry."""
    to: str | None = Field(None, pattern=r"^[1-9]\d*$")
    """Number of the version that becomes champion. Empty: the one that the champion won over."""
    champion_alias: Alias = "champion"
    """Alias of the champion."""
    why: str = ""
    """The reason, which is recorded."""
    by: str = ""
    """Who decided it, which is recorded. Empty: `$MLFLOW_TRACKING_USERNAME`, else this machine's user."""
    check_weights: bool = True
    """Whether to refuse a version whose checkpoint is not whole at its address, or cannot be looked for from here."""

    @field_validator("to", mode="before")
    @classmethod
    def _number_or_none(cls, value: object) -> object:
        return None if value == "" else str(value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Rollback:
    """What was done."""

    model_name: str
    alias: str
    version: str
    """Version that is champion now."""
    source: str
    """Address of its weights."""
    instead_of: str | None
    """Version that was champion until now; None when none was."""
    by: str
    why: str
    undo: str
    """Command that takes this back; empty when there was no champion."""


def rollback(config: RollbackConfig) -> Rollback:
    """Moves the alias and records who did it, when and why.

    The version that loses the alias is not promoted again by a later run of the pipeline until a person names it
    with `to`, nor does a rollback without `to` go back to it. The same command with `to` undoes a rollback.

    Raises:
        DataError: there is no such version, nothing to go back to, it was taken back itself, or its weights are gone.
        StepCoderError: MLflow or the object store cannot be reached, or someone else moved the alias at this moment.
    """
    name, alias = config.model_name, config.champion_alias
    with model_registry.reporting():
        client = tracking.client()
        current = model_registry.holder(client, name, alias)
        target = _target(client, config, current)
        if config.check_weights:
            _check_weights(config, target)
        number, now = str(target.version), None if current is None else str(current.version)
        by, why = config.by or champions.person(), config.why or "rolled back by hand"
        # What the account may not write to the target has to be refused before the champion is marked.
        if champions.rolled_back(target, alias):
            champions.pardon(client, name, alias, number)
        if now is not None and champions.rolled_back(target, alias) != now:  # else this undoes a rollback
            champions.mark_rolled_back(client, name, alias, now, number)
        # The version keeps what it once won over, so that the next rollback goes one further and not back to here.
        champions.move(client, name, alias, target, before=None, by=by, why=why)
        after = model_registry.holder(client, name, alias)
    if after is None or str(after.version) != number:
        raise StepCoderError(
            f"{name}: somebody else moved the alias {alias} at the same moment, to version "
            f"{None if after is None else after.version}; look at it and call this again"
        )
    log.info("rolled back", model=name, alias=alias, version=number, instead_of=now or "none", by=by, why=why)
    undo = "" if now is None else f"stepcoder rollback --model-name {name} --to {now}"
    if undo and alias != "champion":
        undo += f" --champion-alias {alias}"
    return Rollback(name, alias, number, str(target.source), now, by, why, undo)


def _target(client: Any, config: RollbackConfig, current: Any) -> Any:
    name, alias = config.model_name, config.champion_alias
    number = config.to
    if number is None:
        if current is None:
            raise DataError(f"{name}: no version has the alias {alias}; {_others(client, name)}")
        number = champions.previous(current, alias)
        if number is None:
            raise DataError(
                f"{name}: version {current.version} won over no earlier {alias}, so there is none to go back to; "
                f"{_others(client, name)}"
            )
    if current is not None and str(current.version) == number:
        raise DataError(f"{name}: version {number} is the {alias} already")
    target = model_registry.version_of(client, name, number)
    if target is None:
        raise DataError(f"{name}: there is no version {number}, it may have been deleted; {_others(client, name)}")
    if config.to is None and champions.rolled_back(target, alias):
        raise DataError(
            f"{name}: version {number}, the {alias} before, was taken back by hand; {_others(client, name)}"
        )
    return target


def _others(client: Any, name: str) -> str:
    found = sorted((int(version.version) for version in client.search_model_versions(f"name = '{name}'")), reverse=True)
    return f"versions are {', '.join(map(str, found[:20]))}: name one with --to" if found else "there are no versions"


def _check_weights(config: RollbackConfig, target: Any) -> None:
    where = f"{config.model_name}: version {target.version}"
    anyway = "--check-weights False moves the alias all the same"
    try:
        models.check_files(str(target.source))
    except DataError as error:
        what = "; ".join(str(error).splitlines())
        raise DataError(
            f"{where}: its weights are not at {target.source} any more, so the next run could not measure against it "
            f"({what}); name another version with --to, or put them back. {anyway}"
        ) from error
    except StepCoderError as error:
        raise DataError(f"{where}: cannot look for its weights at {target.source}: {error}; {anyway}") from error
