"""What the training steps left in their policy folders: curves, curriculum levels and pass@1 before and after.

The report draws them. A folder or file that is missing is left out and said, never a reason to fail: the measurement
is worth more than its pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stepcoder.errors import StepCoderError
from stepcoder.platform import storage


@dataclass(frozen=True)
class Validation:
    """pass@1 on validation problems."""

    pass_at_1: float
    problems: int
    samples: int
    """Samples of all problems together."""

    @property
    def se_at_most(self) -> float:
        """An upper bound of the standard error.

        Values in [0, 1] with mean p have at most the variance p(1 - p), reached when all samples of a problem agree.
        """
        return math.sqrt(max(self.pass_at_1 * (1.0 - self.pass_at_1), 0.0) / max(self.problems, 1))


@dataclass(frozen=True)
class Stage:
    """One training step: SFT, or one PPO stage."""

    name: str
    """How the report calls it: `SFT`, `PPO 1`."""
    kind: str
    """`sft` or `ppo`."""
    rows: tuple[dict[str, Any], ...] = ()
    """One dictionary a step, in the order of the steps."""
    before: Validation | None = None
    after: Validation | None = None


@dataclass(frozen=True)
class History:
    """The training steps in order, and what could not be read."""

    stages: tuple[Stage, ...] = ()
    missing: tuple[str, ...] = field(default=())
    """One sentence for each thing that is left out of the report."""


def read_history(addresses: Sequence[str]) -> History:
    """Reads `summary.json` and `metrics.jsonl` of every policy folder, in the order of training.

    Only these two files are fetched, not the weights beside them.
    """
    stages = []
    missing: list[str] = []
    for position, address in enumerate(addresses):
        base = address.rstrip("/")
        rows = _rows(f"{base}/metrics.jsonl", missing)
        summary = _summary(f"{base}/summary.json", missing)
        kind = str(summary.get("step_name", "sft" if position == 0 and rows and "loss" in rows[0] else "ppo"))
        number = summary.get("stage")
        name = "SFT" if kind == "sft" else f"{kind.upper()} {number if isinstance(number, int) else position}"
        validation = summary.get("validation")
        validation = validation if isinstance(validation, dict) else {}
        before = _validation(validation.get("before"))
        after = _validation(validation.get("after"))
        if rows or before or after:
            stages.append(Stage(name, kind, tuple(rows), before, after))
    return History(tuple(stages), tuple(missing))


def _rows(address: str, missing: list[str]) -> list[dict[str, Any]]:
    text = _text(address, missing)
    by_step: dict[tuple[float, float], dict[str, Any]] = {}
    unread = 0
    for line in (text or "").splitlines():
        try:
            row = json.loads(line)
            # A step may have several lines, such as its losses and a validation; a resumed one writes some again,
            # and the last value counts.
            by_step.setdefault((float(row.get("stage", 0)), float(row["step"])), {}).update(row)
        except (ValueError, TypeError, KeyError, AttributeError):
            unread += 1
    if unread:
        missing.append(f"{address}: {unread} lines cannot be read")
    return [by_step[key] for key in sorted(by_step)]


def _summary(address: str, missing: list[str]) -> dict[str, Any]:
    text = _text(address, missing)
    if text is None:
        return {}
    try:
        summary = json.loads(text)
    except ValueError:
        summary = None
    if not isinstance(summary, dict):
        missing.append(f"{address}: is not a JSON object")
        return {}
    return summary


def _validation(data: Any) -> Validation | None:
    try:
        found = Validation(float(data["pass_at_1"]), int(data["problems"]), int(data["samples"]))
    except (TypeError, KeyError, ValueError):
        return None
    return found if math.isfinite(found.pass_at_1) else None


def _text(address: str, missing: list[str]) -> str | None:
    try:
        return storage.fetch(address).read_text(encoding="utf-8", errors="replace")
    except (StepCoderError, OSError) as error:
        missing.append(str(error) if address in str(error) else f"{address}: {error}")
        return None
