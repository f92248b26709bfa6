"""What each step's pod gets: processors, memory, retries, caching and environment, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kfp import kubernetes
from kfp.dsl import PipelineTask

CONFIG_MAP: Final = "stepcoder"
"""Config map whose keys become environment variables in every pod; it may be absent."""
SECRET: Final = "stepcoder"
"""Secret whose keys become environment variables in every pod; it may be absent."""
FROM_CONFIG_MAP: Final = (
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_URI",
)
FROM_SECRET: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Pod:
    """Limits of a step's pod; requests are the same, so that a step never meets a neighbour's appetite."""

    cpu: str
    memory: str
    gpus: int = 0
    cached: bool = False
    """Whether an earlier result for the same inputs is taken: this is how a run resumes after a failed step."""
    retries: int = 2
    """Further attempts after a failure; a step with checkpoints goes on where it was."""


PODS: Final = {
    "resolve-inputs": Pod(cpu="1", memory="2Gi"),
    "verify-dataset": Pod(cpu="8", memory="16Gi", cached=True),
    "sft": Pod(cpu="8", memory="64Gi", gpus=1, cached=True, retries=3),
    "ppo-stage": Pod(cpu="16", memory="128Gi", gpus=1, cached=True, retries=3),
    "evaluate": Pod(cpu="8", memory="64Gi", gpus=1),
    "promotion-gate": Pod(cpu="1", memory="2Gi"),
    "register-model": Pod(cpu="1", memory="2Gi"),
    "notify": Pod(cpu="1", memory="1Gi"),
}
SMALL: Final = {
    name: Pod(cpu="2", memory="4Gi", cached=pod.cached, retries=min(pod.retries, 1)) for name, pod in PODS.items()
}
"""For the smoke pipeline: fits any node, without a GPU."""


def furnish(task: PipelineTask, pods: dict[str, Pod], name: str, *, retry: bool = True) -> PipelineTask:
    """Gives a task what `pods[name]` says, and the environment that every pod has."""
    pod = pods[name]
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(pod.gpus)
    task.set_caching_options(pod.cached)
    if retry and pod.retries:
        task.set_retry(pod.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    # Never a parameter: the run's id would make every input of every step new to the cache.
    kubernetes.use_field_path_as_env(task, env_name="STEPCODER_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    kubernetes.use_config_map_as_env(
        task,
        config_map_name=CONFIG_MAP,
        config_map_key_to_env={key: key for key in FROM_CONFIG_MAP},
        optional=True,
    )
    kubernetes.use_secret_as_env(
        task, secret_name=SECRET, secret_key_to_env={key: key for key in FROM_SECRET}, optional=True
    )
    return task
