"""The promotion gate: does the candidate beat the champion, or is the difference chance?"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from stepcoder.bootstrap import Estimate, paired_difference
from stepcoder.platform import storage
from stepcoder.platform.config import StepConfig, write_resolved
from stepcoder.platform.logs import get_logger
from stepcoder.registry.measured import Evaluation, Model, read_evaluation

log = get_logger("promotion-gate")

DECISION_NAME: Final = "decision.json"


class GateConfig(StepConfig):
    """When a candidate is promoted."""

    evaluation: str
    """Folder from evaluate with `metrics.json`: a path or an `s3://` address."""
    out: str | None = None
    """Where `decision.json` goes: a folder or an `s3://` address. Empty: it is not written."""
    margin: float = Field(0.0, ge=0, lt=1)
    """By how much the candidate must beat the champion in pass@1, as a share: 0.01 is one percentage point."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Share of the bootstrap inside the two-sided interval whose lower end must lie above the margin."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap resamples of the problems."""
    seed: int = Field(1, ge=0)
    """Seed of the bootstrap."""
    first: Literal["not_worse", "better", "never"] = "not_worse"
    """What makes a candidate the first champion: its pass@1 is not below that of the SFT policy (or the base model)
    it comes from, it is shown to be better by the same rule as against a champion, or nothing does."""
    max_unjudged: float = Field(0.05, ge=0, le=1)
    """Share of the problems that the judge may have failed on altogether before nothing is promoted."""


class Decision(BaseModel):
    """Whether the candidate is promoted, and everything that the decision rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    promote: bool
    why: str
    """One sentence for a person."""
    than: str | None = None
    """The model compared with: `champion`, else `sft` or `base`; None when there is none."""
    candidate_pass_at_1: float | None = None
    than_pass_at_1: float | None = None
    difference: float | None = None
    """pass@1 of the candidate minus that of the other model."""
    interval: tuple[float, float] | None = None
    """Paired bootstrap interval of the difference."""
    problems: int = 0
    """Problems that the difference rests on."""
    margin: float
    confidence: float
    candidate_digest: str
    champion_address: str | None = None
    """Where the champion lay that the candidate was measured against; None when there was none."""
    dataset_digest: str


def gate(config: GateConfig) -> Decision:
    """Promotes the candidate when the lower end of the paired interval lies above the margin, on problems enough.

    The pairs are the test problems: both models were measured on the same ones with the same settings. Without a
    champion there is nothing to beat, yet later candidates need something to be measured against; so the first
    candidate that solves anything becomes champion unless its training has made it worse than the policy it started
    from (`first`). A pass@1 that is not a number is never promoted.

    Raises:
        DataError: the evaluation is missing, malformed, contradicts itself, or has models on different problems.
        StepCoderError: an object store failed, or the disk is full.
    """
    decision = decide(read_evaluation(config.evaluation), config)
    if config.out is not None:
        with storage.staged(config.out) as folder:
            storage.write_text(folder / DECISION_NAME, decision.model_dump_json(indent=2) + "\n")
            write_resolved(config, folder)
    log.info("promoted" if decision.promote else "not promoted", why=decision.why)
    return decision


def decide(evaluation: Evaluation, config: GateConfig) -> Decision:
    """The decision itself, without reading or writing anything."""
    candidate = evaluation.candidate
    than = next((name for name in ("champion", "sft", "base") if name in evaluation.models), None)
    other = evaluation.models[than] if than is not None else None
    champion = evaluation.models.get("champion")
    problems = sorted(candidate.counts)
    ours = candidate.shares(problems)
    theirs = other.shares(problems) if other is not None else np.zeros_like(ours)
    difference = None
    if other is not None:
        difference = paired_difference(
            ours, theirs, resamples=config.resamples, confidence=config.confidence, seed=config.seed
        )
    unjudged = float(np.mean(~np.isfinite(ours - theirs)))
    differing = int(np.sum(np.abs(ours - theirs) > 0))  # a problem without a judgement is none
    promote, why = _judge(candidate, other, than, difference, unjudged, differing, config)
    return Decision(
        promote=promote,
        why=why,
        than=than,
        candidate_pass_at_1=_finite(candidate.pass_at_1),
        than_pass_at_1=None if other is None else _finite(other.pass_at_1),
        difference=None if difference is None else difference.value,
        interval=None if difference is None else (difference.low, difference.high),
        problems=int(np.isfinite(ours - theirs).sum()),
        margin=config.margin,
        confidence=config.confidence,
        candidate_digest=candidate.digest,
        champion_address=None if champion is None else champion.address,
        dataset_digest=evaluation.dataset.digest,
    )


def _judge(
    candidate: Model,
    other: Model | None,
    than: str | None,
    difference: Estimate | None,
    unjudged: float,
    differing: int,
    config: GateConfig,
) -> tuple[bool, str]:
    """Promotion and its reason; what forbids it comes first."""
    if not math.isfinite(candidate.pass_at_1):
        return False, "the candidate's pass@1 is not a number, so nothing speaks for it"
    if other is not None and not math.isfinite(other.pass_at_1):
        return False, f"pass@1 of the {than} model is not a number, so the candidate cannot be shown to be better"
    if unjudged > config.max_unjudged:
        return (
            False,
            f"the judge failed on {unjudged:.1%} of the problems, more than the {config.max_unjudged:.1%} allowed",
        )
    if than == "champion" and other is not None and other.digest == candidate.digest:
        return False, "the candidate is the champion itself: the same checkpoint"
    if than != "champion":
        return _judge_first(candidate, than, difference, differing, config)
    return _beats("the champion", difference, differing, config)


def _judge_first(
    candidate: Model, than: str | None, difference: Estimate | None, differing: int, config: GateConfig
) -> tuple[bool, str]:
    """The same where no champion was measured."""
    if config.first == "never":
        return False, "there is no champion, and the setting `first` lets no candidate become one by itself"
    if candidate.pass_at_1 <= 0.0:
        return False, "there is no champion, but the candidate solves nothing, so it does not become one"
    if difference is None:
        return True, f"there is no champion and nothing to compare with; pass@1 is {candidate.pass_at_1:.1%}"
    model = {"sft": "the SFT policy", "base": "the base model"}[str(than)]
    if config.first == "better":
        promote, why = _beats(model, difference, differing, config)
        return promote, f"there is no champion; {why}"
    if difference.value < 0.0:
        return False, f"there is no champion, but the candidate is below {model}: {_figures(difference, config)}"
    return True, f"there is no champion, and the candidate is not below {model}: {_figures(difference, config)}"


def _beats(model: str, difference: Estimate | None, differing: int, config: GateConfig) -> tuple[bool, str]:
    if difference is None:
        return False, f"no problem was judged for both the candidate and {model}"
    # Resampling a few problems gives too narrow an interval. Of n fair coins all fall alike with probability 2 / 2^n.
    least = math.ceil(math.log2(2 / (1 - config.confidence)))
    if differing < least:
        return False, (
            f"the candidate is not shown to beat {model}: they differ on {differing} problems, and with fewer than "
            f"{least} chance cannot be ruled out; {_figures(difference, config)}"
        )
    beyond = f" by more than {100 * config.margin:g} points" if config.margin else ""
    if difference.low > config.margin:
        return True, f"the candidate beats {model}{beyond}: {_figures(difference, config)}"
    return False, f"the candidate is not shown to beat {model}{beyond}: {_figures(difference, config)}"


def _figures(difference: Estimate, config: GateConfig) -> str:
    return (
        f"pass@1 differs by {100 * difference.value:+.1f} points, {config.confidence:.0%} interval "
        f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}, {difference.problems} problems"
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
