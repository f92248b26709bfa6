"""The work that tests hand to TrainJobs, and the pod that does so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepcoder.platform import storage, trainjob
from stepcoder.platform.trainjob.cluster import Pace
from stepcoder.platform.trainjob.manifest import manifest
from stepcoder.sft import SftConfig
from tests.platform.trainjob.kubernetes_api import NAMESPACE, Kubernetes

Object = dict[str, Any]
QUICK = Pace(poll=0.02, retry=0.01, longest_retry=0.05, patience=5, tell=0.1, request=(1, 0.5))
MACHINES = trainjob.Machines(nodes=2, gpus_per_node=4, queue="gpus")
OUT = "s3://bucket/run/sft/policy"
SETTINGS = SftConfig(dataset="s3://bucket/run/dataset", base_model="org/model", out=OUT)


def reference(kind: str, name: str, key: str) -> Object:
    return {"name": key, "valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, "optional": True}}}


OWN_POD: Object = {
    "metadata": {
        "name": "run-1-system-container-impl-77",
        "namespace": NAMESPACE,
        "uid": "uid-of-this-pod",
        "labels": {"pipeline/runid": "0a1b-run"},
        "ownerReferences": [
            {
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": "uid-of-run",
                "controller": True, "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "authority", "configMap": {"name": "stepcoder-ca", "optional": True}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
            {"name": "var-run-argo", "emptyDir": {}},
            {"name": "kube-api-access-x7", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
        "containers": [
            {"name": "wait", "image": "argoexec", "env": []},
            {
                "name": "main",
                "image": "registry.example/stepcoder/trainer:1.0",
                "env": [
                    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "STEPCODER_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['…']"}}},
                    {"name": "ARGO_NODE_ID", "value": "of-this-try"},
                    {"name": "https_proxy", "value": "http://proxy:3128"},
                    {"name": "EMPTY"},
                    reference("configMap", "stepcoder", "AWS_ENDPOINT_URL"),
                    reference("secret", "credentials", "AWS_SECRET_ACCESS_KEY"),
                ],
                "resources": {"limits": {"cpu": "16", "memory": "128Gi"}},
                "volumeMounts": [
                    {"name": "authority", "mountPath": "/etc/stepcoder/ca", "readOnly": True},
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "var-run-argo", "mountPath": "/var/run/argo"},
                    {"name": "kube-api-access-x7", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                ],
            },
        ],
    },
}  # fmt: skip


def published(folder: Path, *addresses: str) -> None:
    """What a training leaves at its outputs."""
    folder.mkdir(exist_ok=True)
    for name, text in {"stepcoder.json": "{}", "summary.json": '{"step_name": "x"}', "metrics.jsonl": "{}\n"}.items():
        (folder / name).write_text(text)
    for address in addresses:
        storage.publish(folder, address)


def run(config: SftConfig = SETTINGS, machines: trainjob.Machines = MACHINES) -> None:
    trainjob.train("sft", None, config, machines, QUICK)


def completes(kubernetes: Kubernetes, job: Object) -> None:
    kubernetes.status(job["metadata"]["name"], "Complete")


def job_of(config: SftConfig = SETTINGS, machines: trainjob.Machines = MACHINES) -> Object:
    return manifest("sft", None, config.model_copy(update={"nproc_per_node": machines.ranks}), machines, OWN_POD)
