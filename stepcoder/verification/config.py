"""The settings of `verify`."""

from __future__ import annotations

from typing import Self, get_args

from pydantic import Field, field_validator, model_validator

from stepcoder.platform.config import StepConfig
from stepcoder.problems import Format
from stepcoder.sandbox import Limits
from stepcoder.sandbox.address import default_address


class VerifyConfig(StepConfig):
    """Finds out which records of a file can be trusted, and writes the others down with the reason."""

    problems: str
    """Address of the records: a path or `s3://`; JSON Lines or a JSON list, plain or gzipped."""
    format: Format
    """What the records look like."""
    out: str
    """Address of the dataset folder to write: a path or `s3://`. An earlier dataset there is replaced."""
    corrections: str | None = None
    """Address of a reviewer's corrections, JSON Lines: `{"id": …, "action": "drop", "why": …}`, or
    `{"id": …, "action": "outputs", "outputs": {"0": value}, "why": …}` with the expected value (standard output as a
    string, or the value to be returned; under the checker `any_of` a list of them) of some of the record's tests,
    counted from 0."""
    evaluation_sets: tuple[str, ...] = ()
    """Sets that training data must not leak from, each as `FORMAT=ADDRESS`."""
    leakage_threshold: float = Field(default=0.5, ge=0, le=1)
    """A record is rejected when more than this share of its solution's lines stands in an evaluation set; 1 only
    reports."""
    validation: float = Field(default=0.25, ge=0, lt=1)
    """Share of validation problems, 0 to 1."""
    test: float = Field(default=0.25, ge=0, lt=1)
    """Share of test problems, 0 to 1."""
    repeats: int = Field(default=3, ge=1)
    """Times that each reference solution runs on all its tests; different results are flaky."""
    max_chars: int | None = Field(default=None, ge=1)
    """Most characters of statement, starter and solution together; `None` for no limit."""
    reject_constant_answers: bool = False
    """Whether a record is rejected when every test expects the same answer, so that a program that always gives it
    passes. Records with a single test are among them; the card counts the accepted ones in any case."""
    cpu_seconds: float = Field(default=Limits.cpu_seconds, gt=0)
    """CPU seconds a test."""
    wall_seconds: float = Field(default=Limits.wall_seconds, gt=0)
    """Wall-clock seconds a test."""
    memory_mib: int = Field(default=Limits.memory_mib, gt=0)
    """MiB of memory a test."""
    output_bytes: int = Field(default=Limits.output_bytes, gt=0)
    """Bytes of standard output, or of a returned value, a test."""
    sandbox: str = Field(default_factory=default_address)
    """Where solutions run: `local`; `unsafe`, the same where the kernel cannot isolate; `docker`; or the address of a
    service: `http://HOST:PORT`, `https://HOST`, `http+unix:///PATH/TO/SOCKET`. Not given: `$STEPCODER_SANDBOX`,
    else `local`."""
    workers: int | None = Field(default=None, ge=1)
    """Programs that run at the same time; `None` for one a core. The result does not depend on it."""

    @field_validator("evaluation_sets")
    @classmethod
    def _formats(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        for item in sets:
            format, _, address = item.partition("=")
            if format not in get_args(Format) or not address:
                raise ValueError(f"must read FORMAT=ADDRESS, FORMAT one of {', '.join(get_args(Format))}, not {item!r}")
        return sets

    @model_validator(mode="after")
    def _room_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave a share for training")
        return self

    @property
    def limits(self) -> Limits:
        """What a solution may use for each test."""
        return Limits(
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            memory_mib=self.memory_mib,
            output_bytes=self.output_bytes,
        )
