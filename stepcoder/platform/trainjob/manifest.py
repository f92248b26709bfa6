"""The TrainJob object of a step. Whatever it needs of its surroundings it takes from the pod that creates it.

So the image, the config map and secret by reference, the placement and the registry's credentials are set in one place,
the pipeline, and hold for the machines of the TrainJob too. Values of secrets are in neither object.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Final

from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.platform.config import StepConfig
from stepcoder.platform.launch import CONFIG
from stepcoder.platform.tracking import RUN_ID

GROUP: Final = "trainer.kubeflow.org"
VERSION: Final = "v1alpha1"
RUNTIME: Final = "stepcoder"
"""Name of the TrainingRuntime in the namespace of the run; `manifests/` has it."""
SERVICE_ACCOUNT: Final = "stepcoder-trainjob"
NODE: Final = "node"
"""Name that Kubeflow Trainer gives to the job and the container of the machines that train."""
RUN_LABEL: Final = "pipeline/runid"
STEP_LABEL: Final = "stepcoder.internal/step"
SHARED_MEMORY: Final = "8Gi"
"""Limit of /dev/shm where the pod has none: ranks of one machine exchange tensors there, and it counts as memory."""
_USER: Final = 65534
_OWN_TO_THE_POD: Final = ("ARGO_", "KFP_", "KUBERNETES_", "PET_")
"""Beginnings of the names of variables that Kubeflow sets for one pod alone."""

_QUANTITY: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")

Object = dict[str, Any]


@dataclass(frozen=True)
class Machines:
    """How many machines train, and what each of them has."""

    nodes: int
    gpus_per_node: int = 1
    """0: the machines train on their processors, with one rank each."""
    gpu_type: str = "nvidia.com/gpu"
    """Resource name of the GPUs."""
    cpu_per_node: str = ""
    """Processors as a Kubernetes quantity. Empty: as many as the pod that creates the TrainJob has."""
    memory_per_node: str = ""
    """Memory as a Kubernetes quantity. Empty: as much as the pod that creates the TrainJob has."""
    queue: str = ""
    """Kueue's LocalQueue; empty: none."""

    def __post_init__(self) -> None:
        faults = []
        if self.nodes < 1 or self.gpus_per_node < 0:
            faults.append(f"nodes={self.nodes}, gpus_per_node={self.gpus_per_node}: too few for a TrainJob")
        faults += [
            f"{name}={amount}: is no amount as Kubernetes writes it, such as 32 or 512Gi"
            for name, amount in (("cpu_per_node", self.cpu_per_node), ("memory_per_node", self.memory_per_node))
            if amount and not _QUANTITY.fullmatch(amount)
        ]
        if faults:
            raise DataError("\n".join(faults))

    @property
    def ranks(self) -> int:
        """Ranks of each machine."""
        return max(1, self.gpus_per_node)


def manifest(step: str, stage: int | None, config: StepConfig, machines: Machines, pod: Object) -> Object:
    """The TrainJob that does a step's work.

    Its name says what it does: the same step of the same run with the same settings and inputs has the same name.

    Args:
        step: the step on the command line, `sft` or `ppo`.
        stage: number of the PPO stage; None for other steps.
        config: the step's settings; inputs and outputs are addresses in an object store.
        machines: what trains.
        pod: the pod that creates the TrainJob, as the Kubernetes API shows it.

    Raises:
        DataError: an output is a path, which no other machine would see.
    """
    if paths := [name for name in outputs(config) if not storage.is_remote(getattr(config, name))]:
        where = ", ".join(f"{name}={getattr(config, name)}" for name in paths)
        raise DataError(f"{where}: machines of a TrainJob share no disk; the pipeline root has to be an s3:// address")
    component = "ppo-stage" if step == "ppo" else step
    title = f"{component}-{stage}" if stage else component
    container = _main(pod)
    spec: Object = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": RUNTIME},
        "trainer": {
            "image": container["image"],
            "command": ["python", "-u", "-m", "stepcoder.platform.launch", step],
            "env": _environment(container, config),
            "numNodes": machines.nodes,
            "numProcPerNode": machines.ranks,
            "resourcesPerNode": _resources(container, machines),
        },
        "runtimePatches": [{"manager": "stepcoder.internal/component", "trainingRuntimeSpec": _patch(component, pod)}],
    }
    labels = {**_labels(component), STEP_LABEL: title}
    if run := os.environ.get(RUN_ID):
        labels[RUN_LABEL] = run
    if machines.queue:
        labels["kueue.x-k8s.io/queue-name"] = machines.queue
    digest = hashlib.sha256(json.dumps([labels, spec], sort_keys=True).encode()).hexdigest()[:12]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": f"stepcoder-{title}-{digest}",
            "namespace": pod["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [_owner(pod)],
        },
        "spec": spec,
    }


def outputs(config: StepConfig) -> list[str]:
    """Names of the fields that say where the step writes to."""
    return [name for name in type(config).model_fields if name == "out" or name.startswith("out_")]


def _labels(component: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "stepcoder", "app.kubernetes.io/component": component}


def _main(pod: Object) -> Object:
    """The container of the pod in which the component runs."""
    containers: list[Object] = pod["spec"]["containers"]
    return next((container for container in containers if container["name"] == "main"), containers[0])


def _environment(container: Object, config: StepConfig) -> list[Object]:
    """What the pod's container has by reference, and by value unless it is about that pod alone."""
    taken: list[Object] = []
    for variable in container.get("env") or []:
        reference = variable.get("valueFrom") or {}
        if variable["name"].startswith(_OWN_TO_THE_POD) or variable["name"] in {RUN_ID, CONFIG, "HOME"}:
            continue
        if not reference:
            taken.append({"name": variable["name"], "value": variable.get("value") or ""})
        elif reference.get("configMapKeyRef") or reference.get("secretKeyRef"):
            taken.append({"name": variable["name"], "valueFrom": reference})
    own = {
        CONFIG: config.model_dump_json(),
        RUN_ID: os.environ.get(RUN_ID, ""),
        # The only place that can be written to.
        "HOME": "/tmp",
    }
    return [*taken, *({"name": name, "value": value} for name, value in own.items())]


def _resources(container: Object, machines: Machines) -> Object:
    """Limits and requests of a machine, which are the same, so that no neighbour is met."""
    given = (container.get("resources") or {}).get("limits") or {}
    wanted = {
        "cpu": machines.cpu_per_node or given.get("cpu"),
        "memory": machines.memory_per_node or given.get("memory"),
        machines.gpu_type: str(machines.gpus_per_node) if machines.gpus_per_node else None,
    }
    amounts = {name: str(amount) for name, amount in wanted.items() if amount}
    return {"limits": amounts, "requests": dict(amounts)}


def _patch(component: str, pod: Object) -> Object:
    """What the runtime's pods get besides image, environment and resources."""
    spec = pod["spec"]
    volumes, mounts = _volumes(pod)
    placement = {name: spec.get(name) for name in ("nodeSelector", "affinity", "tolerations", "imagePullSecrets")}
    template = {
        # A mesh's sidecar would neither let the ranks meet nor end with them.
        "metadata": {"labels": {**_labels(component), "sidecar.istio.io/inject": "false"}},
        "spec": {
            **{name: value for name, value in placement.items() if value},
            "serviceAccountName": SERVICE_ACCOUNT,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": volumes,
            "containers": [
                {
                    "name": NODE,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": mounts,
                }
            ],
        },
    }
    jobs = [{"name": NODE, "template": {"spec": {"template": template}}}]
    return {"template": {"spec": {"replicatedJobs": jobs}}}


def _volumes(pod: Object) -> tuple[list[Object], list[Object]]:
    """Volumes and where they are mounted: `/tmp`, `/dev/shm`, and the pod's config maps and secrets, by reference."""
    given = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    volumes: list[Object] = [{"name": "stepcoder-tmp", "emptyDir": {}}]
    mounts: list[Object] = [{"name": "stepcoder-tmp", "mountPath": "/tmp"}]
    for mount in _main(pod).get("volumeMounts") or []:
        volume = given.get(mount["name"], {})
        if mount["mountPath"] == "/dev/shm" or volume.keys() & {"configMap", "secret"}:
            volumes += [volume] if volume not in volumes else []
            mounts.append(mount)
    if not any(mount["mountPath"] == "/dev/shm" for mount in mounts):
        volumes.append({"name": "stepcoder-shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}})
        mounts.append({"name": "stepcoder-shm", "mountPath": "/dev/shm"})
    return volumes, mounts


def _owner(pod: Object) -> Object:
    """The workflow of the run, so that the TrainJob goes when the run is deleted, and outlives this pod.

    A pod that is tried again is another pod, which must find the TrainJob.
    """
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            names = ("apiVersion", "kind", "name", "uid")
            return {name: owner[name] for name in names}
    return {"apiVersion": "v1", "kind": "Pod", **{name: pod["metadata"][name] for name in ("name", "uid")}}
