"""What the records say by themselves and among each other, before and after reference solutions run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stepcoder.problems import Entry, Problem
from stepcoder.problems.leakage import overlap
from stepcoder.problems.readers import content_hash
from stepcoder.problems.splits import normalised
from stepcoder.verification import static
from stepcoder.verification.config import VerifyConfig
from stepcoder.verification.corrections import Correction, Drop, Outputs, correct
from stepcoder.verification.reasons import Reason, Rejection, of_faults


@dataclass(frozen=True)
class Case:
    """A record on its way: with a problem until something rejects it."""

    entry: Entry
    problem: Problem | None
    rejection: Rejection | None = None

    def reject(self, rejection: Rejection) -> Case:
        """The record, rejected."""
        return replace(self, problem=None, rejection=rejection)


def screen(entries: Sequence[Entry], corrections: Mapping[str, Correction], config: VerifyConfig) -> list[Case]:
    """Applies corrections, and everything that can be told without running code."""
    cases = [_first_look(entry, corrections.get(entry.id)) for entry in entries]
    cases = _single_ids(cases)
    checked = []
    for case in cases:
        rejection = static.check(case.problem, config) if case.problem else None
        checked.append(case.reject(rejection) if rejection else case)
    return checked


def without_leaks(cases: Sequence[Case], pools: Mapping[str, frozenset[str]], threshold: float) -> list[Case]:
    """Rejects records with more than `threshold` of their solution's lines in one of the evaluation sets."""
    result = []
    for case in cases:
        shares = {name: overlap(case.problem.solution, pool) for name, pool in pools.items()} if case.problem else {}
        worst = max(shares, key=lambda name: shares[name], default="")
        if worst and shares[worst] > threshold:
            detail = f"{shares[worst]:.0%} of the solution's lines stand in solutions of {worst}"
            case = case.reject(Rejection(Reason.LEAKAGE, detail))
        result.append(case)
    return result


def without_duplicates(cases: Sequence[Case]) -> list[Case]:
    """Of the records with the same statement, keeps the one whose id comes first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.problem:
            groups[normalised(case.problem.statement)].append(case.problem.id)
    result = []
    for case in cases:
        kept = min(groups[normalised(case.problem.statement)]) if case.problem else None
        if case.problem and kept is not None and case.problem.id != kept:
            case = case.reject(Rejection(Reason.DUPLICATE, f"same statement as {kept!r}, which is kept"))
        result.append(case)
    return result


def _first_look(entry: Entry, correction: Correction | None) -> Case:
    case = Case(entry, entry.problem)
    if isinstance(correction, Drop):
        return case.reject(Rejection(Reason.DROPPED, correction.why))
    if entry.problem is None:
        return case.reject(of_faults(entry.faults))
    if isinstance(correction, Outputs):
        return replace(case, problem=correct(entry.problem, correction))
    return case


def _single_ids(cases: Sequence[Case]) -> list[Case]:
    """One record an id: of equal records one stays, of different ones none."""
    contents: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        contents[case.entry.id].add(content_hash(case.entry.record))
    seen: set[str] = set()
    result = []
    for case in cases:
        identity = case.entry.id
        if case.problem and len(contents[identity]) > 1:
            detail = f"{len(contents[identity])} different records have the id {identity!r}; give each its own"
            case = case.reject(Rejection(Reason.DUPLICATE_ID, detail))
        elif case.problem and identity in seen:
            case = case.reject(Rejection(Reason.DUPLICATE, f"equal to another record {identity!r}, which is kept"))
        elif case.problem:
            seen.add(identity)
        result.append(case)
    return result
