"""A problem and its tests, readers for public formats, conditional statements, splits and leakage.

Nothing here runs a program or imports torch.
"""

from stepcoder.problems.checker import AnyOf, Checker, CheckerProgram, Exact, Float, Unordered
from stepcoder.problems.conditionals import Conditional, conditionals
from stepcoder.problems.files import dump_problems, load_problems
from stepcoder.problems.problem import CallTest, CheckTest, Difficulty, Problem, StdinTest, Test
from stepcoder.problems.readers import Entry, Format, read_entries, read_problems
from stepcoder.problems.splits import Split, split_of

__all__ = [
    "AnyOf",
    "CallTest",
    "CheckTest",
    "Checker",
    "CheckerProgram",
    "Conditional",
    "Difficulty",
    "Entry",
    "Exact",
    "Float",
    "Format",
    "Problem",
    "Split",
    "StdinTest",
    "Test",
    "Unordered",
    "conditionals",
    "dump_problems",
    "load_problems",
    "read_entries",
    "read_problems",
    "split_of",
]
