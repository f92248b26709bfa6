"""The components hand their work to TrainJobs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import dsl

from components.ppo_stage.component import ppo_stage
from components.sft.component import sft
from stepcoder.platform.launch import CONFIG
from stepcoder.platform.trainjob import follow
from stepcoder.ppo import PpoConfig
from stepcoder.sft import SftConfig
from tests.platform.trainjob.kubernetes_api import Kubernetes
from tests.platform.trainjob.work import (
    OWN_POD,
    QUICK,
    Object,
    completes,
    published,
)

PROGRAM = """
from types import SimpleNamespace as A
from components.sft.component import sft
place = lambda name: A(uri="s3://bucket/" + name, path="/nowhere/" + name, metadata={})
sft.python_func(place("dataset"), "m", "d", {}, "", place("policy"), place("history"), nodes=2)
"""

pytestmark = pytest.mark.s3


@pytest.mark.parametrize("evicted", [False, True])
def test_a_component_that_is_cancelled_takes_its_job_along(kubernetes: Kubernetes, evicted: bool) -> None:
    if evicted:
        own = kubernetes.pods[OWN_POD["metadata"]["name"]]
        own["status"] = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not kubernetes.count("GET", "/trainjobs/"):
            assert time.monotonic() < end
            time.sleep(0.05)
        while not kubernetes.created:
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 143, log
    assert time.monotonic() - begin < 10
    assert len(kubernetes.jobs) == evicted
    assert ("evicted" if evicted else "cancelled") in log


def artifact(name: str, tmp_path: Path) -> dsl.Artifact:
    """As on a cluster: an address in an object store, and a local path of the same name."""
    made = dsl.Artifact(uri=f"s3://bucket/{name}")
    made.custom_path = str(tmp_path / name)
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The components wait as briefly as these tests do."""
    monkeypatch.setattr(follow.train, "__defaults__", (QUICK,))


@pytest.mark.usefixtures("quick")
def test_sft_hands_its_work_to_a_trainjob(kubernetes: Kubernetes, bucket: str, tmp_path: Path) -> None:
    def ends(cluster: Kubernetes, job: Object) -> None:
        published(tmp_path / "made", "s3://bucket/policy")
        completes(cluster, job)

    kubernetes.script = [ends]
    names = {name: artifact(name, tmp_path) for name in ("dataset", "policy", "history")}
    sft.python_func(
        base_model="base", base_model_digest="abc", settings={"epochs": 2.0}, checkpoints="", nodes=2, gpus_per_node=3,
        gpu_type="amd.com/gpu", **names,
    )  # fmt: skip
    (job,) = kubernetes.created
    environment = {variable["name"]: variable.get("value") for variable in job["spec"]["trainer"]["env"]}
    config = SftConfig.model_validate_json(environment[CONFIG])
    assert (config.dataset, config.out) == ("s3://bucket/dataset", "s3://bucket/policy")
    assert (config.epochs, config.nproc_per_node) == (2, 3)
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["amd.com/gpu"] == "3"
    assert job["spec"]["trainer"]["command"][-1] == "sft"
    record = tmp_path / "history" / "0"
    assert json.loads((record / "summary.json").read_text()) == {"step_name": "x"}
    assert (record / "metrics.jsonl").is_file()
    # What is not there, Kubeflow does not upload over what the machines have published.
    assert not (tmp_path / "policy").exists()


@pytest.mark.usefixtures("quick")
def test_ppo_stage_hands_its_work_to_a_trainjob(kubernetes: Kubernetes, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "history_in" / "0").mkdir(parents=True)
    outputs = ("policy", "critic", "curriculum")

    def ends(cluster: Kubernetes, job: Object) -> None:
        published(tmp_path / "made", *(f"s3://bucket/{name}" for name in outputs))
        completes(cluster, job)

    kubernetes.script = [ends]
    names = ("dataset", "policy_in", "reference", "history_in", "history", "critic_in", "curriculum_in", *outputs)
    made = ppo_stage.python_func(
        stage=2, stages=3, settings={}, checkpoints="s3://bucket/checkpoints", nodes=2,
        **{name: artifact(name, tmp_path) for name in names},
    )  # fmt: skip
    assert made == ("s3://bucket/policy",)
    (job,) = kubernetes.created
    assert job["metadata"]["name"].startswith("stepcoder-ppo-stage-2-")
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == "ppo-stage"
    environment = {variable["name"]: variable.get("value") for variable in job["spec"]["trainer"]["env"]}
    config = PpoConfig.model_validate_json(environment[CONFIG])
    places = {
        "dataset": "dataset", "policy": "policy_in", "reference": "reference", "critic": "critic_in",
        "curriculum": "curriculum_in", "out": "policy", "out_critic": "critic", "out_curriculum": "curriculum",
    }  # fmt: skip
    assert {field: getattr(config, field) for field in places} == {
        field: f"s3://bucket/{name}" for field, name in places.items()
    }
    assert sorted(path.name for path in (tmp_path / "history").iterdir()) == ["0", "1"]
