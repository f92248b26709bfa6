"""Which split a problem belongs to: frozen by what the problem is, whatever else is in the dataset."""

from __future__ import annotations

import hashlib
from typing import Literal

from stepcoder.problems.problem import Problem

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(problem: Problem, validation: float = 0.25, test: float = 0.25) -> Split:
    """The split of a problem, by a hash of its family or else of its statement and starter code.

    Adding, removing or reordering other problems changes nothing, and neither does a new id or solution. With another
    share only problems at the border move.

    Args:
        problem: Families go to one split as a whole.
        validation: Share of validation problems, 0 to 1.
        test: Share of test problems, 0 to 1.

    Raises:
        ValueError: a share is negative, or both leave no room for training.
    """
    if validation < 0 or test < 0 or validation + test > 1:
        raise ValueError(f"shares validation={validation} and test={test} must be 0 or more, together 1 at most")
    place = _place(split_key(problem))
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def split_key(problem: Problem) -> str:
    """What the split is decided by."""
    if problem.family is not None:
        return f"family\0{problem.family}"
    return f"problem\0{normalised(problem.statement)}\0{normalised(problem.starter)}"


def normalised(text: str) -> str:
    """Text without differences that a reader would not see: case and white space."""
    return " ".join(text.split()).casefold()


def _place(key: str) -> float:
    """A place in [0, 1) from the first 48 bits of the hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
