"""A TrainJob from its creation to its end, as seen by the component that waits for it.

The component may die and be started again at any moment: the TrainJob's name says what it does, so the next one finds
it, running or done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stepcoder.errors import StepCoderError
from stepcoder.platform import storage
from stepcoder.platform.config import StepConfig
from stepcoder.platform.redaction import first_line
from stepcoder.platform.trainjob.cluster import DEFAULT_PACE, Cluster, Pace, log
from stepcoder.platform.trainjob.manifest import RUN_LABEL, STEP_LABEL, Machines, Object, manifest, outputs
from stepcoder.platform.trainjob.telling import Lines, Waiting, condition, failure


def train(step: str, stage: int | None, config: StepConfig, machines: Machines, pace: Pace = DEFAULT_PACE) -> None:
    """Does a step's work as a TrainJob: begins it or finds it, shows the log of its first machine, waits for its end.

    Args:
        step: the step on the command line, `sft` or `ppo`.
        stage: number of the PPO stage; None for other steps.
        config: the step's settings; inputs and outputs are addresses in an object store.
        machines: what trains.
        pace: how often the cluster is asked.

    Raises:
        DataError: the training found its input at fault.
        StepCoderError: the training failed, or the cluster refuses it or is away.
    """
    # One rank a GPU, whatever the setting says for training in this pod.
    config = config.model_copy(update={"nproc_per_node": machines.ranks})
    cluster = Cluster.here(pace)
    pod = cluster.own_pod()
    job = manifest(step, stage, config, machines, pod)
    name = job["metadata"]["name"]
    with _cancelling(cluster, name):
        _begin(cluster, job, config)
        _follow(cluster, name, machines)
    if missing := _missing(config):
        raise StepCoderError(f"TrainJob {name} is complete, but there is nothing at {', '.join(missing)}")
    log.info("TrainJob is complete", name=name)


def _begin(cluster: Cluster, job: Object, config: StepConfig) -> None:
    """Creates the TrainJob, unless it is there already and of use."""
    meta = job["metadata"]
    name, labels = meta["name"], meta["labels"]
    if RUN_LABEL in labels:
        # With other settings, of an earlier try: both would write to the same checkpoints.
        selector = ",".join(f"{label}={labels[label]}" for label in (RUN_LABEL, STEP_LABEL))
        for other in cluster.jobs(selector):
            if (old := other["metadata"]["name"]) != name and condition(other) is None:
                log.warning("an earlier TrainJob of this step is ended", name=old)
                cluster.delete(old)
                _gone(cluster, old)
    while True:
        there = cluster.job(name)
        if there is None:
            if cluster.create(job):
                trainer = job["spec"]["trainer"]
                log.info("TrainJob is created", name=name, nodes=trainer["numNodes"], ranks=trainer["numProcPerNode"])
                return
            continue  # Another try of this step was faster, or the answer to the first request was lost.
        ended = condition(there)
        if there["metadata"].get("deletionTimestamp"):
            _gone(cluster, name)
        elif ended is None or (ended["type"] == "Complete" and not _missing(config)):
            log.info("TrainJob is found", name=name, created=there["metadata"].get("creationTimestamp", ""))
            return
        else:
            log.warning("a TrainJob that ended is replaced", name=name, was=ended["type"], why=ended.get("message", ""))
            cluster.delete(name)


def _follow(cluster: Cluster, name: str, machines: Machines) -> None:
    """Waits for the end of a TrainJob."""
    lines = Lines(cluster)
    waiting = Waiting(cluster, name, machines.nodes, machines.queue)
    first = None
    while True:
        job = cluster.job(name)
        first = first or job
        if job is None or first is None or job["metadata"]["uid"] != first["metadata"]["uid"]:
            raise StepCoderError(f"TrainJob {name} was deleted by somebody; try again, it goes on from its checkpoint")
        if job["metadata"].get("deletionTimestamp"):
            raise StepCoderError(
                f"TrainJob {name} is being deleted by somebody; try again, it goes on from its checkpoint"
            )
        # Asked before the log is read, so that the log of what has ended is whole.
        ended = condition(job)
        pods = cluster.pods(name)
        lines.show(pods, last=ended is not None)
        if ended is not None:
            if ended["type"] == "Failed":
                raise failure(cluster, name, ended, pods)
            return
        waiting.tell(job, pods)
        time.sleep(cluster.pace.poll)


@contextmanager
def _cancelling(cluster: Cluster, name: str) -> Iterator[None]:
    """Ends the TrainJob when this process is told to end, unless its machine is needed for something else."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # One try each: whoever told us to end does not wait for long.
        hasty = Cluster(cluster._client, cluster.namespace, replace(cluster.pace, patience=0, request=(2.0, 3.0)))
        try:
            if _evicted(hasty.own_pod()):
                log.warning("this pod is evicted; its next try finds the TrainJob", name=name)
            else:
                hasty.delete(name, at_once=True)
                log.warning("cancelled; the TrainJob is deleted", name=name)
        except Exception as error:  # Nothing else can be done; the end of the run takes it along.
            log.warning("the TrainJob may still run", name=name, error=first_line(error))
        raise


def _evicted(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(item["type"] == "DisruptionTarget" and item["status"] == "True" for item in conditions)


def _gone(cluster: Cluster, name: str) -> None:
    """Waits until a TrainJob and its pods are gone."""
    log.info("an earlier TrainJob is being deleted", name=name)
    while cluster.job(name) is not None:
        time.sleep(cluster.pace.poll)


def _missing(config: StepConfig) -> list[str]:
    """Outputs that are not there."""
    places = [str(getattr(config, name)) for name in outputs(config)]
    return [place for place in places if not storage.exists(place)]
