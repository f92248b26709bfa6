"""The two kinds of failure that a user meets, and the exit status of each.

A message names what was wrong, where (file, line, record, field) and what to do.
"""


class StepCoderError(Exception):
    """A fault at run time: disk full, server gone, training diverged. Exit status 1."""

    exit_status = 1


class DataError(StepCoderError):
    """The input is at fault: usage, settings, files or records. Exit status 2."""

    exit_status = 2
