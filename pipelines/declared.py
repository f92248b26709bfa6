"""A schedule as its file declares it, with the pipeline that it runs."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from pipelines.parameters import Compiled, read_compiled, read_declared, resolve
from pipelines.submit import EXPERIMENT, SERVICE_ACCOUNT
from stepcoder.platform import storage
from stepcoder.platform.config import StepConfig, parse


class Declared(StepConfig):
    """What a schedule's file holds."""

    name: str = Field(min_length=1)
    """Name of the recurring run; no two of one name are ever active."""
    pipeline: str
    """Compiled pipeline; a path from the file's folder."""
    cron: str | None = None
    """Six fields: second, minute, hour, day of month, month, day of week, in the time zone of Kubeflow's controller."""
    interval_seconds: int | None = Field(default=None, ge=60)
    """In place of cron: seconds from the start of one run to the next."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The pipeline's inputs by name."""
    experiment: str = EXPERIMENT
    """Experiment of the runs; made if there is none."""
    service_account: str = SERVICE_ACCOUNT
    """Service account of the pods."""
    cache: bool = True
    """Whether steps may take earlier results."""
    paused: bool = False
    """Whether the schedule rests."""

    @field_validator("cron")
    @classmethod
    def _six_fields(cls, cron: str | None) -> str | None:
        if cron is not None and not cron.startswith("@") and len(cron.split()) != 6:
            raise ValueError(
                "must have six fields, seconds first, for example '0 0 3 * * 1'; given five, Kubeflow would take the "
                "minutes for seconds"
            )
        return cron

    @model_validator(mode="after")
    def _one_trigger(self) -> Declared:
        if (self.cron is None) == (self.interval_seconds is None):
            raise ValueError("needs either cron or interval_seconds")
        return self


@dataclass(frozen=True)
class Schedule:
    """A declared schedule with its pipeline, checked against each other."""

    declared: Declared
    compiled: Compiled
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the recurring run."""
        return self.declared.name

    @property
    def version(self) -> str:
        """Name of the pipeline's version: the same content has the same one."""
        return f"sha256-{storage.text_digest(json.dumps(self.content, sort_keys=True))[:16]}"

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The pipeline as it is uploaded."""
        return self.compiled.body(cache=self.declared.cache)

    @property
    def trigger(self) -> str:
        """When it runs."""
        return self.declared.cron or f"every {self.declared.interval_seconds} s"

    def facts(self) -> dict[str, Any]:
        """All that a change of needs a new recurring run."""
        return {
            "pipeline": self.compiled.name,
            "version": self.version,
            "when": self.trigger,
            "experiment": self.declared.experiment,
            "service account": self.declared.service_account,
            **{f"parameters.{name}": value for name, value in sorted(self.parameters.items())},
        }

    @property
    def mark(self) -> str:
        """What a recurring run's description ends with; it tells what it was made from."""
        return storage.text_digest(json.dumps(self.facts(), sort_keys=True))[:16]


def read_schedule(path: Path) -> Schedule:
    """Reads and checks a schedule's file and its pipeline.

    Raises:
        DataError: lists every fault.
    """
    declared = parse(Declared, read_declared(path), where=str(path))
    compiled = read_compiled(path.parent / declared.pipeline)
    return Schedule(declared, compiled, resolve(compiled, declared.parameters, where=f"{path}: parameters"))
