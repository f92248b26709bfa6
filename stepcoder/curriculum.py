"""CCCS, the curriculum of code completion subtasks (paper section 3.2).

The model first completes the end of the reference solution, then more and more of it. Levels count down: level
`S - 1` leaves least to write, level 0 is generation from scratch.

Notation: `E` conditional statements in the reference solution, `S = max(1, ceil(sqrt(E)))` stages, stride
`s = ceil(E / S)`, `c` level, `rho` moving average of the pass rate.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stepcoder.errors import DataError
from stepcoder.problems import Problem, conditionals
from stepcoder.problems.code import signature_end
from stepcoder.problems.conditionals import KINDS, Kind


@dataclass(frozen=True)
class Progress:
    """Where one problem stands."""

    level: int
    """The level `c` that the next roll-outs start from."""
    pass_rate: float = 0.0
    """`rho`, the moving average of the share of roll-outs that pass at this level."""


Curriculum = dict[str, Progress]
"""Progress of every problem by its id."""


def stage_count(statements: int) -> int:
    """`S = max(1, ceil(sqrt(E)))`."""
    root = math.isqrt(statements)
    return max(1, root if root * root == statements else root + 1)


def stride(statements: int) -> int:
    """`s = ceil(E / S)`; 0 when there is no conditional statement."""
    return -(-statements // stage_count(statements))


def start_statement(statements: int, level: int) -> int | None:
    """Index of the conditional statement before which the model takes over, `s * c`; `None` means from scratch.

    Raises:
        ValueError: the level is outside `0 … S - 1`.
    """
    if not 0 <= level < stage_count(statements):
        raise ValueError(f"level {level} of a problem with {stage_count(statements)} levels")
    return stride(statements) * level if level else None


def opened_code(problem: Problem, level: int, kinds: Collection[Kind] = KINDS) -> str:
    """The code that the prompt already holds at this level: whole lines, ending in a newline.

    The starter code at level 0; above it the reference solution up to the line where the start statement begins. Where
    helpers stand first and that line is before the entry point's signature, the starter too: without the signature
    nobody could know what is asked for.
    """
    places = conditionals(problem.solution, kinds)
    start = start_statement(len(places), level)
    if start is None:
        return problem.starter
    cut = places[start].first_line - 1
    if cut < signature_end(problem.solution, problem.entry_point):
        return problem.starter
    lines = problem.solution.split("\n")[:cut]
    return "".join(line + "\n" for line in lines) or problem.starter


def ceiling(levels: int, stage: int, stages: int) -> int:
    """Highest level allowed in pipeline stage `stage` of `stages` (from 1): `floor((S - 1)(K - k) / (K - 1))`.

    A single stage has no ceiling; the last of several is from scratch for all.
    """
    if stages == 1:
        return levels - 1
    return (levels - 1) * (stages - stage) // (stages - 1)


def begin_stage(
    curriculum: Mapping[str, Progress],
    problems: Iterable[Problem],
    stage: int,
    stages: int,
    kinds: Collection[Kind] = KINDS,
) -> Curriculum:
    """The curriculum at the start of a pipeline stage.

    New problems start at level `S - 1`. A level above the stage's ceiling is lowered to it, and its `rho` starts anew.
    Problems that are no longer in the dataset are dropped.
    """
    begun: Curriculum = {}
    for problem in problems:
        levels = stage_count(len(conditionals(problem.solution, kinds)))
        now = curriculum.get(problem.id, Progress(levels - 1))
        highest = ceiling(levels, stage, stages)
        begun[problem.id] = now if now.level <= highest else Progress(highest)
    return begun


def advance(progress: Progress, passed: float, *, alpha: float, threshold: float) -> Progress:
    """One step of the moving average, and one level down when it exceeds the threshold.

    `rho <- (1 - alpha) * rho + alpha * passed`; when `rho > threshold`: `rho <- 0`, `c <- max(c - 1, 0)`.

    Args:
        progress: the problem's state before this training step.
        passed: share of the problem's roll-outs in this step with reward +1.
        alpha: weight of the newest step, in (0, 1].
        threshold: pass rate above which the problem advances.
    """
    rho = (1 - alpha) * progress.pass_rate + alpha * passed
    if rho > threshold:
        return Progress(max(progress.level - 1, 0))
    return replace(progress, pass_rate=rho)


def level_counts(curriculum: Mapping[str, Progress]) -> dict[int, int]:
    """Number of problems at each level, by level."""
    return dict(sorted(Counter(progress.level for progress in curriculum.values()).items()))


class _Row(BaseModel):
    """What `curriculum.json` holds of a problem."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    level: int = Field(ge=0)
    pass_rate: float = Field(ge=0, le=1)


_ROWS = TypeAdapter(dict[str, _Row])


def save(curriculum: Mapping[str, Progress], path: Path) -> None:
    """Writes `curriculum.json`: level and moving pass rate of every problem, sorted by id."""
    rows = {key: {"level": now.level, "pass_rate": now.pass_rate} for key, now in sorted(curriculum.items())}
    path.write_text(json.dumps(rows, indent=1) + "\n")


def load(path: Path) -> Curriculum:
    """Reads `curriculum.json`.

    Raises:
        DataError: the file is missing or malformed; the message names the file, and each problem and field at fault.
    """
    try:
        rows = _ROWS.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: no curriculum can be read: {error}") from error
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        told = [f"{path}: {'.'.join(map(str, item['loc'])) or 'curriculum'}: {item['msg']}" for item in faults]
        raise DataError("\n".join(told)) from error
    return {key: Progress(row.level, row.pass_rate) for key, row in rows.items()}
