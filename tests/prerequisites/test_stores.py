"""Places in an object store are tried by writing, and each fault says which key to mend."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.inputs import ResolveConfig, resolve
from stepcoder.platform.storage import s3
from stepcoder.prerequisites import stores
from tests.servers.swift import Swift


@pytest.fixture
def bucket(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    return swift.bucket()


@pytest.mark.s3
def test_a_place_that_can_be_written_to_is_left_as_it_was(bucket: str) -> None:
    for address in (f"s3://{bucket}/runs/checkpoints", f"s3://{bucket}"):
        stores.check_writable(address)
        assert s3.list_objects(f"s3://{bucket}") == []


@pytest.mark.s3
def test_a_missing_bucket_and_a_wrong_key_are_told_apart(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"s3://no-such-bucket/x: .*no such bucket"):
        stores.check_writable("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the credentials of its first use
    with pytest.raises(StepCoderError, match="refuses access") as caught:
        stores.check_writable(f"s3://{bucket}/x")
    assert not isinstance(caught.value, DataError)
    assert "wrong-secret" not in str(caught.value)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_absent_credentials_are_told_before_anything_is_asked(no_credentials: None) -> None:
    with pytest.raises(StepCoderError, match="no credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY in the env"):
        stores.check_writable("s3://bucket/x")


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_all_places_of_a_run_are_tried_and_told_in_one_message_within_their_time(
    silent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"ENDPOINT_URL": silent, "ACCESS_KEY_ID": "key-id", "SECRET_ACCESS_KEY": "hush-hush"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    monkeypatch.setattr("stepcoder.inputs.SECONDS", 0.5)
    config = ResolveConfig(
        problems="s3://bucket/problems.jsonl",
        problem_format="apps_plus",
        base_model="s3://bucket/model",
        checkpoints="s3://bucket/checkpoints",
        measurements="s3://bucket/measurements",
    )
    began = time.monotonic()
    with pytest.raises(StepCoderError) as caught:
        resolve(config)
    assert time.monotonic() - began < 30
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "problems",
        "base_model",
        "checkpoints",
        "measurements",
        "registry",
    ]
    assert all("AWS_ENDPOINT_URL" in line and "AWS_SECRET_ACCESS_KEY" in line for line in lines[:4])
    assert "MLFLOW_TRACKING_PASSWORD" in lines[4]
    assert "hush-hush" not in str(caught.value)


def test_a_folder_that_does_not_exist_yet_is_tried_where_it_will_be_made(tmp_path: Path) -> None:
    stores.check_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StepCoderError, match="is a file; give a folder"):
        stores.check_writable(str(tmp_path / "file"))
    with pytest.raises(StepCoderError, match="cannot be written"):
        stores.check_writable(str(tmp_path / "file" / "checkpoints"))
    with pytest.raises(StepCoderError, match="cannot be written"):
        stores.check_writable("/proc/checkpoints")
