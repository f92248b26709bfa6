"""resolve-inputs: all that is missing at once, digests that follow the content, the champion of the registry."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stepcoder import inputs
from stepcoder.errors import DataError, StepCoderError
from stepcoder.inputs import ResolveConfig, resolve
from stepcoder.platform import tracking


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def good(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> ResolveConfig:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    (tmp_path / "problems.jsonl").write_text("{}\n")
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (model / name).write_text(name)
    return ResolveConfig(problems=str(tmp_path / "problems.jsonl"), problem_format="apps_plus", base_model=str(model))


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


def test_a_hub_id_that_nobody_knows_is_bad_input(good: ResolveConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the hub's client is not installed")

    def unreachable(*arguments: object, **values: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    with pytest.raises(DataError, match=r"some-owner/no-such-model.*no network"):
        resolve(good.model_copy(update={"base_model": "some-owner/no-such-model"}))


def test_the_champion_is_found_by_its_alias(good: ResolveConfig) -> None:
    assert (resolve(good).champion_uri, resolve(good).champion_digest) == ("", "")
    client = tracking.client()
    client.create_registered_model("coder")
    version = client.create_model_version("coder", "s3://bucket/policy", tags={inputs.DIGEST_TAG: "abc"})
    named = good.model_copy(update={"model_name": "coder"})
    assert resolve(named).champion_uri == ""
    client.set_registered_model_alias("coder", "champion", version.version)
    assert (resolve(named).champion_uri, resolve(named).champion_digest) == ("s3://bucket/policy", "abc")


def test_an_unreachable_registry_stops_the_run_before_it_costs_anything(
    good: ResolveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(StepCoderError, match="registry") as caught:
            resolve(good)
    assert caught.value.exit_status == 1
