"""What each task's pod gets, stated here once more and compared with the compiled files that a cluster is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
AUTHORITY = "AWS_CA_BUNDLE"
STORE = f"AWS_ENDPOINT_URL AWS_REGION {AUTHORITY}"
STORE_SECRET = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"
MLFLOW = "MLFLOW_TRACKING_URI MLFLOW_EXPERIMENT_NAME"
MLFLOW_SECRET = "MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN"
HUB = "HF_ENDPOINT HF_HUB_OFFLINE"
SANDBOX = "STEPCODER_SANDBOX"
SANDBOX_SECRET = "STEPCODER_SANDBOX_TOKEN"
CA = "/etc/stepcoder/ca"


class Row(NamedTuple):
    """One line of the table."""

    image: str
    cpu: str
    memory: str
    gpus: str | None
    shm: str | None
    hours: float
    retries: int
    cached: bool
    plain: str
    secret: str
    run_id: bool


LINK = "STEPCODER_KUBEFLOW_URL"
EVERYTHING = (f"{STORE} {MLFLOW} {HUB} {SANDBOX}", f"{STORE_SECRET} {MLFLOW_SECRET} HF_TOKEN {SANDBOX_SECRET}", True)
RESOLVING = (f"{EVERYTHING[0]} {LINK}", f"{EVERYTHING[1]} STEPCODER_NOTIFY_URL", True)
JUDGING = (f"{STORE} {MLFLOW} {SANDBOX}", f"{STORE_SECRET} {MLFLOW_SECRET} {SANDBOX_SECRET}", True)
REGISTERING = (f"{STORE} {MLFLOW}", f"{STORE_SECRET} {MLFLOW_SECRET}", True)
TELLING = (f"{MLFLOW} {AUTHORITY} {LINK}", f"{MLFLOW_SECRET} STEPCODER_NOTIFY_URL", True)
REPORTING = (f"{MLFLOW} {AUTHORITY}", MLFLOW_SECRET, True)

PPO = Row("trainer", "16", "128Gi", "training_gpus", "16Gi", 168, 3, True, *JUDGING)
FULL = {
    "resolve-inputs": Row("tools", "1", "2Gi", None, None, 1, 2, False, *RESOLVING),
    "verify-dataset": Row("tools", "8", "16Gi", None, None, 12, 2, True, *JUDGING),
    "sft": Row("trainer", "8", "64Gi", "training_gpus", "8Gi", 72, 3, True, *EVERYTHING),
    "ppo-stage": PPO,
    "ppo-stage-2": PPO,
    "ppo-stage-3": PPO,
    "evaluate": Row("trainer", "8", "64Gi", "evaluation_gpus", "8Gi", 24, 2, False, *EVERYTHING),
    "promotion-gate": Row("tools", "1", "2Gi", None, None, 1, 2, False, *REPORTING),
    "register-model": Row("tools", "1", "2Gi", None, None, 1, 2, False, *REGISTERING),
    "notify": Row("tools", "1", "1Gi", None, None, 0.5, 2, False, *TELLING),
}
SMOKE = {
    "resolve-inputs": Row("tools", "2", "4Gi", None, None, 1, 1, False, *RESOLVING),
    "verify-dataset": Row("tools", "2", "4Gi", None, None, 1, 1, True, *JUDGING),
    "sft": Row("trainer", "2", "4Gi", "training_gpus", "1Gi", 1, 1, True, *EVERYTHING),
    "ppo-stage": Row("trainer", "2", "4Gi", "training_gpus", "1Gi", 1, 1, True, *JUDGING),
    "evaluate": Row("trainer", "2", "4Gi", "evaluation_gpus", "1Gi", 1, 1, False, *EVERYTHING),
    "promotion-gate": Row("tools", "2", "4Gi", None, None, 1, 1, False, *REPORTING),
    "register-model": Row("tools", "2", "4Gi", None, None, 1, 1, False, *REGISTERING),
    "notify": Row("tools", "2", "4Gi", None, None, 0.5, 1, False, *TELLING),
}
RETRAINING = {**FULL, "check-new-data": Row("tools", "1", "2Gi", None, None, 1, 2, False, *REGISTERING)}
ROWS = {"stepcoder": FULL, "stepcoder_smoke": SMOKE, "retraining": RETRAINING}
TABLE = [(pipeline, task) for pipeline, rows in ROWS.items() for task in rows]


class Task(NamedTuple):
    """A task of a compiled pipeline with what belongs to it."""

    spec: dict[str, Any]
    container: dict[str, Any]
    pod: dict[str, Any]
    """The platform's half."""
    parameters: dict[str, Any]
    """Of the pipeline that the task lies in."""


@pytest.fixture(scope="module")
def tasks() -> dict[tuple[str, str], Task]:
    found = {}
    for file in ROWS:
        spec, platform = yaml.safe_load_all((ROOT / "pipelines" / f"{file}.yaml").read_text())
        components = spec["components"]
        for scope in (spec["root"], *components.values()):
            for name, task in scope.get("dag", {}).get("tasks", {}).items():
                if label := components[task["componentRef"]["name"]].get("executorLabel"):
                    assert (file, name) not in found
                    found[file, name] = Task(
                        task,
                        spec["deploymentSpec"]["executors"][label]["container"],
                        platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label],
                        scope["inputDefinitions"]["parameters"],
                    )
    return found


def row(pipeline: str, task: str) -> Row:
    return ROWS[pipeline][task]


def parameter(task: Task, text: str) -> str:
    """The pipeline parameter that a placeholder in a container's description stands for."""
    matched = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(pipelinechannel--\w+)'\]\}\}", text)
    assert matched, text
    source: str = task.spec["inputs"]["parameters"][matched[1]]["componentInputParameter"]
    assert source in task.parameters
    return source.removeprefix("pipelinechannel--")


def test_the_table_holds_every_task(tasks: dict[tuple[str, str], Task]) -> None:
    assert sorted(tasks) == sorted(TABLE)


@pytest.mark.parametrize(("pipeline", "name"), TABLE)
def test_image_and_resources(tasks: dict[tuple[str, str], Task], pipeline: str, name: str) -> None:
    task, wanted = tasks[pipeline, name], row(pipeline, name)
    assert parameter(task, task.container["image"]) == f"{wanted.image}_image"
    assert "pip install" not in " ".join(task.container["command"])
    resources = task.container["resources"]
    accelerator = resources.get("accelerator")
    # The others are numbers for backends that are older than these texts.
    assert {key: value for key, value in resources.items() if key.startswith("resource")} == {
        "resourceCpuLimit": wanted.cpu,
        "resourceCpuRequest": wanted.cpu,
        "resourceMemoryLimit": wanted.memory,
        "resourceMemoryRequest": wanted.memory,
    }
    if wanted.gpus is None:
        assert accelerator is None
    else:
        assert accelerator is not None
        assert parameter(task, accelerator["resourceCount"]) == wanted.gpus
        assert parameter(task, accelerator["resourceType"]) == "gpu_type"


@pytest.mark.parametrize(("pipeline", "name"), TABLE)
def test_timeout_retries_and_cache(tasks: dict[tuple[str, str], Task], pipeline: str, name: str) -> None:
    task, wanted = tasks[pipeline, name], row(pipeline, name)
    assert task.pod["activeDeadlineSeconds"] == str(int(wanted.hours * 3600))
    retry = dict(task.spec["retryPolicy"])
    # Argo takes it for the time of all attempts together, from the first one's start: no longest pause between two.
    together = int(retry.pop("backoffMaxDuration").removesuffix("s"))
    assert together >= (wanted.retries + 1) * wanted.hours * 3600 + 30 * 86400
    assert retry == {"maxRetryCount": wanted.retries, "backoffDuration": "30s", "backoffFactor": 2.0}
    assert task.spec["cachingOptions"] == ({"enableCache": True} if wanted.cached else {})


@pytest.mark.parametrize(("pipeline", "name"), TABLE)
def test_environment_from_the_cluster_is_what_the_step_needs_and_no_more(
    tasks: dict[tuple[str, str], Task], pipeline: str, name: str
) -> None:
    task, wanted = tasks[pipeline, name], row(pipeline, name)
    for kind, keys in (("configMap", wanted.plain.split()), ("secret", wanted.secret.split())):
        sources = task.pod.get(f"{kind}AsEnv", [])
        assert all(source["optional"] for source in sources)
        pairs = [(pair[f"{kind}Key"], pair["envVar"]) for source in sources for pair in source["keyToEnv"]]
        assert pairs == [(key, key) for key in keys]
    assert [source["configMapName"] for source in task.pod.get("configMapAsEnv", [])] == ["stepcoder"] * bool(
        wanted.plain
    )
    assert [source["secretNameParameter"] for source in task.pod.get("secretAsEnv", [])] == [
        {"componentInputParameter": "secret"}
    ] * bool(wanted.secret)
    assert task.pod.get("fieldPathAsEnv", []) == [
        {"fieldPath": "metadata.labels['pipeline/runid']", "name": "STEPCODER_RUN_ID"}
    ] * bool(wanted.run_id)
    assert "env" not in task.container


@pytest.mark.parametrize(("pipeline", "name"), TABLE)
def test_mounts(tasks: dict[tuple[str, str], Task], pipeline: str, name: str) -> None:
    task, wanted = tasks[pipeline, name], row(pipeline, name)
    assert task.pod.get("emptyDirMounts", []) == [
        {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": wanted.shm}
    ] * bool(wanted.shm)
    assert [(m["configMapName"], m["mountPath"], m["optional"]) for m in task.pod.get("configMapAsVolume", [])] == [
        ("stepcoder-ca", CA, True)
    ] * (AUTHORITY in wanted.plain)
    assert not {"secretAsVolume", "pvcMount", "genericEphemeralVolume"} & task.pod.keys()


@pytest.mark.parametrize(("pipeline", "name"), TABLE)
def test_labels_user_and_place(tasks: dict[tuple[str, str], Task], pipeline: str, name: str) -> None:
    task, wanted = tasks[pipeline, name], row(pipeline, name)
    assert task.pod["podMetadata"] == {
        "labels": {
            "app.kubernetes.io/part-of": "stepcoder",
            "app.kubernetes.io/component": re.sub(r"-\d+$", "", name),
        }
    }
    assert task.pod["securityContext"] == {"runAsUser": "65534", "runAsGroup": "65534", "runAsNonRoot": True}
    selects = {"nodeSelectorJson": {"componentInputParameter": "node_selector"}}
    tolerates = [{"tolerationJson": {"componentInputParameter": "tolerations"}}]
    assert task.pod.get("nodeSelector") == (selects if wanted.gpus else None)
    assert task.pod.get("tolerations") == (tolerates if wanted.gpus else None)


@pytest.mark.parametrize(("pipeline", "gpus"), [("stepcoder", "1"), ("stepcoder_smoke", "0")])
def test_platform_parameters_and_their_defaults(pipeline: str, gpus: str) -> None:
    spec = next(yaml.safe_load_all((ROOT / "pipelines" / f"{pipeline}.yaml").read_text()))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    given = {name: (value["parameterType"], value.get("defaultValue")) for name, value in parameters.items()}
    # A whole number would be read as an empty text by Kubeflow's backend, and no GPU asked for.
    assert given["training_gpus"] == given["evaluation_gpus"] == ("STRING", gpus)
    assert given["gpu_type"] == ("STRING", "nvidia.com/gpu")
    assert given["node_selector"] == ("STRUCT", {})
    assert given["tolerations"] == ("LIST", [])
    assert given["secret"] == ("STRING", "stepcoder")
    assert given["nodes"] == ("NUMBER_INTEGER", 0)
    assert given["gpus_per_node"] == ("NUMBER_INTEGER", 1)
    assert given["queue"] == ("STRING", "")
    assert all(value["description"] for value in parameters.values())
