"""Line overlap of solutions with an evaluation set (paper section 4: leakage check)."""

from __future__ import annotations

from collections.abc import Iterable


def solution_lines(source: str) -> list[str]:
    """The lines of a program that say something: stripped, single spaces, without blank and comment lines."""
    lines = (" ".join(line.split()) for line in source.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def line_pool(sources: Iterable[str]) -> frozenset[str]:
    """All lines of an evaluation set's solutions."""
    return frozenset(line for source in sources for line in solution_lines(source))


def overlap(source: str, pool: frozenset[str]) -> float:
    """Share of a program's lines that stand in the pool; 0 for a program without lines."""
    lines = solution_lines(source)
    return sum(line in pool for line in lines) / len(lines) if lines else 0.0
