"""Several ranks of one step on this machine, by torchrun's agent.

The ranks are processes `python -m stepcoder.platform.launch STEP FILE`. The first one that fails leaves its error in a
file and ends; the agent ends the others, and the error is raised again in the process that launched them, so there is
one report of one fault, as with a single process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import ranks
from stepcoder.platform.config import StepConfig
from stepcoder.platform.entry import running
from stepcoder.platform.logs import get_logger

LAUNCHED = "STEPCODER_LAUNCHED"
"""Set in every rank, to the process that launched it."""

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_CONSEQUENCE_SECONDS = 3.0
"""How long a rank waits with an unexpected error: that of a rank whose partner was killed is only a consequence."""

log = get_logger("launch")


def launched() -> bool:
    """Whether this process is a rank already: of `launch`, of torchrun or of a cluster's training operator."""
    return LAUNCHED in os.environ or int(os.environ.get("WORLD_SIZE") or 1) > 1


def ranks_here(asked: int | None) -> int:
    """How many ranks a step has on this machine: as asked, else one for each GPU, at least one.

    Whoever started this process with torchrun's variables has decided already: one.
    """
    if asked is not None:
        return asked
    if "WORLD_SIZE" in os.environ:
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def launch(step: str, config: StepConfig, processes: int) -> None:
    """Runs a step in several processes that train together, and waits for their end.

    Args:
        step: the step's name on the command line, for example `ppo`, or `module:Config:function`.
        config: the step's settings, the same for every rank.
        processes: how many ranks.

    Raises:
        StepCoderError: what the first rank that failed raised (a DataError if it was one), or which rank was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent tells of a failing rank at length, and knows less of it than we do.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        # The machine's own name may not resolve in a container.
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=10,
    )
    # A temporary folder is readable by its user alone: settings may hold addresses with passwords.
    with tempfile.TemporaryDirectory(prefix="stepcoder-launch-") as scratch:
        file = Path(scratch) / "config.json"
        file.write_text(config.model_dump_json())
        fault = Path(scratch) / "fault.json"
        os.environ.update({LAUNCHED: str(os.getpid()), ranks.FAULT: str(fault)})
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        log.info("ranks start", processes=processes)
        try:
            elastic_launch(settings, sys.executable)("-u", "-m", "stepcoder.platform.launch", step, str(file))
        except ChildFailedError as error:
            raise _raised(fault, dict(error.failures)) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + error.sigval) from None
        finally:
            del os.environ[LAUNCHED], os.environ[ranks.FAULT]
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():  # The agent leaves its own behind.
                    signal.signal(number, handler)


def _raised(file: Path, failures: dict[int, Any]) -> StepCoderError:
    """The error of the rank that failed first."""
    if file.exists():
        fault = json.loads(file.read_text())
        kind = DataError if fault["exit_status"] == DataError.exit_status else StepCoderError
        return kind(f"rank {fault['rank']}: {fault['error']}")
    # SIGTERM is how the agent ends the others.
    for number, failure in sorted(failures.items()):
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
            return StepCoderError(f"rank {number} was killed by {name}{hint}")
    first = min(failures, key=lambda number: failures[number].timestamp)
    return StepCoderError(f"rank {first} ended with status {failures[first].exitcode}; the log above says why")


def main(step: str, file: Path) -> None:
    """A rank: runs the step with the settings in the file."""
    _die_with_parent()
    # Each rank would take all cores.
    cores = len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
    # By name alone: the platform may not import the steps.
    module_name, config, function = (
        step.split(":") if ":" in step else importlib.import_module("stepcoder.cli").STEPS[step][:3]
    )
    with running(step):
        try:
            module = importlib.import_module(module_name)
            getattr(module, function)(getattr(module, config).model_validate_json(file.read_text()))
        except Exception as error:
            raise SystemExit(_leave(error)) from error
    sys.stdout.flush()


def _leave(error: Exception) -> int:
    """Leaves the error for the process that launched us, unless another rank was first; returns the exit status."""
    known = isinstance(error, StepCoderError)
    if not known:
        time.sleep(_CONSEQUENCE_SECONDS)  # If another rank was killed, the agent ends us here.
    status = getattr(error, "exit_status", 1)
    first = ranks.leave_fault(str(error) if known else f"{type(error).__name__}: {error}", status)
    if first and not known:
        traceback.print_exception(error, file=sys.stderr)
    return status


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[LAUNCHED]):  # It died before we asked.
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
