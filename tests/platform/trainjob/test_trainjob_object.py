"""The TrainJob object of a step."""

from __future__ import annotations

import json
import re

import pytest

from stepcoder.errors import DataError
from stepcoder.platform import trainjob
from stepcoder.platform.launch import CONFIG
from stepcoder.platform.trainjob.manifest import manifest
from stepcoder.sft import SftConfig
from tests.platform.trainjob.kubernetes_api import faults_of
from tests.platform.trainjob.work import (
    MACHINES,
    OWN_POD,
    SETTINGS,
    Object,
    job_of,
    reference,
)


@pytest.mark.parametrize("gpus", [0, 4])
def test_the_object_is_one_that_kubeflow_trainer_takes(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_RUN_ID", "0a1b-run")
    job = job_of(machines=trainjob.Machines(2, gpus))
    assert faults_of(job) == []
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    assert len(job["metadata"]["name"]) <= 45  # Pods get `-node-0-NN-xxxxx` behind it, and a label holds 63.
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, max(1, gpus))
    amounts = {"cpu": "16", "memory": "128Gi", **({"nvidia.com/gpu": "4"} if gpus else {})}
    assert trainer["resourcesPerNode"] == {"limits": amounts, "requests": amounts}


def test_a_field_of_another_type_or_name_is_noticed_by_the_check() -> None:
    job = job_of()
    job["spec"]["trainer"]["numNodes"] = "2"
    assert "numNodes" in faults_of(job)[0]
    job = job_of()
    job["spec"]["podTemplateOverrides"] = []
    assert faults_of(job) == ["unknown field spec.podTemplateOverrides"]


def test_the_machines_get_what_the_pod_has_and_no_value_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_RUN_ID", "0a1b-run")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "value-of-a-secret")
    job = job_of()
    assert "value-of-a-secret" not in json.dumps(job)
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": "uid-of-run"}
    ]
    labels = {"app.kubernetes.io/part-of": "stepcoder", "app.kubernetes.io/component": "sft"}
    assert job["metadata"]["labels"].items() >= {**labels, "kueue.x-k8s.io/queue-name": "gpus"}.items()
    trainer = job["spec"]["trainer"]
    assert trainer["image"] == "registry.example/stepcoder/trainer:1.0"
    environment = {variable["name"]: variable for variable in trainer["env"]}
    assert environment.keys() == {
        "https_proxy", "EMPTY", "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", CONFIG, "STEPCODER_RUN_ID", "HOME",
    }  # fmt: skip
    assert environment["AWS_SECRET_ACCESS_KEY"] == reference("secret", "credentials", "AWS_SECRET_ACCESS_KEY")
    assert environment["STEPCODER_RUN_ID"]["value"] == "0a1b-run"
    config = SftConfig.model_validate_json(environment[CONFIG]["value"])
    assert config == SETTINGS.model_copy(update={"nproc_per_node": 4})
    (patched,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = patched["template"]["spec"]["template"]
    assert pod["metadata"]["labels"] == {**labels, "sidecar.istio.io/inject": "false"}
    spec = pod["spec"]
    assert {name: spec[name] for name in ("nodeSelector", "tolerations", "imagePullSecrets")} == {
        name: OWN_POD["spec"][name] for name in ("nodeSelector", "tolerations", "imagePullSecrets")
    }
    assert spec["serviceAccountName"] == "stepcoder-trainjob"


def pods_of(job: Object) -> Object:
    (patched,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec: Object = patched["template"]["spec"]["template"]["spec"]
    return spec


def test_the_pods_are_restricted() -> None:
    spec = pods_of(job_of())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


@pytest.mark.parametrize(("given", "size"), [(True, "16Gi"), (False, "8Gi")])
def test_the_pods_have_shared_memory_and_the_config_maps_of_the_pod_but_not_its_token(given: bool, size: str) -> None:
    own = json.loads(json.dumps(OWN_POD))
    if not given:
        main = own["spec"]["containers"][1]
        main["volumeMounts"] = [mount for mount in main["volumeMounts"] if mount["name"] != "shm"]
    spec = pods_of(manifest("sft", None, SETTINGS, MACHINES, own))
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts.keys() == {"/dev/shm", "/tmp", "/etc/stepcoder/ca"}
    assert volumes.keys() == set(mounts.values())
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
    assert volumes[mounts["/etc/stepcoder/ca"]]["configMap"]["name"] == "stepcoder-ca"


def test_the_same_work_of_the_same_run_has_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(
        config: SftConfig = SETTINGS, machines: trainjob.Machines = MACHINES, run_id: str = "1", **pod: str
    ) -> str:
        monkeypatch.setenv("STEPCODER_RUN_ID", run_id)
        own = {**OWN_POD, "metadata": {**OWN_POD["metadata"], **pod}}
        return str(manifest("sft", None, config, machines, own)["metadata"]["name"])

    assert name() == name(name="run-1-system-container-impl-78", uid="uid-of-the-next-try")
    others = [
        name(),
        name(run_id="2"),
        name(SETTINGS.model_copy(update={"epochs": 4.0})),
        name(SETTINGS.model_copy(update={"dataset": "s3://bucket/other"})),
        name(machines=trainjob.Machines(nodes=3)),
    ]
    assert len(set(others)) == len(others)


def test_outputs_on_a_disk_are_refused() -> None:
    with pytest.raises(DataError, match=r"out=/tmp/policy: machines of a TrainJob share no disk"):
        job_of(SETTINGS.model_copy(update={"out": "/tmp/policy"}))
