"""Checks that run one after another, each within its time, and what all of them found as one error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import SECRET_VARIABLES, first_line, redacted

log = get_logger("resolve-inputs")

SECONDS: Final = 75.0
"""How long one thing outside may take to answer: longer than a client tries by itself, whose error tells more."""


@dataclass(frozen=True)
class Check:
    """One thing to try."""

    what: str
    """Parameter or setting that it is about, as the user knows it."""
    run: Callable[[], Any]
    """Raises when something is wrong; what it returns is kept."""
    seconds: float | None = SECONDS
    """Time that it may take; None where the work depends on the data, and no server is asked."""
    mend: str = ""
    """What to look at when no fault of the input is found but something does not answer."""


@dataclass(frozen=True)
class Fault:
    """What one check found."""

    text: str
    bad_input: bool
    """Whether the input is at fault, rather than something that may be well again later."""


def run_all(checks: Iterable[Check]) -> tuple[dict[str, Any], list[Fault]]:
    """Runs all checks, whatever the ones before found.

    Returns:
        By the checks' names what they returned, and all faults in order.
    """
    results: dict[str, Any] = {}
    faults: list[Fault] = []
    for check in checks:
        try:
            results[check.what] = _within(check)
        except StepCoderError as error:
            faults += _faults(check, str(error), isinstance(error, DataError))
        except Exception as error:  # Whatever a library raises: it must not hide what the other checks find.
            faults += _faults(check, f"{type(error).__name__}: {first_line(error)}", False)
    return results, faults


def raise_all(faults: Sequence[Fault]) -> None:
    """Raises one error with all faults, if there are any.

    Raises:
        DataError: at least one is a fault of the input.
        StepCoderError: all of them are faults of something that may be well again later.
    """
    if faults:
        kind = DataError if any(fault.bad_input for fault in faults) else StepCoderError
        raise kind("\n".join(fault.text for fault in faults))


def in_kubeflow() -> bool:
    """Whether this is a step's pod of Kubeflow. A notebook's pod, where a run of one machine may be, is none."""
    return "KFP_POD_NAME" in os.environ


def named(*variables: str) -> str:
    """Environment variables by the place where they are set: on a cluster the run's secret or the config map."""
    if not in_kubeflow():
        return f"{', '.join(variables)} in the environment"
    places = {
        "the run's Secret": [name for name in variables if name in SECRET_VARIABLES],
        "the ConfigMap stepcoder": [name for name in variables if name not in SECRET_VARIABLES],
    }
    return " and ".join(f"{', '.join(names)} in {place}" for place, names in places.items() if names)


def _within(check: Check) -> Any:
    """The check's result; a daemon thread is left behind where something never answers."""
    if check.seconds is None:
        return check.run()
    outcome: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(check.run())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name=f"check-{check.what}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if thread.is_alive():
        raise StepCoderError(f"did not answer within {check.seconds:.0f} s")
    if raised:
        raise raised[0]
    return outcome[0]


def _faults(check: Check, text: str, bad_input: bool) -> list[Fault]:
    mend = f"; see {check.mend}" if check.mend and not bad_input else ""
    return [Fault(redacted(f"{check.what}: {line}{mend}"), bad_input) for line in text.splitlines() or ["fails"]]
