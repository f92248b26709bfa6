"""Addresses in an object store, against moto in this process: semantics only, not signatures or faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import storage


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    moto = pytest.importorskip("moto", reason="moto is not installed")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_folder_comes_back_as_it_went(bucket: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b/c": "2"})
    storage.publish(source, f"{bucket}/runs/policy")
    back = storage.fetch(f"{bucket}/runs/policy/", tmp_path / "cache")
    assert storage.digest(back) == storage.digest(source)
    assert back.name == "policy"
    assert storage.fetch("minio://bucket/runs/policy/b/c", tmp_path / "cache").read_text() == "2"


def test_a_name_that_only_begins_alike_is_another_folder(bucket: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "1", {"a": "1"}), f"{bucket}/runs/policy")
    storage.publish(folder_of(tmp_path / "2", {"x": "2"}), f"{bucket}/runs/policy-2")
    assert [item.name for item in storage.list_objects(f"{bucket}/runs/policy")] == ["a"]
    assert not storage.exists(f"{bucket}/runs/pol")


def test_changed_content_is_downloaded_anew_and_has_another_digest(bucket: str, tmp_path: Path) -> None:
    address = f"{bucket}/problems.jsonl"
    (tmp_path / "file").write_text("1")
    storage.publish(tmp_path / "file", address)
    first, digest = storage.fetch(address, tmp_path / "cache"), storage.address_digest(address)
    assert storage.fetch(address, tmp_path / "cache") == first
    (tmp_path / "file").write_text("2")
    storage.publish(tmp_path / "file", address)
    assert storage.fetch(address, tmp_path / "cache").read_text() == "2"
    assert storage.address_digest(address) != digest


def test_publishing_a_folder_again_leaves_nothing_of_the_earlier_one(bucket: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "1", {"a": "1", "old": "1"}), f"{bucket}/out")
    with storage.staged(f"{bucket}/out") as folder:
        (folder / "a").write_text("2")
    assert [item.name for item in storage.list_objects(f"{bucket}/out")] == ["a"]
    storage.remove(f"{bucket}/out")
    assert not storage.exists(f"{bucket}/out")


def test_what_is_not_there_is_bad_input_and_no_access_a_fault(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="nothing at this address"):
        storage.fetch(f"{bucket}/nowhere")
    with pytest.raises(DataError, match="no such bucket"):
        storage.fetch("s3://other/nowhere")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StepCoderError, match="cannot reach") as caught:
        storage.fetch(f"{bucket}/nowhere")
    assert caught.value.exit_status == 1
