"""From a file of records to a dataset of problems that can be trusted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepcoder import __version__
from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.platform.logs import Progress, get_logger
from stepcoder.problems import Entry, Problem, read_entries, split_of
from stepcoder.problems.leakage import line_pool, overlap
from stepcoder.problems.readers import content_hash
from stepcoder.problems.splits import SPLITS, Split
from stepcoder.sandbox import open_sandbox
from stepcoder.verification import blind, dataset, judging, probing
from stepcoder.verification import card as cards
from stepcoder.verification.config import VerifyConfig
from stepcoder.verification.corrections import Correction, read_corrections
from stepcoder.verification.dataset import Rejected
from stepcoder.verification.journal import Journal
from stepcoder.verification.reasons import Rejection
from stepcoder.verification.screening import Case, screen, without_duplicates, without_leaks

log = get_logger("verify")

SHOWN_REJECTIONS = 10
"""Rejections that the log quotes; all of them are in `rejected.jsonl`."""


def verify(config: VerifyConfig) -> cards.Card:
    """Checks every record, and writes the dataset folder.

    1. read the records, apply corrections, check what needs no run; 2. try imports, preambles and checkers, then run
    each reference solution on all its tests, several times; 3. reject leaks and repeated statements among those that
    passed; 4. split, write, publish.

    A killed run goes on where it was when it is started again with the same `out`: judgements lie in
    `OUT.partial/` (for an object store, in the machine's folder for temporary files) until the dataset is published.

    Raises:
        DataError: the file, the corrections or an evaluation set cannot be read, or no problem is left for training.
        StepCoderError: the sandbox failed for good, or the output cannot be written.
    """
    dataset.check_target(config.out)
    source = storage.fetch(config.problems)
    entries = list(read_entries(source, config.format))
    corrections = _corrections(config, entries)
    pools = {item: _pool(item) for item in config.evaluation_sets}

    cases = screen(entries, corrections, config)
    journal = Journal(_journal_folder(config.out))
    try:
        cases = _run_all(cases, journal, config)
    except BaseException:
        if len(journal):
            log.warning("what was judged is kept, the same command goes on from there", judged=len(journal))
        raise
    finally:
        journal.close()
    leakage = _leakage(cases, pools, config.leakage_threshold)
    cases = without_duplicates(without_leaks(cases, pools, config.leakage_threshold))

    accepted = sorted((case.problem for case in cases if case.problem), key=lambda problem: problem.id)
    splits: dict[Split, list[Problem]] = {name: [] for name in SPLITS}
    for problem in accepted:
        splits[split_of(problem, config.validation, config.test)].append(problem)
    rejected = _rejected(cases)
    card = cards.Card(
        digest=dataset.digest_of(splits),
        source=cards.Source(address=config.problems, format=config.format, digest=storage.digest(source)),
        code_version=__version__,
        settings=config.model_dump(mode="json", exclude={"out", "workers", "sandbox"}),
        records=len(cases),
        accepted=len(accepted),
        rejected=len(rejected),
        reasons=cards.reasons(item.rejection for item in rejected),
        corrections=dict(sorted(Counter(item.action for item in corrections.values()).items())),
        all=cards.facts(accepted),
        splits={name: cards.facts(splits[name]) for name in SPLITS},
        leakage=leakage,
    )
    if not splits["train"]:
        journal.remove()
        raise DataError(_nothing_left(config, card, rejected))
    dataset.write(config.out, splits, rejected, card)
    journal.remove()
    _tell(card, rejected)
    return card


def _corrections(config: VerifyConfig, entries: Sequence[Entry]) -> Mapping[str, Correction]:
    if config.corrections is None:
        return {}
    return read_corrections(storage.fetch(config.corrections), entries)


def _pool(item: str) -> frozenset[str]:
    """The solution lines of an evaluation set given as `FORMAT=ADDRESS`."""
    format, _, address = item.partition("=")
    entries = list(read_entries(storage.fetch(address), format))  # type: ignore[arg-type] # the config checked it
    problems = [entry.problem for entry in entries if entry.problem]
    if not problems:
        raise DataError(f"{address}: no record of this evaluation set can be read as {format}: {entries[0].faults[0]}")
    if len(problems) < len(entries):
        log.warning("evaluation set has faulty records", set=item, left_out=len(entries) - len(problems))
    return line_pool(problem.solution for problem in problems)


def _journal_folder(out: str) -> Path:
    if storage.is_remote(out):
        return Path(tempfile.gettempdir()) / f"stepcoder-verify-{content_hash(out)[:16]}.partial"
    target = Path(out)
    return target.parent / f"{target.name}.partial"


def _run_all(cases: Sequence[Case], journal: Journal, config: VerifyConfig) -> list[Case]:
    """Runs what the journal does not know yet, and rejects what failed."""
    problems = [case.problem for case in cases if case.problem]
    keys = {problem.id: _key(problem, config) for problem in problems}
    todo = {keys[problem.id]: problem for problem in problems if keys[problem.id] not in journal}
    unfit: dict[str, Rejection] = {}
    if problems:
        with open_sandbox(config.sandbox, config.workers) as sandbox:
            unfit = probing.unfit(problems, sandbox, config.limits)
            fit = [problem for problem in problems if problem.id not in unfit]
            unfit |= blind.credulous(fit, sandbox, config.limits)
            runnable = [problem for problem in todo.values() if problem.id not in unfit]
            rejected = 0
            bar = Progress(range(len(runnable)), "judging reference solutions")
            with bar:
                for problem, judgement in judging.judge(runnable, sandbox, config.limits, config.repeats):
                    journal.add(keys[problem.id], judgement)
                    rejected += judgement is not None
                    bar.advance(rejected=rejected)
    result = []
    for case in cases:
        if case.problem:
            identity = case.problem.id
            judgement = unfit[identity] if identity in unfit else journal[keys[identity]]
            case = case.reject(judgement) if judgement else case
        result.append(case)
    return result


def _key(problem: Problem, config: VerifyConfig) -> str:
    """A hash of everything that a judgement depends on."""
    judged = problem.model_dump(mode="json", include={"preamble", "solution", "entry_point", "tests", "checker"})
    limits = config.model_dump(include={"cpu_seconds", "wall_seconds", "memory_mib", "output_bytes", "repeats"})
    return content_hash([judged, limits, __version__])


def _leakage(cases: Sequence[Case], pools: Mapping[str, frozenset[str]], threshold: float) -> dict[str, cards.Leakage]:
    solutions = [case.problem.solution for case in cases if case.problem]
    found = {}
    for name, pool in pools.items():
        leaked = sum(overlap(solution, pool) > threshold for solution in solutions)
        share = round(leaked / len(solutions), 6) if solutions else 0.0
        found[name] = cards.Leakage(lines=len(pool), leaked=leaked, share=share)
    return found


def _rejected(cases: Sequence[Case]) -> list[Rejected]:
    rows = [
        Rejected(case.entry.id, case.entry.source, case.entry.where, case.rejection, case.entry.record)
        for case in cases
        if case.rejection is not None
    ]
    return sorted(rows, key=lambda row: (row.id, row.source, row.line()))


def _nothing_left(config: VerifyConfig, card: cards.Card, rejected: Sequence[Rejected]) -> str:
    if card.accepted:
        return (
            f"{config.problems}: {card.accepted} of {card.records} records are accepted, but none of them falls into "
            "the train split; give more records, or smaller `validation` and `test` shares"
        )
    shown = "\n".join(
        f"{row.where}: {row.id}: {row.rejection.reason}: {row.rejection.detail}" for row in rejected[:SHOWN_REJECTIONS]
    )
    more = f"\n… and {len(rejected) - SHOWN_REJECTIONS} more" if len(rejected) > SHOWN_REJECTIONS else ""
    counts = ", ".join(f"{name} {count}" for name, count in card.reasons.items())
    return f"{config.problems}: none of {card.records} records is accepted ({counts})\n{shown}{more}"


def _tell(card: cards.Card, rejected: Sequence[Rejected]) -> None:
    for row in rejected[:SHOWN_REJECTIONS]:
        reason, detail = row.rejection
        log.warning("rejected", place=row.where, id=row.id, reason=reason.value, detail=detail)
    if len(rejected) > SHOWN_REJECTIONS:
        log.warning("more rejected, see rejected.jsonl", records=len(rejected) - SHOWN_REJECTIONS)
    if card.all.constant_answers:
        what = "a program that always gives one answer passes some problems; `reject_constant_answers` leaves them out"
        log.warning(what, problems=card.all.constant_answers)
    for name in SPLITS:
        if not card.splits[name].problems:
            log.warning("a split is empty", split=name)
    log.info(
        "verified",
        records=card.records,
        accepted=card.accepted,
        rejected=card.rejected,
        **{name: card.splits[name].problems for name in SPLITS},
        **{f"rejected_{name}": count for name, count in card.reasons.items()},
    )
