"""What a dataset says of itself: counts, source, settings, digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from stepcoder.problems import CallTest, CheckTest, Problem, conditionals
from stepcoder.problems.splits import Split
from stepcoder.verification.reasons import Rejection
from stepcoder.verification.static import has_constant_answer


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Source(_Part):
    """Where the records come from."""

    address: str
    format: str
    digest: str
    """SHA-256 of the file."""


class Conditionals(_Part):
    """`if`, `for` and `while` statements of the reference solutions."""

    total: int
    mean: float
    max: int
    problems_without: int


class SplitFacts(_Part):
    """Counts of one split, or of all accepted problems."""

    problems: int
    families: int
    """Different families; problems without one do not count."""
    tests: int
    encodings: dict[str, int]
    """Problems by the kind of their tests: `call`, `stdin`, or `check` where at least one test is a check."""
    checkers: dict[str, int]
    """Problems by the name of their checker."""
    constant_answers: int
    """Problems of which every test expects the same answer: a program that always gives it passes."""
    difficulties: dict[str, int]
    conditionals: Conditionals


class Leakage(_Part):
    """Line overlap of the judged solutions with one evaluation set."""

    lines: int
    """Different lines in the evaluation set's solutions."""
    leaked: int
    """Records with more than the threshold's share of their lines in it, rejected for it or not."""
    share: float
    """`leaked` as a share of the records that passed everything before."""


class Card(_Part):
    """The content of `card.json`. It holds no time, place or machine: the same records give the same card."""

    digest: str
    """SHA-256 over the three split files."""
    source: Source
    code_version: str
    settings: dict[str, Any]
    """The resolved settings, without those that cannot change the result."""
    records: int
    accepted: int
    rejected: int
    reasons: dict[str, int]
    """Rejected records by reason, the most frequent first."""
    corrections: dict[str, int]
    """Corrections applied, by action."""
    all: SplitFacts
    splits: dict[Split, SplitFacts]
    leakage: dict[str, Leakage]
    """By evaluation set."""

    @property
    def counts(self) -> dict[str, int]:
        """Records accepted and rejected, and problems by split."""
        splits = {str(name): part.problems for name, part in self.splits.items()}
        return {"accepted": self.accepted, "rejected": self.rejected, **splits}


def facts(problems: Sequence[Problem]) -> SplitFacts:
    """Counts of some problems."""
    counts = [len(conditionals(problem.solution)) for problem in problems]
    return SplitFacts(
        problems=len(problems),
        families=len({problem.family for problem in problems if problem.family is not None}),
        tests=sum(len(problem.tests) for problem in problems),
        encodings=_sorted(Counter(map(_encoding, problems))),
        checkers=_sorted(Counter(problem.checker.name for problem in problems)),
        constant_answers=sum(map(has_constant_answer, problems)),
        difficulties=_sorted(Counter(problem.difficulty or "unknown" for problem in problems)),
        conditionals=Conditionals(
            total=sum(counts),
            mean=round(sum(counts) / len(counts), 4) if counts else 0.0,
            max=max(counts, default=0),
            problems_without=counts.count(0),
        ),
    )


def reasons(rejections: Iterable[Rejection]) -> dict[str, int]:
    """Rejections by reason, the most frequent first."""
    counts = Counter(rejection.reason.value for rejection in rejections)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _encoding(problem: Problem) -> str:
    if any(isinstance(test, CheckTest) for test in problem.tests):
        return "check"
    return "call" if any(isinstance(test, CallTest) for test in problem.tests) else "stdin"


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
