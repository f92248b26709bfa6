"""What the compiled pipeline says: tasks, parameters, wiring, caching. What pods get is in `test_platform.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from pipelines import compile as generated
from pipelines.presets import SMOKE
from pipelines.stepcoder import build
from pipelines.stepcoder_smoke import build_smoke
from stepcoder import __version__, images

ROOT = Path(__file__).resolve().parents[2]

TASKS = [
    "resolve-inputs",
    "verify-dataset",
    "sft",
    "ppo-stage",
    "ppo-stage-2",
    "ppo-stage-3",
    "evaluate",
    "promotion-gate",
    "register-model",
]


def compiled(pipeline: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    compiler.Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
    spec, platform = yaml.safe_load_all((folder / "pipeline.yaml").read_text())
    return spec, platform


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled(build(), tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def spec(both: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return both[0]


@pytest.fixture(scope="module")
def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"]["comp-stepcoder-train"]["dag"]["tasks"]
    return found


def executor(spec: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    container: dict[str, Any] = spec["deploymentSpec"]["executors"][label]["container"]
    return container


def source(task: dict[str, Any], name: str) -> str:
    """Where an input comes from, as `task.output`, a pipeline parameter, or a constant."""
    inputs = task["inputs"].get("artifacts", {}) | task["inputs"].get("parameters", {})
    match inputs[name]:
        case {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}}:
            return f"{producer}.{key}"
        case {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}}:
            return f"{producer}.{key}"
        case {"componentInputParameter": parameter}:
            return str(parameter)
        case {"runtimeValue": {"constant": constant}}:
            return repr(constant)
    raise AssertionError(inputs[name])


def test_the_pipeline_has_these_parameters_and_defaults(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: (value["parameterType"], value.get("defaultValue")) for name, value in parameters.items()} == {
        "problems": ("STRING", None),
        "base_model": ("STRING", None),
        "problem_format": ("STRING", "apps_plus"),
        "model_name": ("STRING", "stepcoder"),
        "champion_alias": ("STRING", "champion"),
        "verification": ("STRUCT", {}),
        "sft": ("STRUCT", {}),
        "ppo": ("STRUCT", {}),
        "evaluation": ("STRUCT", {}),
        "gate": ("STRUCT", {}),
        "checkpoints": ("STRING", ""),
        "measurements": ("STRING", ""),
        "nodes": ("NUMBER_INTEGER", 0),
        "gpus_per_node": ("NUMBER_INTEGER", 1),
        "cpu_per_node": ("STRING", ""),
        "memory_per_node": ("STRING", ""),
        "queue": ("STRING", ""),
        "gpu_type": ("STRING", "nvidia.com/gpu"),
        "training_gpus": ("STRING", "1"),
        "evaluation_gpus": ("STRING", "1"),
        "node_selector": ("STRUCT", {}),
        "tolerations": ("LIST", []),
        "secret": ("STRING", "stepcoder"),
        "trainer_image": ("STRING", images.TRAINER),
        "tools_image": ("STRING", images.TOOLS),
    }
    assert [name for name, value in parameters.items() if not value.get("isOptional")] == ["base_model", "problems"]


def test_the_pipeline_has_these_tasks(tasks: dict[str, Any]) -> None:
    assert sorted(tasks) == sorted(TASKS)
    shown = {name: task["taskInfo"]["name"] for name, task in tasks.items()}
    assert shown == {name: name for name in TASKS} | {"ppo-stage": "ppo-stage-1"}


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_every_stage_is_a_task(stages: int, tmp_path: Path) -> None:
    spec, _ = compiled(build(stages), tmp_path)
    tasks = spec["components"]["comp-stepcoder-train"]["dag"]["tasks"]
    names = sorted(
        (name for name in tasks if name.startswith("ppo-stage")), key=lambda name: tasks[name]["taskInfo"]["name"]
    )
    assert [source(tasks[name], "stage") for name in names] == [repr(float(number + 1)) for number in range(stages)]
    assert {source(tasks[name], "stages") for name in names} == {repr(float(stages))}
    assert source(tasks["register-model"], "policy_uri") == f"{names[-1]}.policy_uri"


def test_a_pipeline_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        build(0)


def test_the_digests_of_resolve_inputs_reach_the_steps_that_are_cached(tasks: dict[str, Any]) -> None:
    assert source(tasks["verify-dataset"], "problems_digest") == "resolve-inputs.problems_digest"
    assert source(tasks["sft"], "base_model") == "resolve-inputs.start_model"
    assert source(tasks["sft"], "base_model_digest") == "resolve-inputs.start_model_digest"
    assert source(tasks["register-model"], "base_model_digest") == "resolve-inputs.start_model_digest"
    assert source(tasks["evaluate"], "champion_uri") == "resolve-inputs.champion_uri"
    assert source(tasks["evaluate"], "champion_digest") == "resolve-inputs.champion_digest"
    assert source(tasks["evaluate"], "base_model") == "resolve-inputs.base_model_uri"
    assert source(tasks["evaluate"], "base_model_digest") == "resolve-inputs.base_model_digest"


def test_what_the_stages_hand_on(tasks: dict[str, Any]) -> None:
    before = {"ppo-stage": "sft", "ppo-stage-2": "ppo-stage", "ppo-stage-3": "ppo-stage-2"}
    for name, previous in before.items():
        task = tasks[name]
        assert source(task, "dataset") == "verify-dataset.dataset"
        assert source(task, "reference") == "sft.policy"
        assert source(task, "policy_in") == f"{previous}.policy"
        assert source(task, "history_in") == f"{previous}.history"
        if previous == "sft":
            assert not {"critic_in", "curriculum_in"} & task["inputs"]["artifacts"].keys()
        else:
            assert source(task, "critic_in") == f"{previous}.critic"
            assert source(task, "curriculum_in") == f"{previous}.curriculum"


def test_trainings_get_what_a_train_job_needs(tasks: dict[str, Any]) -> None:
    for name in ("sft", "ppo-stage", "ppo-stage-3"):
        for parameter in ("nodes", "gpus_per_node", "gpu_type", "cpu_per_node", "memory_per_node", "queue"):
            assert source(tasks[name], parameter) == parameter


def test_what_evaluation_gate_and_registration_get(tasks: dict[str, Any]) -> None:
    evaluate, gate, register = tasks["evaluate"], tasks["promotion-gate"], tasks["register-model"]
    assert source(evaluate, "sft_policy") == "sft.policy"
    assert source(evaluate, "candidate") == "ppo-stage-3.policy"
    assert source(evaluate, "history") == "ppo-stage-3.history"
    assert source(gate, "evaluation") == "evaluate.evaluation"
    assert source(register, "promote") == "promotion-gate.promote"
    assert source(register, "why") == "promotion-gate.why"
    assert source(register, "decision") == "promotion-gate.decision"
    # An artifact input would be downloaded whole, weights and all.
    assert register["inputs"]["artifacts"].keys() == {"decision"}


def test_settings_go_to_their_step_and_to_the_check_at_the_start(tasks: dict[str, Any]) -> None:
    sections = {"verify-dataset": "verification", "sft": "sft", "ppo-stage-2": "ppo", "evaluate": "evaluation"}
    for task, section in (sections | {"promotion-gate": "gate"}).items():
        assert source(tasks[task], "settings") == section
        assert source(tasks["resolve-inputs"], section) == section


def test_every_place_that_is_written_to_is_tried_at_the_start(tasks: dict[str, Any]) -> None:
    for place in ("checkpoints", "measurements"):
        assert source(tasks["resolve-inputs"], place) == place
    assert source(tasks["resolve-inputs"], "warm_start") == "False"


def test_only_the_long_reproducible_steps_are_cached(spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"verify-dataset", "sft", "ppo-stage", "ppo-stage-2", "ppo-stage-3"}
    assert not spec["root"]["dag"]["tasks"]["notify"]["cachingOptions"].get("enableCache")


def test_kfp_local_gets_plain_images_and_tries_nothing_again(tmp_path: Path) -> None:
    spec, _ = compiled(build(cluster=False), tmp_path)
    for name, task in spec["components"]["comp-stepcoder-train"]["dag"]["tasks"].items():
        assert "retryPolicy" not in task
        trains = name in {"sft", "evaluate"} or name.startswith("ppo-stage")
        assert executor(spec, task)["image"] == (images.TRAINER if trains else images.TOOLS)


def test_images_have_a_version() -> None:
    assert not {"latest", ""} & {image.rpartition(":")[2] for image in (images.TRAINER, images.TOOLS)}


def test_nothing_of_the_run_is_a_parameter(spec: dict[str, Any]) -> None:
    assert "{{$.pipeline_job" not in yaml.safe_dump(spec)


def test_notify_runs_after_the_train_pipeline_whatever_happened(spec: dict[str, Any]) -> None:
    root = spec["root"]["dag"]["tasks"]
    notify = root["notify"]
    assert notify["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    (body,) = (name for name in root if name != "notify")
    assert notify["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": body}}
    inner = spec["components"][root[body]["componentRef"]["name"]]["dag"]["tasks"]
    assert list(inner) == ["stepcoder-train"]


def test_the_smoke_pipeline_has_one_stage_and_settings_of_its_own(tmp_path: Path) -> None:
    spec, _ = compiled(build_smoke(), tmp_path)
    tasks = spec["components"]["comp-stepcoder-smoke-train"]["dag"]["tasks"]
    assert sorted(tasks) == sorted(name for name in TASKS if name not in {"ppo-stage-2", "ppo-stage-3"})
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    for section in ("verification", "sft", "ppo", "evaluation", "gate"):
        assert parameters[section]["defaultValue"] == SMOKE[section]


def test_a_registry_of_ones_own_is_in_the_files_that_are_compiled_for_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.compile", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"STEPCODER_REGISTRY": "registry.example.com/team/"})
    prefix = "registry.example.com/team/stepcoder/"
    for file in ("stepcoder", "stepcoder_smoke"):
        spec = next(yaml.safe_load_all((tmp_path / "pipelines" / f"{file}.yaml").read_text()))
        parameters = spec["root"]["inputDefinitions"]["parameters"]
        assert parameters["trainer_image"]["defaultValue"] == f"{prefix}trainer:{__version__}"
        assert parameters["tools_image"]["defaultValue"] == f"{prefix}tools:{__version__}"
    component = next(yaml.safe_load_all((tmp_path / "components" / "sft" / "component.yaml").read_text()))
    assert component["deploymentSpec"]["executors"]["exec-sft"]["container"]["image"].startswith(prefix)


def test_generated_files_are_what_the_code_gives() -> None:
    assert generated.differing() == [], "run `make compile` and commit what it writes"


def test_the_check_names_a_file_that_differs_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generated, "generate", lambda: {"pipelines/stepcoder.yaml": "other"})
    assert generated.main(["--check"]) == 1
    printed = capsys.readouterr().err
    assert "pipelines/stepcoder.yaml" in printed
    assert "make compile" in printed
