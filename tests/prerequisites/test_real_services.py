"""The whole check against a real MLflow with PostgreSQL and basic auth, and a real object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcoder.errors import StepCoderError
from stepcoder.inputs import ResolveConfig, problems_digest, resolve
from stepcoder.new_data import NewDataConfig, check
from stepcoder.platform import storage
from stepcoder.platform.tracking import pipeline_run
from stepcoder.registry import RegisterConfig, register
from tests.servers.mlflow_server import MlflowServer
from tests.servers.swift import Swift

pytestmark = pytest.mark.mlflow


@pytest.fixture
def inputs(mlflow_server: MlflowServer, swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolveConfig:
    """Everything in the object store, as on a cluster."""
    for name, value in {**mlflow_server.environment, **swift.environment, "STEPCODER_RUN_ID": "weekly-7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    bucket = f"s3://{swift.bucket()}"
    (tmp_path / "problems.jsonl").write_text("{}\n")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 77}')
    (model / "tokenizer_config.json").write_text("{}")
    (model / "model.safetensors").write_text("weights")
    storage.publish(tmp_path / "problems.jsonl", f"{bucket}/problems.jsonl")
    storage.publish(model, f"{bucket}/model")
    return ResolveConfig(
        problems=f"{bucket}/problems.jsonl",
        problem_format="apps_plus",
        base_model=f"{bucket}/model",
        model_name=f"coder-{bucket[-6:]}",
        checkpoints=f"{bucket}/checkpoints",
        measurements=f"{bucket}/measurements",
        warm_start=True,
    )


def test_a_run_that_can_start_is_resolved_and_later_begins_at_its_champion(inputs: ResolveConfig) -> None:
    data = NewDataConfig(problems=inputs.problems, model_name=inputs.model_name)
    assert check(data).new
    first = resolve(inputs)
    assert (first.start_model, first.champion_uri) == (inputs.base_model, "")
    parents = (f"problems={problems_digest(inputs.problems)}", f"base_model={first.base_model_digest}")
    register(
        RegisterConfig(
            policy=inputs.base_model, model_name=inputs.model_name, promote=True, why="better", parents=parents
        )
    )
    assert not check(data).new
    assert "no new data since version 1" in pipeline_run.reported_outcome()["outcome"]
    second = resolve(inputs)
    assert second.start_model == second.champion_uri == inputs.base_model
    assert not storage.exists(inputs.checkpoints)


def test_wrong_credentials_are_told_by_their_keys_and_without_them(
    inputs: ResolveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed-password")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed-secret")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(StepCoderError) as caught:
        resolve(inputs)
    lines = str(caught.value).splitlines()
    places = ["problems", "base_model", "checkpoints", "measurements", "registry"]
    assert [line.partition(":")[0] for line in lines] == places
    assert all("refuses access" in line and "AWS_SECRET_ACCESS_KEY" in line for line in lines[:4])
    assert "401" in lines[4] or "UNAUTHENTICATED" in lines[4]
    assert "MLFLOW_TRACKING_PASSWORD" in lines[4]
    assert "guessed" not in str(caught.value)
