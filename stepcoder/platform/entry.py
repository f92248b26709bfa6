"""What surrounds a step's function wherever it is started from: logs, signals, and how a fault is told."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stepcoder.errors import StepCoderError
from stepcoder.platform import logs
from stepcoder.platform.certificates import trust_private_authority
from stepcoder.platform.redaction import first_line, redacted
from stepcoder.platform.tracking import pipeline_run

FAILED = "failed"
"""The event of a log line that says why a step failed; one line a fault."""
_NEW_OBJECTS = 10_000
"""Objects made before Python looks for cycles among them; its own 700 are for programs with fewer."""


@contextmanager
def running(step: str) -> Iterator[None]:
    """Surrounds the work of one step: sets up log and certificates, and turns a fault into log lines and a status.

    A fault of ours is told without a traceback, any other one with it. Inside a pipeline the fault is written to the
    pipeline's MLflow run too, where `notify` finds it. SIGTERM ends the step as ctrl-C does, so that nothing
    half-written is left.

    Raises:
        SystemExit: with status 2 for bad input, 1 for a fault at run time, 130 or 143 when interrupted.
    """
    logs.configure()
    log = logs.get_logger(step)
    spare_the_collector()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        trust_private_authority()
        yield
    except StepCoderError as error:
        _tell(log, step, error)
        raise SystemExit(error.exit_status) from error
    except KeyboardInterrupt as error:
        log.error("interrupted")
        raise SystemExit(130) from error
    except Exception as error:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        _tell(log, step, error)
        raise SystemExit(1) from error


def spare_the_collector() -> None:
    """Training libraries are half a million lasting objects; a search takes a second at import, two at the end."""
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
    atexit.register(gc.freeze)


def _tell(log: logs.Log, step: str, error: Exception) -> None:
    text = redacted(str(error) if isinstance(error, StepCoderError) else f"{type(error).__name__}: {error}")
    for line in text.splitlines() or [type(error).__name__]:
        log.error(FAILED, error=line, exit_status=getattr(error, "exit_status", 1))
    try:
        pipeline_run.report_failure(step, text)
    except Exception as trouble:  # The step's own fault is what counts, and it is in the log.
        log.debug("the failure is not in MLflow", error=first_line(trouble))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
