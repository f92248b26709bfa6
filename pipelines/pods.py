"""Everything that Kubernetes is told about a step's pod, in one place; no step says anything of it elsewhere.

What a user may have to change from run to run is a parameter of the pipeline (`Platform`); the rest is a table.
Which of it Kubeflow's cache sees: image, GPU type and number, because Kubeflow hands them to a step as inputs;
not secret, node selector and tolerations. CPU and memory are no parameters for that reason: more memory for one step
would start the others anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from kfp import kubernetes
from kfp.dsl import PipelineTask

from stepcoder import images

CONFIG_MAP: Final = "stepcoder"
"""Config map whose keys become environment variables; it and each key may be absent."""
SECRET: Final = "stepcoder"
"""Default name of the secret whose keys become environment variables; it and each key may be absent."""
CA_CONFIG_MAP: Final = "stepcoder-ca"
"""Config map with the certificates of a private authority, as `AWS_CA_BUNDLE` may name them; it may be absent. By that
name `stepcoder/platform/certificates.py` gives them to the other libraries too."""
CA_FOLDER: Final = "/etc/stepcoder/ca"
ALL_ATTEMPTS: Final = "31536000s"
"""A year. Argo starts no attempt later than this after the first one's start, and ends those that run by then: it must
hold all attempts and all waiting for nodes. What ends an attempt is its `hours`."""
USER: Final = 65534
"""User and group of every pod; the images are made for it."""
PART_OF: Final = "app.kubernetes.io/part-of"
COMPONENT: Final = "app.kubernetes.io/component"


class Keys(NamedTuple):
    """Environment variables that belong together, by where they come from."""

    config_map: tuple[str, ...]
    secret: tuple[str, ...]


ENVIRONMENT: Final = {
    "store": Keys(
        ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE"),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ),
    "mlflow": Keys(
        ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "AWS_CA_BUNDLE"),
        ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    ),
    "hub": Keys(("HF_ENDPOINT", "HF_HUB_OFFLINE"), ("HF_TOKEN",)),
    "sandbox": Keys(("STEPCODER_SANDBOX",), ("STEPCODER_SANDBOX_TOKEN",)),
    "webhook": Keys(("STEPCODER_KUBEFLOW_URL",), ("STEPCODER_NOTIFY_URL",)),
}
"""What a step may need from outside, and the environment variables that it needs for that."""


@dataclass(frozen=True)
class Pod:
    """What a step's pod gets. Requests equal limits, so that a step never meets a neighbour's appetite."""

    image: Literal["tools", "trainer"]
    cpu: str
    memory: str
    hours: float
    """An attempt that runs longer is ended; the next one goes on from its checkpoint."""
    needs: tuple[str, ...] = ()
    """Names in `ENVIRONMENT`. A step without `mlflow` is not told the run's id either."""
    gpus: Literal["", "training", "evaluation"] = ""
    """Which of the pipeline's GPU numbers counts; such a pod also gets node selector and tolerations."""
    shm: str = ""
    """Size of `/dev/shm`, out of `memory`: the runtime's 64 MiB are too little for ranks that talk to each other."""
    cached: bool = False
    """Whether an earlier result for the same inputs is taken: this is how a run resumes after a failed step."""
    retries: int = 2
    """Further attempts after a failure; a step with checkpoints goes on where it was."""


# MLflow is among the needs of every step: a step that fails leaves its reason there, for notify and for people.
_OUTSIDE: Final = ("store", "mlflow", "hub", "sandbox")
_JUDGING: Final = ("store", "mlflow", "sandbox")

PODS: Final = {
    "check-new-data": Pod("tools", cpu="1", memory="2Gi", hours=1, needs=("store", "mlflow")),
    "resolve-inputs": Pod("tools", cpu="1", memory="2Gi", hours=1, needs=(*_OUTSIDE, "webhook")),
    "verify-dataset": Pod("tools", cpu="8", memory="16Gi", hours=12, needs=_JUDGING, cached=True),
    "sft": Pod("trainer", "8", "64Gi", hours=72, needs=_OUTSIDE, gpus="training", shm="8Gi", cached=True, retries=3),
    "ppo-stage": Pod(
        "trainer",
        "16",
        "128Gi",
        hours=168,
        needs=_JUDGING,
        gpus="training",
        shm="16Gi",
        cached=True,
        retries=3,
    ),
    "evaluate": Pod("trainer", "8", "64Gi", hours=24, needs=_OUTSIDE, gpus="evaluation", shm="8Gi"),
    "promotion-gate": Pod("tools", cpu="1", memory="2Gi", hours=1, needs=("mlflow",)),
    "register-model": Pod("tools", cpu="1", memory="2Gi", hours=1, needs=("store", "mlflow")),
    "notify": Pod("tools", cpu="1", memory="1Gi", hours=0.5, needs=("mlflow", "webhook")),
}
SMALL: Final = {
    name: replace(
        pod,
        cpu="2",
        memory="4Gi",
        hours=min(pod.hours, 1),
        shm=pod.shm and "1Gi",
        retries=min(pod.retries, 1),
    )
    for name, pod in PODS.items()
    if name != "check-new-data"
}
"""For the smoke pipeline, which does not retrain: fits any node."""


@dataclass(frozen=True)
class Platform:
    """The platform settings that are parameters of the pipeline: plain values, or Kubeflow's stand-ins for them.

    GPU numbers are texts: Kubeflow's backend reads a whole number in this place as nothing, and asks for no GPU.
    """

    secret: Any = SECRET
    gpu_type: Any = "nvidia.com/gpu"
    training_gpus: Any = "1"
    evaluation_gpus: Any = "1"
    node_selector: Any = None
    tolerations: Any = None
    trainer_image: Any = images.TRAINER
    tools_image: Any = images.TOOLS


def furnish(task: PipelineTask, name: str, pod: Pod, platform: Platform, *, cluster: bool = True) -> PipelineTask:
    """Gives a task everything that its pod is to have.

    Args:
        task: The task.
        name: The step's name, for its label.
        pod: What the pod gets.
        platform: The pipeline's parameters that concern pods.
        cluster: Whether Kubeflow runs it. Under kfp.local a person watches, so nothing is tried again, and the image
            must be a plain name.
    """
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    task.set_caching_options(pod.cached)
    if cluster:
        task.set_container_image(platform.trainer_image if pod.image == "trainer" else platform.tools_image)
        task.set_retry(pod.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=ALL_ATTEMPTS)
    if pod.gpus:
        task.set_accelerator_type(platform.gpu_type)
        task.set_accelerator_limit(platform.training_gpus if pod.gpus == "training" else platform.evaluation_gpus)
        if platform.node_selector is not None:
            kubernetes.add_node_selector_json(task, platform.node_selector)
        if platform.tolerations is not None:
            kubernetes.add_toleration_json(task, platform.tolerations)
    if pod.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pod.shm)
    kubernetes.set_timeout(task, round(pod.hours * 3600))
    kubernetes.add_pod_label(task, PART_OF, "stepcoder")
    kubernetes.add_pod_label(task, COMPONENT, name)
    # The rest of the restricted standard (no capabilities, no escalation, default seccomp) is the backend's own.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    _environment(task, pod, platform)
    return task


def _environment(task: PipelineTask, pod: Pod, platform: Platform) -> None:
    groups = [ENVIRONMENT[need] for need in pod.needs]
    if plain := [key for group in groups for key in group.config_map]:
        kubernetes.use_config_map_as_env(task, CONFIG_MAP, {key: key for key in plain}, optional=True)
    if secret := [key for group in groups for key in group.secret]:
        kubernetes.use_secret_as_env(task, platform.secret, {key: key for key in secret}, optional=True)
    if "mlflow" in pod.needs:
        # Never a parameter: the run's id would make every input of every step new to the cache.
        kubernetes.use_field_path_as_env(task, "STEPCODER_RUN_ID", "metadata.labels['pipeline/runid']")
    if {"store", "mlflow"} & set(pod.needs):
        kubernetes.use_config_map_as_volume(task, CA_CONFIG_MAP, CA_FOLDER, optional=True)
