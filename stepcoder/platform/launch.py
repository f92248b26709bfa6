"""Several ranks of one step on this machine, alone or together with others, by torchrun's agent.

The ranks are processes `python -m stepcoder.platform.launch STEP FILE`. The first one that fails leaves its error in a
file and ends; the agent ends the others, and the error is raised again in the process that launched them, so there is
one report of one fault, as with a single process.

Without a file, `python -m stepcoder.platform.launch STEP` is one machine of several: it takes the settings from
`STEPCODER_STEP_CONFIG` and its place among the machines from the variables of Kubeflow Trainer's torch runtime.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import ranks
from stepcoder.platform.config import StepConfig
from stepcoder.platform.entry import FAILED, running
from stepcoder.platform.logs import get_logger
from stepcoder.platform.nodes import ALONE, Nodes, Watch

LAUNCHED = "STEPCODER_LAUNCHED"
"""Set in every rank, to the process that launched it."""
CONFIG = "STEPCODER_STEP_CONFIG"
"""Settings of the step as JSON, for a machine of several."""

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


def launch(step: str, config: StepConfig, processes: int, nodes: Nodes = ALONE) -> None:
    """Runs a step in several processes that train together, and waits for their end.

    Args:
        step: the step's name on the command line, for example `ppo`, or `module:Config:function`.
        config: the step's settings, the same for every rank.
        processes: how many ranks on this machine; as many on all others.
        nodes: the machines that train together.

    Raises:
        StepCoderError: what the first rank that failed raised (a DataError if it was one), or which rank was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent tells of a failing rank at length, and knows less of it than we do.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    settings = LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=processes,
        # The machines have to agree on it.
        run_id=uuid.uuid4().hex if nodes.count == 1 else "stepcoder",
        **nodes.meeting,
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
        log.info("ranks start", processes=processes, node=nodes.number, nodes=nodes.count)
        watch = Watch(nodes, fault)
        try:
            with watch:
                elastic_launch(settings, sys.executable)("-u", "-m", "stepcoder.platform.launch", step, str(file))
        except ChildFailedError as error:
            if watch.error is not None:
                raise watch.error from None
            raised = _raised(fault, dict(error.failures))
            watch.tell(raised)
            raise raised from None
        except (SignalException, SystemExit) as error:
            if watch.error is not None:
                raise watch.error from None
            if isinstance(error, SystemExit):  # Before the agent listened to signals.
                raise
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
    with running(step):
        try:
            work, config = _work(step, file.read_text())
            work(config)
        except Exception as error:
            raise SystemExit(_leave(error)) from error
    sys.stdout.flush()


def machine(step: str) -> None:
    """One machine of several: launches its ranks with the settings in the environment, and waits for their end.

    The fault is told in the log alone: whoever started the machines reads it there and tells MLflow.
    """
    with running(step):
        try:
            nodes = Nodes.of(os.environ)
            work, config = _work(step, os.environ.pop(CONFIG, ""))
            processes: int = getattr(config, "nproc_per_node", None) or 1
            if nodes.count * processes == 1:
                work(config)
            else:
                launch(step, config, processes, nodes)
        except StepCoderError as error:
            for line in str(error).splitlines():
                log.error(FAILED, error=line, exit_status=error.exit_status)
            raise SystemExit(error.exit_status) from error


def _work(step: str, settings: str) -> tuple[Callable[[StepConfig], Any], StepConfig]:
    """A step's function and its config."""
    # By name alone: the platform may not import the steps.
    module_name, config, function = (
        step.split(":") if ":" in step else importlib.import_module("stepcoder.cli").STEPS[step][:3]
    )
    module = importlib.import_module(module_name)
    return getattr(module, function), getattr(module, config).model_validate_json(settings)


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
    if len(sys.argv) > 2:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        machine(sys.argv[1])
