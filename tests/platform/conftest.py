from pathlib import Path

import pytest

from stepcoder.platform.storage import s3_retries
from tests.servers.swift import Swift


@pytest.fixture
def store(swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket; waits between attempts are short."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STEPCODER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(s3_retries, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(s3_retries, "LONGEST_DELAY", 0.01)
    return f"s3://{swift.bucket()}"
