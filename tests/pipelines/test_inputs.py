"""resolve-inputs: all that is missing at once, digests that follow the content, the champion of the registry."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.inputs import ResolveConfig, resolve
from stepcoder.platform import storage, tracking
from stepcoder.platform.tracking.model_registry import DIGEST_TAG


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def good(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> ResolveConfig:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    (tmp_path / "problems.jsonl").write_text("{}\n")
    model = checkpoint(tmp_path / "model")
    return ResolveConfig(problems=str(tmp_path / "problems.jsonl"), problem_format="apps_plus", base_model=str(model))


def checkpoint(folder: Path) -> Path:
    """A folder with the files of a checkpoint; the weights are none."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (folder / "model.safetensors").write_text(folder.name)
    return folder


def test_digests_follow_the_content_and_not_the_address(good: ResolveConfig, tmp_path: Path) -> None:
    first = resolve(good)
    assert resolve(good) == first
    (tmp_path / "copy.jsonl").write_text("{}\n")
    assert resolve(good.model_copy(update={"problems": str(tmp_path / "copy.jsonl")})) == first
    Path(good.problems).write_text("{} \n")
    (Path(good.base_model) / "model.safetensors").write_text("other")
    second = resolve(good)
    assert second.problems_digest != first.problems_digest
    assert second.base_model_digest != first.base_model_digest


def test_files_that_the_verification_reads_are_part_of_the_digest(good: ResolveConfig, tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.jsonl"
    with_corrections = good.model_copy(update={"companions": (str(corrections),)})
    corrections.write_text("1")
    first = resolve(with_corrections)
    corrections.write_text("2")
    assert len({resolve(good).problems_digest, first.problems_digest, resolve(with_corrections).problems_digest}) == 3


def test_everything_that_is_missing_is_listed_at_once(good: ResolveConfig, tmp_path: Path) -> None:
    (Path(good.base_model) / "tokenizer_config.json").unlink()
    (Path(good.base_model) / "model.safetensors").unlink()
    wrong = good.model_copy(update={"problems": str(tmp_path / "nowhere.jsonl"), "problem_format": "csv"})
    with pytest.raises(DataError) as caught:
        resolve(wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "csv" in lines[0]
    assert "leetcode" in lines[0]
    assert "nowhere.jsonl" in lines[1]
    assert "no tokenizer" in lines[2]
    assert "no weights" in lines[3]


@pytest.mark.parametrize("address", ["./missing", "/a/b/c", "a/b/c"])
def test_a_missing_model_folder_is_no_hub_id(good: ResolveConfig, address: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        resolve(good.model_copy(update={"base_model": address}))


def registered(name: str, source: str, **tags: str) -> None:
    """A version that carries the champion's alias."""
    client = tracking.client()
    client.create_registered_model(name)
    version = client.create_model_version(name, source, tags=tags)
    client.set_registered_model_alias(name, "champion", version.version)


def test_the_champion_is_found_by_its_alias(good: ResolveConfig, tmp_path: Path) -> None:
    assert (resolve(good).champion_uri, resolve(good).champion_digest) == ("", "")
    policy = str(checkpoint(tmp_path / "policy"))
    registered("coder", policy, **{DIGEST_TAG: "abc"})
    resolved = resolve(good.model_copy(update={"model_name": "coder"}))
    assert (resolved.champion_uri, resolved.champion_digest) == (policy, "abc")
    assert (resolved.start_model, resolved.start_model_digest) == (good.base_model, resolved.base_model_digest)


def test_a_warm_start_begins_at_the_champion_and_leaves_the_base_model_what_it_is(
    good: ResolveConfig, tmp_path: Path
) -> None:
    warm = good.model_copy(update={"model_name": "warm", "warm_start": True})
    cold = resolve(warm)
    assert (cold.start_model, cold.start_model_digest) == (good.base_model, cold.base_model_digest)
    policy = str(checkpoint(tmp_path / "policy"))
    registered("warm", policy)
    resolved = resolve(warm)
    assert resolved.start_model == resolved.champion_uri == policy
    assert resolved.start_model_digest == storage.digest(Path(policy))
    assert resolved.base_model_digest == cold.base_model_digest


def test_a_champion_whose_weights_are_gone_is_told_before_the_training(good: ResolveConfig, tmp_path: Path) -> None:
    registered("gone", str(tmp_path / "removed"))
    with pytest.raises(DataError, match=r"champion: .*removed: there is no such folder"):
        resolve(good.model_copy(update={"model_name": "gone"}))


def test_an_unreachable_registry_stops_the_run_before_it_costs_anything(
    good: ResolveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(StepCoderError, match=r"registry.*see MLFLOW_TRACKING_URI") as caught:
            resolve(good)
    assert caught.value.exit_status == 1
