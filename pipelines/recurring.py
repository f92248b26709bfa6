"""The recurring run on Kubeflow that a declared schedule stands for: what differs, and how it is brought into force."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any

from pipelines.declared import Schedule
from pipelines.kubeflow import Kubeflow, NotFoundError, equals, say
from pipelines.versions import uploaded
from stepcoder import __version__
from stepcoder.errors import DataError

ACCOUNTS = (2, 17)
"""The first release after the change by which what a schedule starts runs as the declared service account.

The change is kubeflow/pipelines#13325; a patch of 2.16 may have it, too.
"""
_MARK = re.compile(r"\[pipelines\.schedule ([0-9a-f]{16})\]$")
_ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
"""States of a run that has not ended."""


@dataclass(frozen=True)
class Change:
    """One difference between what is in force and what is declared."""

    what: str
    before: str
    after: str


def warn_of_account(kubeflow: Kubeflow, schedule: Schedule) -> None:
    """Says so where the server may ignore the declared service account."""
    if kubeflow.older_than(ACCOUNTS):
        say(
            f"warning: {kubeflow.host} is Kubeflow Pipelines {kubeflow.tag}, and before "
            f"{'.'.join(map(str, ACCOUNTS))} it may run what it starts by schedule as its own default account, not as "
            f"{schedule.declared.service_account} (kubeflow/pipelines#13311)"
        )


def differences(kubeflow: Kubeflow, schedule: Schedule) -> list[Change]:
    """What `apply` would change; nothing is sent but questions."""
    found = _found(kubeflow, schedule.name)
    active = [one for one in found if one.mode == "ENABLE"]
    shown = (active or found)[-1:]
    changes = []
    if not any(_mark(one) == schedule.mark for one in shown):
        before = _facts_of(kubeflow, shown[0]) if shown else {}
        after = schedule.facts()
        changes += [
            Change(what, _text(before.get(what)), _text(after.get(what)))
            for what in [*after, *sorted(before.keys() - after.keys())]
            if before.get(what) != after.get(what)
        ]
        if not changes:
            changes.append(Change("recurring run", str(shown[0].recurring_run_id), "made anew"))
    state = "none" if not found else "active" if active else "paused"
    wanted = "paused" if schedule.declared.paused else "active"
    if state != wanted:
        changes.append(Change("state", state, wanted))
    if len(found) > 1:
        changes.append(Change("recurring runs of this name", str(len(found)), "1"))
    return changes


def apply(kubeflow: Kubeflow, schedule: Schedule) -> None:
    """Makes what is in force be what is declared.

    Each step leaves a state from which the next call goes on, and no step makes a second one active.

    Raises:
        StepCoderError: refused or unanswered; the same call again goes on.
    """
    api = kubeflow.client.recurring_runs

    # 1. The new one, paused.
    if not _made(kubeflow, schedule):
        body = _body(kubeflow, schedule)
        create = api.recurring_run_service_create_recurring_run
        kubeflow.once(lambda: next(iter(_made(kubeflow, schedule)), None), lambda: kubeflow.call(create, body))
        say(f"{schedule.name}: the new recurring run is there, paused")

    # 2. Seen anew, because another call may have made one too: all take the oldest, so all end with the same.
    chosen = _made(kubeflow, schedule)[0]
    others = [one for one in _found(kubeflow, schedule.name) if one.recurring_run_id != chosen.recurring_run_id]
    for one in others:
        if one.mode == "ENABLE":
            kubeflow.read(api.recurring_run_service_disable_recurring_run, one.recurring_run_id)
            say(f"{schedule.name}: {one.recurring_run_id} is paused")

    # 3. Only now may the new one run.
    if schedule.declared.paused and chosen.mode == "ENABLE":
        kubeflow.read(api.recurring_run_service_disable_recurring_run, chosen.recurring_run_id)
    elif not schedule.declared.paused and chosen.mode != "ENABLE":
        kubeflow.read(api.recurring_run_service_enable_recurring_run, chosen.recurring_run_id)
    say(f"{schedule.name}: {chosen.recurring_run_id} is {'paused' if schedule.declared.paused else 'active'}")

    # 4. What is left over.
    _delete(kubeflow, schedule.name, others)
    print(kubeflow.link(f"recurringrun/details/{chosen.recurring_run_id}"), flush=True)


def remove(kubeflow: Kubeflow, name: str) -> None:
    """Ends a schedule: nothing starts any more, and its recurring runs go, except those that a run still needs."""
    found = _found(kubeflow, name)
    for one in found:
        if one.mode == "ENABLE":
            kubeflow.read(
                kubeflow.client.recurring_runs.recurring_run_service_disable_recurring_run, one.recurring_run_id
            )
    if not found:
        say(f"{name}: there is no such schedule")
    _delete(kubeflow, name, found)


def _delete(kubeflow: Kubeflow, name: str, leftovers: list[Any]) -> None:
    """Removes recurring runs that rest.

    Kubernetes takes the pods of a run that goes on away with its recurring run. Newer servers can be told not to; an
    older one says nothing and does it. So one with a run that goes on stays, paused, until a later call.
    """
    for one in leftovers:
        runs = kubeflow.pages(
            kubeflow.client.runs.run_service_list_runs,
            "runs",
            experiment_id=one.experiment_id,
            filter=json.dumps(
                {"predicates": [{"operation": "IN", "key": "state", "string_values": {"values": list(_ACTIVE)}}]}
            ),
        )
        going = next((run.run_id for run in runs if run.recurring_run_id == one.recurring_run_id), None)
        if going is not None:
            say(f"{name}: {one.recurring_run_id} stays paused while its run {going} goes on; a later call removes it")
            continue
        with contextlib.suppress(NotFoundError):
            kubeflow.read(
                kubeflow.client.recurring_runs.recurring_run_service_delete_recurring_run,
                one.recurring_run_id,
                propagation_policy="ORPHAN",
            )
        say(f"{name}: {one.recurring_run_id} is removed")


def _body(kubeflow: Kubeflow, schedule: Schedule) -> Any:
    """The request that makes the recurring run, paused; what it refers to is made first."""
    models, declared = kubeflow.client.api_models, schedule.declared
    pipeline_id, version_id = uploaded(kubeflow, schedule)
    if declared.cron is not None:
        trigger = models.V2beta1Trigger(cron_schedule=models.V2beta1CronSchedule(cron=declared.cron))
    else:
        periodic = models.V2beta1PeriodicSchedule(interval_second=str(declared.interval_seconds))
        trigger = models.V2beta1Trigger(periodic_schedule=periodic)
    return models.V2beta1RecurringRun(
        display_name=schedule.name,
        description=f"Made by stepcoder {__version__} from a declared schedule. [pipelines.schedule {schedule.mark}]",
        experiment_id=kubeflow.experiment(declared.experiment),
        pipeline_version_reference=models.V2beta1PipelineVersionReference(
            pipeline_id=pipeline_id, pipeline_version_id=version_id
        ),
        runtime_config=models.V2beta1RuntimeConfig(parameters=schedule.parameters),
        service_account=declared.service_account,
        trigger=trigger,
        mode=models.RecurringRunMode.DISABLE,
        max_concurrency="1",
        no_catchup=True,
    )


def _found(kubeflow: Kubeflow, name: str) -> list[Any]:
    """This schedule's recurring runs, oldest first.

    Raises:
        DataError: there is one of this name that was not made by this command.
    """
    scope = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
    found = kubeflow.pages(
        kubeflow.client.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        filter=equals(display_name=name),
        **scope,
    )
    ordered = sorted(found, key=lambda one: (str(one.created_at), one.recurring_run_id))
    foreign = [str(one.recurring_run_id) for one in ordered if _mark(one) is None]
    if foreign:
        raise DataError(
            f"{name}: a recurring run of this name was made by hand: {', '.join(foreign)}; delete it in Kubeflow, "
            "or declare another name"
        )
    return ordered


def _made(kubeflow: Kubeflow, schedule: Schedule) -> list[Any]:
    return [one for one in _found(kubeflow, schedule.name) if _mark(one) == schedule.mark]


def _mark(one: Any) -> str | None:
    found = _MARK.search(one.description or "")
    return found[1] if found else None


def _facts_of(kubeflow: Kubeflow, one: Any) -> dict[str, Any]:
    """What `Schedule.facts` says, of a recurring run on the server."""
    pipelines, experiments = kubeflow.client.pipelines, kubeflow.client.experiments
    reference, trigger = one.pipeline_version_reference, one.trigger
    pipeline_id, version_id = reference.pipeline_id, reference.pipeline_version_id

    def shown(method: Any, *ids: str) -> str:
        try:
            return str(kubeflow.read(method, *ids).display_name)
        except NotFoundError:
            return f"{ids[-1]}, which is gone"

    cron, periodic = trigger.cron_schedule, trigger.periodic_schedule
    parameters = (one.runtime_config and one.runtime_config.parameters) or {}
    return {
        "pipeline": shown(pipelines.pipeline_service_get_pipeline, pipeline_id),
        "version": shown(pipelines.pipeline_service_get_pipeline_version, pipeline_id, version_id),
        "when": cron.cron if cron else f"every {periodic.interval_second} s",
        "experiment": shown(experiments.experiment_service_get_experiment, one.experiment_id),
        "service account": one.service_account,
        **{f"parameters.{name}": value for name, value in sorted(parameters.items())},
    }


def _text(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
