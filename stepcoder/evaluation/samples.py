"""A judged sample as it lies in `samples.jsonl`, and the outcomes that a reader is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, ValidationError

from stepcoder.errors import DataError
from stepcoder.problems.record import Record
from stepcoder.sandbox.job import Outcome, Verdict

if TYPE_CHECKING:
    # The class lives beside the sampling, which needs torch; what is written here does not.
    from stepcoder.rollouts import Sample

GROUPS: Final = ("pass", "wrong_answer", "runtime_error", "timeout", "compile_error", "other")
"""The outcomes that reports tell apart. Memory, output limit and security stops are `other`."""

_GROUP: Final = {
    Outcome.PASS: "pass",
    Outcome.WRONG_ANSWER: "wrong_answer",
    Outcome.RUNTIME_ERROR: "runtime_error",
    Outcome.TIMEOUT: "timeout",
    Outcome.COMPILE_ERROR: "compile_error",
}


class JudgedSample(Record):
    """One program that a model wrote for a test problem, and what became of it."""

    problem_id: str
    index: int = Field(ge=0)
    """Number of the sample among those of its problem, from 0."""
    opened: str
    """The code that the model was given to continue; `program` starts with it."""
    completion: str
    """Everything that the model wrote, what follows the closing fence included."""
    program: str
    """What was judged."""
    verdict: Verdict
    tokens: int = Field(ge=0)
    """Number of sampled tokens."""
    truncated: bool
    """Whether sampling ended at the limit of new tokens rather than by the model."""

    @classmethod
    def of(cls, sample: Sample) -> JudgedSample:
        """Takes over a sample; text that UTF-8 cannot hold (lone surrogates) becomes question marks."""
        verdict = sample.verdict
        tests = tuple(
            replace(
                test,
                exception=None if test.exception is None else _writable(test.exception),
                stdout_tail=_writable(test.stdout_tail),
                detail=_writable(test.detail),
            )
            for test in verdict.tests
        )
        return cls(
            problem_id=sample.problem_id,
            index=sample.index,
            opened=_writable(sample.opened),
            completion=_writable(sample.completion),
            program=_writable(sample.program),
            verdict=replace(verdict, tests=tests),
            tokens=sample.tokens,
            truncated=sample.truncated,
        )

    @property
    def judged(self) -> bool:
        """Whether the verdict says something about the program: a fault of the judge is neither pass nor failure."""
        return self.verdict.judged

    @property
    def group(self) -> str:
        """Which of `GROUPS` the outcome belongs to."""
        return _GROUP.get(self.verdict.outcome, "other")


def write_samples(
    path: Path, samples: Iterable[tuple[dict[str, str], JudgedSample]], head: dict[str, Any] | None = None
) -> None:
    """Writes samples as JSON Lines.

    Args:
        path: the file.
        samples: each after what goes first into its line, for example the name of its model.
        head: a first line of its own.
    """
    with path.open("w", encoding="utf-8") as stream:
        if head is not None:
            stream.write(json.dumps(head) + "\n")
        for extra, sample in samples:
            stream.write(json.dumps({**extra, **sample.model_dump(mode="json")}, ensure_ascii=False) + "\n")


def read_samples(path: Path, skip_lines: int = 0) -> Iterator[JudgedSample]:
    """Reads samples that `write_samples` wrote without anything before them in their lines.

    Args:
        path: the file.
        skip_lines: lines at its start that are not samples.

    Raises:
        DataError: a line is not a sample.
    """
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if number > skip_lines:
                try:
                    yield JudgedSample.model_validate_json(line)
                except ValidationError as error:
                    reason = error.errors(include_url=False)[0]["msg"]
                    raise DataError(f"{path}:{number}: not a judged sample: {reason}") from error


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
