"""A TrainJob from its creation to its end, against a server that answers as the Kubernetes API does (see there)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import trainjob
from stepcoder.platform.trainjob import follow
from stepcoder.platform.trainjob.cluster import Pace
from tests.platform.trainjob.kubernetes_api import Kubernetes, Trouble
from tests.platform.trainjob.work import (
    MACHINES,
    OUT,
    QUICK,
    SETTINGS,
    Object,
    completes,
    job_of,
    published,
    run,
)

pytestmark = pytest.mark.s3


def test_it_is_created_followed_and_its_log_shown_once(
    kubernetes: Kubernetes, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = ["10.1", "10.12", "10.12", "11.123456789", "11.2"]
    lines = [f"2026-01-01T00:00:{stamp}Z line {number}" for number, stamp in enumerate(stamps)]

    def writes(count: int) -> Any:
        def step(cluster: Kubernetes, job: Object) -> None:
            name = job["metadata"]["name"]
            cluster.logs[cluster.pod(name, 0, state={"running": {}})] = lines[:count]
            cluster.logs[cluster.pod(name, 1, state={"running": {}})] = ["2026-01-01T00:00:09Z of another machine"]

        return step

    def ends(cluster: Kubernetes, job: Object) -> None:
        writes(5)(cluster, job)
        published(tmp_path / "made", OUT)
        completes(cluster, job)

    kubernetes.script = [writes(0), writes(2), writes(2), writes(3), writes(4), ends]
    run()
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("line")]
    assert shown == [f"line {number}" for number in range(5)]
    assert len(kubernetes.created) == 1
    assert kubernetes.count("DELETE", "trainjobs") == 0


@pytest.mark.usefixtures("done")
def test_a_component_that_is_started_again_finds_the_running_job(kubernetes: Kubernetes) -> None:
    def dies(cluster: Kubernetes, job: Object) -> None:
        raise_here.append(True)

    class DiedError(Exception):
        pass

    raise_here: list[bool] = []
    kubernetes.script = [lambda *_: None, dies]
    with pytest.MonkeyPatch.context() as patch:

        def sleep(_: float) -> None:
            if raise_here:
                raise DiedError

        patch.setattr(follow.time, "sleep", sleep)
        with pytest.raises(DiedError):
            run()
    (name,) = kubernetes.jobs
    kubernetes.script = [lambda *_: None, lambda *_: None, completes]
    run()
    assert list(kubernetes.jobs) == [name]
    assert len(kubernetes.created) == 1


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(
    "trouble", [Trouble("POST", "trainjobs", 500, after=True), Trouble("POST", "trainjobs", 0, after=True)]
)
def test_a_creation_whose_answer_is_lost_makes_one_job(kubernetes: Kubernetes, trouble: Trouble) -> None:
    kubernetes.troubles = [trouble]
    kubernetes.script = [lambda *_: None, completes]
    run()
    assert len(kubernetes.created) == 1
    assert kubernetes.count("POST", "trainjobs") == 2  # The second is answered by 409.


@pytest.mark.usefixtures("done")
def test_a_job_that_is_complete_is_taken(kubernetes: Kubernetes) -> None:
    kubernetes.script = [completes]
    run()
    run()
    assert len(kubernetes.created) == 1


@pytest.mark.parametrize("was", ["Failed", "Complete"])
def test_a_job_that_failed_or_whose_outputs_are_gone_is_replaced(
    kubernetes: Kubernetes, was: str, bucket: str, tmp_path: Path
) -> None:
    def completes_with_outputs(cluster: Kubernetes, job: Object) -> None:
        published(tmp_path / "made", OUT)
        completes(cluster, job)

    earlier = job_of()
    name = earlier["metadata"]["name"]
    kubernetes.jobs[name] = {**earlier, "metadata": {**earlier["metadata"], "uid": "earlier"}}
    kubernetes.status(name, was)
    kubernetes.script = [lambda *_: None, completes_with_outputs]
    run()
    assert kubernetes.count("DELETE", name) == 1
    assert len(kubernetes.created) == 1


@pytest.mark.usefixtures("done")
def test_a_job_of_an_earlier_try_with_other_settings_is_ended_first(kubernetes: Kubernetes) -> None:
    earlier = job_of(SETTINGS.model_copy(update={"out": "s3://bucket/earlier"}))
    name = earlier["metadata"]["name"]
    kubernetes.jobs[name] = {**earlier, "metadata": {**earlier["metadata"], "uid": "earlier"}}
    kubernetes.script = [completes]
    run()
    assert name not in kubernetes.jobs
    assert len(kubernetes.created) == 1


@pytest.mark.usefixtures("done")
def test_a_server_with_troubles_is_asked_again(kubernetes: Kubernetes, capsys: pytest.CaptureFixture[str]) -> None:
    def starts(cluster: Kubernetes, job: Object) -> None:
        cluster.logs[cluster.pod(job["metadata"]["name"], 0, state={"running": {}})] = ["2026-01-01T00:00:01Z hello"]
        cluster.troubles = [
            Trouble("GET", "/log", 500),
            Trouble("GET", "/log", 0, times=2),
            Trouble("GET", "/events", 403),
            Trouble("GET", "/pods", 503, times=2),
            Trouble("GET", "/trainjobs/", -1),
            Trouble("GET", "/trainjobs/", 401),
        ]

    kubernetes.troubles = [Trouble("GET", "/pods/", 429), Trouble("POST", "/trainjobs", 500)]
    kubernetes.script = [starts, lambda *_: None, completes]
    run()
    assert kubernetes.troubles == []
    assert capsys.readouterr().err.count("hello") == 1


def test_a_server_that_stays_away_is_told(kubernetes: Kubernetes, bucket: str) -> None:
    kubernetes.troubles = [Trouble("GET", "/trainjobs/", 503, times=10_000)]
    with pytest.raises(StepCoderError, match=r"has not answered for .* s: 503: trouble"):
        trainjob.train("sft", None, SETTINGS, MACHINES, Pace(poll=0.01, retry=0.01, longest_retry=0.05, patience=0.3))


@pytest.mark.parametrize(
    ("status", "says"), [(403, "role of manifests/"), (400, "older than 2.2"), (404, "2.2 or newer")]
)
def test_a_refusal_says_what_to_do(kubernetes: Kubernetes, bucket: str, status: int, says: str) -> None:
    kubernetes.troubles = [Trouble("POST", "/trainjobs", status)]
    with pytest.raises(StepCoderError, match=says):
        run()


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize("interval", [0, 3600])
def test_what_it_waits_for_is_told_when_it_changes_and_at_intervals(
    kubernetes: Kubernetes, interval: float, caplog: pytest.LogCaptureFixture
) -> None:
    lacks = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    event = {"lastTimestamp": "1", "reason": "FailedCreate", "message": "exceeded quota"}

    def queued(cluster: Kubernetes, job: Object) -> None:
        cluster.status(job["metadata"]["name"], "Suspended", message="no quota")

    def refused(cluster: Kubernetes, job: Object) -> None:
        job.pop("status")
        own, other = f"{job['metadata']['name']}-node-0", "of-somebody-else"
        cluster.events = [{**event, "involvedObject": {"name": name}} for name in (own, other)]
        cluster.events[1]["message"] = "never mind"

    def unscheduled(cluster: Kubernetes, job: Object) -> None:
        for number in range(2):
            cluster.pod(job["metadata"]["name"], number, conditions=[lacks])

    def without_image(cluster: Kubernetes, job: Object) -> None:
        waits = {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}
        cluster.pod(job["metadata"]["name"], 0, state={"running": {}})
        cluster.pod(job["metadata"]["name"], 1, state=waits)

    kubernetes.script = [queued, lambda *_: None, refused, unscheduled, lambda *_: None, without_image, completes]
    with caplog.at_level("INFO", logger="stepcoder"):
        trainjob.train("sft", None, SETTINGS, MACHINES, replace(QUICK, tell=interval))
    lines = [record.message for record in caplog.records if "waits" in record.message]
    queue, quota, nodes, image = (
        "queue gpus: no quota",
        "0 of 2 pods are there; FailedCreate: exceeded quota",
        "node 0: 0/3 nodes are available; node 1: 0/3 nodes are available",
        "node 1: ImagePullBackOff: no such tag",
    )
    often = 1 if interval else 2
    assert [line.partition("reason=")[2].strip('"') for line in lines] == [
        *[queue] * often, quota, *[nodes] * often, image,
    ]  # fmt: skip


def failing(*pods: tuple[int, str, Object, list[str]]) -> Any:
    """The cluster's step in which machines end: number, when, more about the end, log."""

    def step(cluster: Kubernetes, job: Object) -> None:
        name = job["metadata"]["name"]
        for number, when, how, lines in pods:
            state = {"exitCode": 1, "reason": "Error", "finishedAt": f"2026-01-01T00:00:{when}Z", **how}
            pod = cluster.pod(name, number, state={"terminated": state})
            cluster.logs[pod] = [f"2026-01-01T00:00:01Z {line}" for line in lines]
        cluster.status(name, "Failed", "FailedJobs", "jobset failed due to one or more job failures")

    return step


FAULT = 'time=2026-01-01T00:00:01Z level=ERROR step=launch event=failed error="{}" exit_status={}'


def test_the_fault_of_the_machine_that_failed_first_becomes_the_error(kubernetes: Kubernetes, bucket: str) -> None:
    kubernetes.script = [
        failing(
            (0, "09", {"exitCode": 143}, ["a", FAULT.format("node 1: a consequence", 1)]),
            (1, "05", {"exitCode": 2}, ["b", FAULT.format('rank 2: \\"x.jsonl\\": bad', 2), FAULT.format("line 4", 2)]),
        )
    ]
    with pytest.raises(DataError) as caught:
        run()
    first, second, last = str(caught.value).splitlines()
    assert (first, second) == ('rank 2: "x.jsonl": bad', "line 4")
    assert "failed (FailedJobs): jobset failed due to one or more job failures; node 1 ended with status 2" in last
    assert kubernetes.count("DELETE", "trainjobs") == 0  # Its log can still be read.


def test_without_a_fault_of_ours_the_end_of_the_log_is_told(kubernetes: Kubernetes, bucket: str) -> None:
    lines = [f"line {number}" for number in range(40)]
    kubernetes.script = [failing((0, "05", {"exitCode": 137, "reason": "OOMKilled"}, lines))]
    with pytest.raises(StepCoderError) as caught:
        run()
    head, *tail = str(caught.value).splitlines()
    assert head.endswith("node 0 ended with status 137 (OOMKilled)")
    assert tail == lines[-15:]


def test_a_job_that_fails_without_a_pod_tells_what_the_cluster_complains_about(
    kubernetes: Kubernetes, bucket: str
) -> None:
    def fails(cluster: Kubernetes, job: Object) -> None:
        name = job["metadata"]["name"]
        cluster.events = [
            {"involvedObject": {"name": name}, "reason": "FailedCreate", "message": "violates PodSecurity"}
        ]
        cluster.status(name, "Failed", "DeadlineExceeded", "too long")

    kubernetes.script = [fails]
    with pytest.raises(
        StepCoderError, match=r"failed \(DeadlineExceeded\): too long\nFailedCreate: violates PodSecurity"
    ):
        run()


def deleted(cluster: Kubernetes, job: Object) -> None:
    cluster.jobs.clear()


def marked(cluster: Kubernetes, job: Object) -> None:
    job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def made_anew(cluster: Kubernetes, job: Object) -> None:
    job["metadata"]["uid"] = "another"


@pytest.mark.parametrize("event", [deleted, marked, made_anew])
def test_a_job_that_somebody_deletes_is_a_fault(kubernetes: Kubernetes, bucket: str, event: Any) -> None:
    kubernetes.script = [lambda *_: None, event]
    with pytest.raises(StepCoderError, match="deleted by somebody"):
        run()


def test_a_job_that_is_complete_without_outputs_is_a_fault(kubernetes: Kubernetes, bucket: str) -> None:
    kubernetes.script = [completes]
    with pytest.raises(StepCoderError, match=f"there is nothing at {OUT}"):
        run()


def test_without_a_cluster_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(StepCoderError, match="there is none here"):
        run()


def test_importing_the_components_needs_no_kubernetes_client() -> None:
    program = "import stepcoder.platform.trainjob, sys; print([m for m in ('torch', 'kubernetes') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert json.loads(subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)) == []
