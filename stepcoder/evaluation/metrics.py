"""The content of `metrics.json`: what was measured, on what, and how far the figures can be trusted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from pydantic import Field

from stepcoder.bootstrap import Estimate, paired_difference
from stepcoder.bootstrap import mean_estimates as bootstrap_means
from stepcoder.evaluation.pass_at_k import pass_at_ks
from stepcoder.evaluation.samples import GROUPS, JudgedSample
from stepcoder.problems.problem import Problem
from stepcoder.problems.record import Record

MODELS: Final = ("base", "sft", "candidate", "champion")
"""The names under which models are measured, in the order of reports."""

PAIRS: Final = (("candidate", "champion"), ("candidate", "sft"), ("candidate", "base"), ("sft", "base"))
"""Which model is compared with which, where both are measured."""

UNRATED: Final = "unrated"
"""The group of problems without a difficulty."""

_DIFFICULTIES: Final = ("introductory", "interview", "competition", UNRATED)


class Figure(Record):
    """A mean over problems with its bootstrap interval."""

    value: float
    low: float
    high: float
    se: float
    """Standard error."""
    problems: int
    """Problems that the figure rests on."""

    @classmethod
    def of(cls, estimate: Estimate | None) -> Figure | None:
        """Takes over an estimate; None stays None."""
        if estimate is None:
            return None
        return cls(
            value=estimate.value, low=estimate.low, high=estimate.high, se=estimate.se, problems=estimate.problems
        )


class GroupMetrics(Record):
    """One model on one group of problems: all, or those of one difficulty."""

    problems: int
    samples: int
    """Judged samples; those that the judge itself failed on are left out."""
    pass_at_k: dict[str, Figure | None]
    """By k; None where no problem has k judged samples."""
    outcomes: dict[str, int]
    """Judged samples by outcome."""

    def share(self, outcome: str) -> float:
        """Share of the judged samples with this outcome; 0 when there are none."""
        return self.outcomes.get(outcome, 0) / self.samples if self.samples else 0.0


class ModelMetrics(Record):
    """Everything that was measured of one model."""

    address: str
    digest: str
    """Digest of its checkpoint folder."""
    reused: bool
    """Whether an earlier measurement under the same digests and settings was read instead of sampling again."""
    counts: dict[str, tuple[int, int]]
    """By problem: samples that pass, samples that were judged."""
    overall: GroupMetrics
    by_difficulty: dict[str, GroupMetrics]
    infra_errors: int
    """Samples that the judge itself failed on: neither pass nor failure."""
    unasked: int
    """Problems whose starter code does not fit into the prompt: no sample was drawn, and they count as not passed."""
    mean_tokens: float
    """Mean number of sampled tokens a sample."""
    truncated: float
    """Share of the samples that ended at the limit of new tokens."""


class Comparison(Record):
    """Difference in pass@1 of two models on the same problems."""

    model: str
    than: str
    difference: Figure | None
    """`model` minus `than`, with the interval of a paired bootstrap; None where no problem was judged for both."""


class DatasetFacts(Record):
    """What the models were measured on."""

    address: str
    digest: str
    """Digest of the dataset folder."""
    problems_digest: str
    """Digest of the problems that were used: equal for two evaluations on the same ones."""
    problems: int
    by_difficulty: dict[str, int]


class Metrics(Record):
    """The whole file."""

    format: int = 1
    code_version: str
    dataset: DatasetFacts
    samples: int
    """Samples a problem."""
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    resamples: int
    confidence: float
    models: dict[str, ModelMetrics]
    comparisons: list[Comparison] = Field(default_factory=list)

    def compared(self, model: str, than: str) -> Figure | None:
        """The difference of two models, or None where it was not measured."""
        for comparison in self.comparisons:
            if (comparison.model, comparison.than) == (model, than):
                return comparison.difference
        return None


def difficulty_of(problem: Problem) -> str:
    """The group a problem is reported in."""
    return problem.difficulty or UNRATED


def count_by_difficulty(problems: Sequence[Problem]) -> dict[str, int]:
    """Number of problems of every difficulty that occurs, in fixed order."""
    found = Counter(difficulty_of(problem) for problem in problems)
    return {name: found[name] for name in _DIFFICULTIES if found[name]}


def measure(
    problems: Sequence[Problem],
    samples: Sequence[JudgedSample],
    ks: Sequence[int],
    *,
    per_problem: int,
    address: str,
    digest: str,
    reused: bool,
    resamples: int,
    confidence: float,
    seed: int,
) -> ModelMetrics:
    """Sums up one model's samples.

    Args:
        problems: what was asked, in the order of the counts.
        samples: the model's samples of these problems.
        ks: sizes for pass@k.
        per_problem: samples a problem; a problem without any sample counts as this many failures.
        address: where the model lies.
        digest: digest of its checkpoint.
        reused: whether the samples are those of an earlier measurement.
        resamples: see `stepcoder.bootstrap.mean_estimates`.
        confidence: see there.
        seed: see there.
    """
    by_problem: dict[str, list[JudgedSample]] = defaultdict(list)
    for sample in samples:
        by_problem[sample.problem_id].append(sample)

    def count(problem: Problem) -> tuple[int, int]:
        drawn = by_problem[problem.id]
        judged = [sample for sample in drawn if sample.judged]
        return (sum(sample.verdict.passed for sample in judged), len(judged)) if drawn else (0, per_problem)

    def group(chosen: Sequence[Problem]) -> GroupMetrics:
        judged = [sample for problem in chosen for sample in by_problem[problem.id] if sample.judged]
        outcomes = Counter(sample.group for sample in judged)
        values = pass_at_ks([count(problem) for problem in chosen], ks)
        estimates = bootstrap_means(values, resamples=resamples, confidence=confidence, seed=seed)
        return GroupMetrics(
            problems=len(chosen),
            samples=len(judged),
            pass_at_k={str(k): Figure.of(estimate) for k, estimate in zip(ks, estimates, strict=True)},
            outcomes={name: outcomes[name] for name in GROUPS},
        )

    return ModelMetrics(
        address=address,
        digest=digest,
        reused=reused,
        counts={problem.id: count(problem) for problem in problems},
        overall=group(problems),
        by_difficulty={
            name: group([problem for problem in problems if difficulty_of(problem) == name])
            for name in count_by_difficulty(problems)
        },
        infra_errors=sum(not sample.judged for sample in samples),
        unasked=sum(not by_problem[problem.id] for problem in problems),
        mean_tokens=sum(sample.tokens for sample in samples) / max(len(samples), 1),
        truncated=sum(sample.truncated for sample in samples) / max(len(samples), 1),
    )


def compare(models: Mapping[str, ModelMetrics], *, resamples: int, confidence: float, seed: int) -> list[Comparison]:
    """Compares the models of `PAIRS` that are there, problem by problem."""
    comparisons = []
    for model, than in PAIRS:
        if model in models and than in models:
            estimate = paired_difference(
                pass_at_ks(list(models[model].counts.values()), [1])[:, 0],
                pass_at_ks(list(models[than].counts.values()), [1])[:, 0],
                resamples=resamples,
                confidence=confidence,
                seed=seed,
            )
            comparisons.append(Comparison(model=model, than=than, difference=Figure.of(estimate)))
    return comparisons


def flat(metrics: Metrics) -> dict[str, float]:
    """The figures for the tracker: `candidate_pass_at_1`, `candidate_share_timeout`, `candidate_minus_champion`."""
    figures: dict[str, float] = {}
    for name, model in metrics.models.items():
        for k, figure in model.overall.pass_at_k.items():
            if figure is not None:
                figures[f"{name}_pass_at_{k}"] = figure.value
                figures[f"{name}_pass_at_{k}_se"] = figure.se
        figures |= {f"{name}_share_{outcome}": model.overall.share(outcome) for outcome in GROUPS}
        figures[f"{name}_infra_errors"] = float(model.infra_errors)
    for comparison in metrics.comparisons:
        if comparison.difference is not None:
            figures[f"{comparison.model}_minus_{comparison.than}"] = comparison.difference.value
            figures[f"{comparison.model}_minus_{comparison.than}_low"] = comparison.difference.low
    return {name: value for name, value in figures.items() if np.isfinite(value)}
