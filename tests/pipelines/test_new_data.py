"""Retraining is for new data alone, begins at the champion, and measures it again on all test problems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from pipelines.pods import PODS
from pipelines.retraining import build_retraining
from pipelines.stepcoder import build
from stepcoder.errors import DataError, StepCoderError
from stepcoder.inputs import problems_digest
from stepcoder.new_data import NewDataConfig, check, newest
from stepcoder.platform import tracking
from stepcoder.platform.tracking import pipeline_run
from stepcoder.platform.tracking.model_registry import PARENTS_TAG
from stepcoder.registry import RegisterConfig, register

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "problems.jsonl"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def data(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewDataConfig:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv(tracking.RUN_ID, tmp_path.name)
    (tmp_path / "problems.jsonl").write_text("{}\n")
    return NewDataConfig(problems=str(tmp_path / "problems.jsonl"), model_name=tmp_path.name)


def add_version(config: NewDataConfig, policy: str, *, promote: bool = True) -> str:
    """Registers as register-model does after a run on the problems as they are now."""
    folder = Path(config.problems).parent / policy
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text(policy)
    parents = (f"problems={problems_digest(config.problems)}", "base_model=b1")
    made = RegisterConfig(
        policy=str(folder), model_name=config.model_name, promote=promote, why="better", parents=parents
    )
    return register(made).version


def test_a_model_without_versions_is_trained(data: NewDataConfig) -> None:
    assert newest(data.model_name) == ("", "")
    assert check(data).new


@pytest.mark.parametrize("promote", [True, False])
def test_data_that_the_newest_version_has_seen_is_not_new_whether_it_was_promoted_or_not(
    promote: bool, data: NewDataConfig
) -> None:
    add_version(data, "policy", promote=promote)
    found = check(data)
    assert (found.new, found.since) == (False, "1")
    outcome = pipeline_run.reported_outcome()["outcome"]
    assert outcome == f"no new data since version 1 of {data.model_name}; nothing was trained"


def test_more_problems_and_a_changed_file_of_the_settings_are_new(data: NewDataConfig, tmp_path: Path) -> None:
    add_version(data, "policy")
    corrections = tmp_path / "corrections.jsonl"
    corrections.write_text("")
    assert check(data.model_copy(update={"companions": (str(corrections),)})).new
    with Path(data.problems).open("a") as stream:
        stream.write("{}\n")
    assert check(data).new


def test_data_that_came_back_with_a_policy_that_was_registered_before_is_not_new(data: NewDataConfig) -> None:
    path = Path(data.problems)
    for policy, text in {"policy-a": "{}\n", "policy-b": "{}\n{}\n"}.items():
        path.write_text(text)
        add_version(data, policy)
    path.write_text("{}\n")
    assert check(data).new
    assert add_version(data, "policy-a") == "1"
    assert not check(data).new


def test_data_whose_registration_failed_half_way_is_still_new(
    data: NewDataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StepCoderError("the server is away")

    add_version(data, "policy")
    Path(data.problems).write_text("{}\n{}\n")
    monkeypatch.setattr("stepcoder.registry.champions.move", fails)
    with pytest.raises(StepCoderError, match="away"):
        add_version(data, "other")
    assert check(data).new


def test_only_the_newest_version_counts(data: NewDataConfig) -> None:
    first = Path(data.problems).read_text()
    for number in range(11):  # as texts, 9 comes after 10
        Path(data.problems).write_text(first * (number + 1))
        add_version(data, f"policy-{number}")
    assert newest(data.model_name)[0] == "11"
    assert not check(data).new
    Path(data.problems).write_text(first)
    assert check(data).new


def test_missing_data_and_a_lost_registry_are_told(data: NewDataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        check(data.model_copy(update={"problems": "/no/such.jsonl"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StepCoderError, match=r"model registry at http://127.0.0.1:9"):
        check(data)


def test_an_error_without_words_where_the_outcome_is_told_does_not_stop_the_check(
    data: NewDataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: str) -> None:
        raise TimeoutError

    add_version(data, "policy")
    monkeypatch.setattr(pipeline_run, "report_outcome", fails)
    assert not check(data).new


# --- the pipeline ----------------------------------------------------------------------------------------------------


def compiled(pipeline: Any, folder: Path) -> dict[str, Any]:
    compiler.Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
    spec: dict[str, Any] = next(yaml.safe_load_all((folder / "pipeline.yaml").read_text()))
    return spec


def test_the_retraining_pipeline_is_the_training_behind_one_question(tmp_path: Path) -> None:
    spec, plain = compiled(build_retraining(2), tmp_path), compiled(build(2), tmp_path)
    assert spec["root"]["inputDefinitions"] == plain["root"]["inputDefinitions"]
    components = spec["components"]
    outer = components["comp-stepcoder-retraining-when-new"]["dag"]["tasks"]
    question = outer.pop("check-new-data")
    assert not question["cachingOptions"].get("enableCache")
    assert question["retryPolicy"]["maxRetryCount"] == PODS["check-new-data"].retries
    ((_, condition),) = outer.items()
    assert condition["triggerPolicy"]["condition"].endswith("['pipelinechannel--check-new-data-Output'] == true")
    body = components[condition["componentRef"]["name"]]["dag"]["tasks"]
    assert list(body) == ["stepcoder-retraining-train"]
    ours = components["comp-stepcoder-retraining-train"]["dag"]["tasks"]
    theirs = plain["components"]["comp-stepcoder-train"]["dag"]["tasks"]
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == ["resolve-inputs"]
    warm = {"runtimeValue": {"constant": True}}
    assert ours["resolve-inputs"]["inputs"]["parameters"]["warm_start"] == warm


# --- a whole run -----------------------------------------------------------------------------------------------------

QUICK = (
    *("ppo.steps=1", "sft.validation_problems=0", "ppo.validation_problems=0", "evaluation.problems=null"),
    *("sft.max_new_tokens=48", "ppo.max_new_tokens=48", "evaluation.max_new_tokens=48", "evaluation.samples=1"),
)


def retrain(home: Path, problems: Path) -> str:
    command = [sys.executable, "-m", "pipelines.local", "--preset", "smoke", "--retrain", "--problems", str(problems)]
    command += [part for text in QUICK for part in ("--set", text)]
    environment = os.environ | {"STEPCODER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_nothing_is_trained_without_new_data_and_with_it_the_champion_is_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepcoder.model.init import InitModelConfig, init_model

    problems = tmp_path / "problems.jsonl"
    lines = EXAMPLES.read_text().splitlines(keepends=True)
    problems.write_text("".join(lines[:40]))
    champion = tmp_path / "champion"
    init_model(InitModelConfig(problems=str(problems), out=str(champion), hidden_size=32, layers=1, heads=2))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    parents = (f"problems={problems_digest(str(problems))}", "base_model=b1")
    register(RegisterConfig(policy=str(champion), promote=True, why="the first one", parents=parents))

    output = retrain(tmp_path, problems)
    assert "no new data since version 1" in output
    assert "status SUCCEEDED" in output
    assert "outcome no new data since version 1 of stepcoder; nothing was trained" in output
    assert "resolve-inputs" not in output
    assert newest("stepcoder")[0] == "1"

    before = problems_digest(str(problems))
    problems.write_text("".join(lines[:60]))
    output = retrain(tmp_path, problems)
    assert "starts_from champion" in output
    versions = {
        str(version.version): version for version in tracking.client().search_model_versions("name='stepcoder'")
    }
    assert sorted(versions) == ["1", "2"]
    digests = dict(item.split("=") for item in versions["2"].tags[PARENTS_TAG].split(", "))
    assert digests["base_model"] == versions["1"].tags["stepcoder.policy_digest"]
    assert digests["problems"] == problems_digest(str(problems)) != before
    run = next((tmp_path / "runs" / "smoke" / "artifacts").glob("*/evaluate")).parent
    assert json.loads((run / "sft" / "policy" / "stepcoder.json").read_text())["parents"] == [str(champion)]
    metrics = json.loads((run / "evaluate" / "evaluation" / "metrics.json").read_text())
    test_problems = [json.loads(line)["id"] for line in (run / "verify-dataset" / "dataset" / "test.jsonl").open()]
    assert sorted(metrics["models"]["champion"]["counts"]) == sorted(test_problems)
    assert metrics["models"]["champion"]["digest"] == versions["1"].tags["stepcoder.policy_digest"]
