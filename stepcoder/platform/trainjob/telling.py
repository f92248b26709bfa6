"""What is told of a TrainJob: the log of its first machine, what it waits for, why it failed."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.entry import FAILED
from stepcoder.platform.trainjob.cluster import Cluster, log
from stepcoder.platform.trainjob.manifest import Object

_FAULT = re.compile(rf'event={FAILED} error=("(?:[^"\\]|\\.)*"|\S+)(?: exit_status=(\d+))?')
_TAIL = 100
"""Lines from the end of a log in which the reason of a failure is looked for."""
_SHOWN = 15
"""Lines of a log that tell of a failure for which there is no line of ours."""
_LAST_SECONDS = 60.0
"""How long the log of what has ended is asked for."""
_STUCK = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}


def condition(job: Object) -> Object | None:
    """The condition by which a TrainJob has ended; None while it has not."""
    for item in job.get("status", {}).get("conditions") or []:
        if item["type"] in {"Complete", "Failed"} and item["status"] == "True":
            ended: Object = item
            return ended
    return None


def _number(pod: Object) -> int:
    """Which machine of the TrainJob a pod is, from 0."""
    meta, key = pod["metadata"], "batch.kubernetes.io/job-completion-index"
    return int((meta.get("annotations") or {}).get(key) or (meta.get("labels") or {}).get(key) or 0)


def _state(pod: Object) -> Object:
    """The state of a pod's container: empty, or with one of `waiting`, `running`, `terminated`."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    state: Object = statuses[0].get("state") or {} if statuses else {}
    return state


class Lines:
    """Shows the log of the first machine, each line once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._shown: dict[str, tuple[str, int]] = {}
        """By pod: the time of the newest line, and how many lines have it."""

    def show(self, pods: list[Object], *, last: bool) -> None:
        """Prints what is new, of pods whose container has started; `last`: what cannot be read now is lost."""
        for pod in pods:
            if _number(pod) != 0 or not _state(pod).keys() & {"running", "terminated"}:
                continue
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            newest, count = self._shown.get(uid, ("", 0))
            since = f"{newest[:19]}Z" if newest else None
            same = 0
            for line in self._cluster.log(name, since=since, patience=_LAST_SECONDS if last else 0):
                stamp, _, text = line.partition(" ")
                when = _precise(stamp)
                same = same + 1 if when == newest else same
                if when < newest or (when == newest and same <= count):
                    continue
                if when > newest:
                    newest, same = when, 1
                count = same
                print(text, file=sys.stderr, flush=True)
            self._shown[uid] = (newest, count)


def _precise(stamp: str) -> str:
    """A time of a log line with nine digits of a second, so that times compare as texts."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


class Waiting:
    """Tells what a TrainJob waits for: when that changes, and now and then while it does not."""

    def __init__(self, cluster: Cluster, name: str, nodes: int, queue: str) -> None:
        self._cluster, self._name, self._nodes, self._queue = cluster, name, nodes, queue
        self._told, self._when = "", 0.0

    def tell(self, job: Object, pods: list[Object]) -> None:
        """Looks at a TrainJob that has not ended and at its pods."""
        reason = self._reason(job, pods)
        now = time.monotonic()
        if reason and (reason != self._told or now - self._when >= self._cluster.pace.tell):
            log.info("TrainJob waits", name=self._name, reason=reason)
            self._when = now
        self._told = reason

    def _reason(self, job: Object, pods: list[Object]) -> str:
        for item in job.get("status", {}).get("conditions") or []:
            if item["type"] == "Suspended" and item["status"] == "True":
                queue = f"queue {self._queue}" if self._queue else "whoever suspended it"
                return f"{queue}: {item.get('message', 'suspended')}"
        reasons = {reason for pod in pods if (reason := _pod_waits(pod))}
        if reasons:
            return "; ".join(sorted(reasons))
        if len(pods) < self._nodes:
            complaints = self._cluster.warnings(self._name)
            return f"{len(pods)} of {self._nodes} pods are there" + (f"; {complaints[-1]}" if complaints else "")
        return ""


def _pod_waits(pod: Object) -> str:
    """What a pod waits for; empty when it runs or has ended."""
    number = _number(pod)
    for item in pod.get("status", {}).get("conditions") or []:
        if item["type"] == "PodScheduled" and item["status"] == "False":
            return f"node {number}: {item.get('message') or item.get('reason', 'not scheduled')}"
    waits = _state(pod).get("waiting")
    if not waits:
        return ""
    detail = f": {waits['message']}" if waits.get("reason") in _STUCK and waits.get("message") else ""
    return f"node {number}: {waits.get('reason', 'starting')}{detail}"


def failure(cluster: Cluster, name: str, ended: Object, pods: list[Object]) -> StepCoderError:
    """Why a TrainJob failed: what its machine that failed first says, else what the cluster says."""
    about = f"TrainJob {name} failed ({ended.get('reason', 'no reason given')}): {ended.get('message', '')}".rstrip(
        ": "
    )
    failed = [(state["finishedAt"] or "", _number(pod), pod, state) for pod, state in _terminated(pods)]
    if not failed:
        complaints = cluster.warnings(name)
        return StepCoderError("\n".join([about, *complaints[-3:]]))
    _, number, pod, state = min(failed, key=lambda item: item[:2])
    how = f"{about}; node {number} ended with status {state.get('exitCode')}"
    if state.get("reason") not in (None, "Error"):
        how += f" ({state['reason']})"
    lines = [
        line.partition(" ")[2] for line in cluster.log(pod["metadata"]["name"], tail=_TAIL, patience=_LAST_SECONDS)
    ]
    faults = [match for line in lines if (match := _FAULT.search(line))]
    if not faults:
        return StepCoderError("\n".join([how, *lines[-_SHOWN:]]))
    kind = DataError if any(match[2] == str(DataError.exit_status) for match in faults) else StepCoderError
    return kind("\n".join([*(_plain(match[1]) for match in faults), how]))


def _terminated(pods: list[Object]) -> list[tuple[Object, Object]]:
    """The pods whose container has failed, with how it ended."""
    states: list[tuple[Object, Any]] = [(pod, _state(pod).get("terminated")) for pod in pods]
    return [(pod, {"finishedAt": "", **state}) for pod, state in states if state and state.get("exitCode")]


def _plain(quoted: str) -> str:
    return str(json.loads(quoted)) if quoted.startswith('"') else quoted
