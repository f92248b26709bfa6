"""Follows a run on Kubeflow to its end, through cut connections."""

from __future__ import annotations

import time
from typing import Any

from pipelines.kubeflow import Kubeflow, NotFoundError, UnansweredError, say
from stepcoder.errors import StepCoderError

BAD = frozenset({"FAILED", "CANCELED", "SKIPPED"})
"""States of a run that has ended otherwise than well."""
PATIENCE = 3600.0
"""Seconds without an answer after which waiting ends."""
_INNER = ("-driver", "-launcher")
"""How the names of Kubeflow's own pods end; they say nothing to a person."""


def follow(kubeflow: Kubeflow, run_id: str, *, every: float) -> str:
    """Tells each step's change of state until the run has ended.

    Args:
        kubeflow: The server.
        run_id: The run.
        every: Seconds between two looks.

    Returns:
        The run's last state, such as `SUCCEEDED`.

    Raises:
        StepCoderError: there is no such run, the login has expired, or no answer came for an hour.
    """
    again = f"go on with: {command(run_id, kubeflow.namespace)}"
    seen: dict[str, str] = {}
    state = ""
    answered = time.monotonic()
    cut = False
    while True:
        try:
            run = kubeflow.call(kubeflow.client.runs.run_service_get_run, run_id)
        except UnansweredError as error:
            if time.monotonic() - answered > PATIENCE:
                raise StepCoderError(f"{error}\nno answer for an hour; {again}") from error
            if not cut:
                say(f"{error}; the run goes on, asking again")
            cut = True
            time.sleep(every)
            continue
        except NotFoundError:
            raise
        except StepCoderError as error:
            raise type(error)(f"{error}\n{again}") from error
        if cut:
            say("Kubeflow answers again")
        answered, cut = time.monotonic(), False
        _tell_steps(run, seen)
        if run.state and run.state != state:
            state = run.state
            say(f"run: {state.lower()}")
        if state == "SUCCEEDED" or state in BAD:
            if state in BAD:
                _tell_faults(run)
                say(f"details: {kubeflow.link(f'runs/details/{run_id}')}")
            return str(state)
        time.sleep(every)


def command(run_id: str, namespace: str | None) -> str:
    """What somebody types to follow a run."""
    return f"python -m pipelines.submit --follow {run_id}" + (f" --namespace {namespace}" if namespace else "")


def _tell_steps(run: Any, seen: dict[str, str]) -> None:
    """Says what has changed since the last look."""
    for task in _tasks(run):
        if task.state and seen.get(task.task_id) != task.state:
            seen[task.task_id] = task.state
            say(f"{task.display_name}: {task.state.lower()}")


def _tell_faults(run: Any) -> None:
    for name, error in [("run", run.error), *((task.display_name, task.error) for task in _tasks(run))]:
        if error is not None and error.message:
            say(f"{name}: {error.message}")


def _tasks(run: Any) -> list[Any]:
    tasks = (run.run_details.task_details if run.run_details else None) or []
    return [
        task
        for task in tasks
        if task.display_name
        and task.display_name not in {"root", "executor"}
        and not task.display_name.endswith(_INNER)
    ]
