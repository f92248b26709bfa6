"""What Kubeflow's own cache makes of the compiled pipeline: no stale hit and no needless miss."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipelines.kubeflow_keys import Kubeflow

FILE = Path(__file__).resolve().parents[2] / "pipelines" / "stepcoder.yaml"
GIVEN = {"problems": "s3://bucket/problems.jsonl", "base_model": "s3://bucket/model", "ppo": {"steps": 7.0}}
RESOLVED = {"problems_digest": "p", "base_model_digest": "b", "champion_uri": "", "champion_digest": ""}
OTHER_PROBLEMS = {"problems_digest": "other"}
OTHER_MODEL = {"base_model_digest": "other", "start_model_digest": "other"}
STAGES = ["ppo-stage", "ppo-stage-2", "ppo-stage-3"]
ALWAYS = ["resolve-inputs", "evaluate", "promotion-gate", "register-model", "notify"]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(FILE.read_text()))
    return found


@pytest.fixture
def cluster(spec: dict[str, Any]) -> Kubeflow:
    """A cluster on which the pipeline has run once."""
    kubeflow = Kubeflow(spec)
    assert sorted(run(kubeflow)) == sorted([*ALWAYS, "verify-dataset", "sft", *STAGES])
    return kubeflow


def run(cluster: Kubeflow, resolved: dict[str, str] | None = None, **parameters: Any) -> list[str]:
    return cluster.run(GIVEN | parameters, {"resolve-inputs": RESOLVED | (resolved or {})})


def cached_steps_that_ran(cluster: Kubeflow, resolved: dict[str, str] | None = None, **parameters: Any) -> list[str]:
    ran = run(cluster, resolved, **parameters)
    assert set(ALWAYS) <= set(ran)
    return [name for name in ran if name not in ALWAYS]


def test_the_same_again_runs_only_what_is_never_cached(cluster: Kubeflow) -> None:
    assert cached_steps_that_ran(cluster) == []


def test_a_changed_dataset_at_the_same_address_runs_all(cluster: Kubeflow) -> None:
    assert cached_steps_that_ran(cluster, OTHER_PROBLEMS) == ["verify-dataset", "sft", *STAGES]
    assert cached_steps_that_ran(cluster) == [], "the first one's results are still there"


def test_a_changed_base_model_at_the_same_address_keeps_the_dataset(cluster: Kubeflow) -> None:
    assert cached_steps_that_ran(cluster, OTHER_MODEL) == ["sft", *STAGES]


def test_a_new_champion_is_evaluated_and_nothing_more(cluster: Kubeflow) -> None:
    assert cached_steps_that_ran(cluster, {"champion_uri": "s3://bucket/c", "champion_digest": "c"}) == []


@pytest.mark.parametrize(
    ("changed", "ran"),
    [
        ({"verification": {"repeats": 2.0}}, ["verify-dataset", "sft", *STAGES]),
        ({"sft": {"epochs": 1.0}}, ["sft", *STAGES]),
        ({"ppo": {"steps": 8.0}}, STAGES),
        ({"evaluation": {"samples": 3.0}, "gate": {"margin": 0.1}}, []),
        ({"model_name": "other", "champion_alias": "best", "measurements": "s3://bucket/m"}, []),
        ({"secret": "other", "node_selector": {"gpu": "big"}, "tolerations": [{"key": "gpu"}]}, []),
        ({"evaluation_gpus": "4"}, []),
        ({"tools_image": "registry/tools:2"}, ["verify-dataset", "sft", *STAGES]),
        ({"trainer_image": "registry/trainer:2"}, ["sft", *STAGES]),
    ],
)
def test_a_changed_parameter_runs_what_depends_on_it(
    cluster: Kubeflow, changed: dict[str, Any], ran: list[str]
) -> None:
    assert cached_steps_that_ran(cluster, **changed) == ran


@pytest.mark.parametrize(
    "changed",
    [
        {"training_gpus": "8"},
        {"gpu_type": "amd.com/gpu"},
        {"nodes": 2.0},
        {"gpus_per_node": 8.0},
        {"memory_per_node": "512Gi"},
        {"queue": "nightly"},
        {"checkpoints": "s3://bucket/checkpoints"},
    ],
)
def test_how_training_is_spread_is_seen_by_the_cache(cluster: Kubeflow, changed: dict[str, Any]) -> None:
    """Kubeflow leaves no input of a step out. With `checkpoints` the trainings go on from their last one."""
    assert cached_steps_that_ran(cluster, **changed) == ["sft", *STAGES]


def test_the_page_of_parameters_says_what_each_one_starts_anew(spec: dict[str, Any]) -> None:
    page = (FILE.parents[1] / "docs" / "parameters.md").read_text()
    said = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\w, -]+) \|$", page.split("\n## ")[1], flags=re.MULTILINE))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert said.keys() == parameters.keys()
    for name, steps in said.items():
        kubeflow = Kubeflow(spec)
        run(kubeflow)
        resolved = {"problems": OTHER_PROBLEMS, "base_model": OTHER_MODEL}.get(name)
        ran = cached_steps_that_ran(kubeflow, resolved, **{name: "something else"})
        assert steps == (", ".join(step for step in ran if step not in STAGES[1:]) or "none"), name


def test_what_comes_after_a_step_that_ran_anew_runs_too(spec: dict[str, Any]) -> None:
    """Even where all digests are the same: Kubeflow knows an artifact by its number, not by its content."""
    kubeflow = Kubeflow(spec)
    run(kubeflow)
    forgetful = Kubeflow(spec, _numbers=kubeflow._numbers, _results=dict(kubeflow._results))
    sft = next(key for key, result in forgetful._results.items() if result.keys() == {"policy", "history"})
    del forgetful._results[sft]
    assert cached_steps_that_ran(forgetful) == ["sft", *STAGES]


def test_a_key_without_the_digest_would_give_a_stale_hit(spec: dict[str, Any]) -> None:
    """That the first tests can fail."""
    careless = copy.deepcopy(spec)
    task = careless["components"]["comp-stepcoder-train"]["dag"]["tasks"]["verify-dataset"]
    del task["inputs"]["parameters"]["problems_digest"]
    kubeflow = Kubeflow(careless)
    run(kubeflow)
    assert cached_steps_that_ran(kubeflow, OTHER_PROBLEMS) == []
