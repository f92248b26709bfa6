"""Puts a declared schedule into force on Kubeflow: `python -m pipelines.schedule weekly.yaml`.

The file is the truth: what is in force is made to be what it says. Kubeflow cannot change a recurring run, so a change
makes a new one, paused; pauses the old; starts the new; and removes the old. Killed anywhere in between, the same
command goes on: never are two of them active.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.declared import read_schedule
from pipelines.kubeflow import ENVIRONMENT, connect, say
from pipelines.recurring import Change, apply, differences, remove, warn_of_account
from stepcoder.errors import StepCoderError

CHANGES = 3
"""Exit status of `--diff` when something would change."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        The exit status: 0; 1 for a fault at run time; 2 for bad input; 3 when `--diff` finds something to change;
        130 when interrupted.
    """
    given = _parser().parse_args(arguments)
    try:
        schedule = read_schedule(given.file)
        kubeflow = connect(given.host, given.namespace)
        if given.delete:
            remove(kubeflow, schedule.name)
            return 0
        warn_of_account(kubeflow, schedule)
        changes = differences(kubeflow, schedule)
        _show(schedule.name, changes, "would change" if given.diff else "changes")
        if given.diff:
            return CHANGES if changes else 0
        if changes:
            apply(kubeflow, schedule)
        return 0
    except StepCoderError as error:
        for line in str(error).splitlines():
            say(f"error: {line}")
        return error.exit_status
    except KeyboardInterrupt:
        say("\ninterrupted; the same command goes on where it stopped")
        return 130


def _show(name: str, changes: Sequence[Change], verb: str) -> None:
    print(f"{name}: {verb if changes else 'is in force as declared'}", flush=True)
    for change in changes:
        print(f"  {change.what}: {change.before} -> {change.after}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.schedule",
        description=(__doc__ or "").splitlines()[0],
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the schedule, such as pipelines/examples/weekly.yaml")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true", help="show what would change and end: exit status 3 if anything")
    what.add_argument("--delete", action="store_true", help="end the schedule; its runs and their results stay")
    parser.add_argument("--host", help="address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT)")
    parser.add_argument("--namespace", help="your profile's, where Kubeflow has many users")
    return parser


if __name__ == "__main__":
    sys.exit(main())
