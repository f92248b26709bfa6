from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder.platform import storage
from tests.platform.trainjob.kubernetes_api import Kubernetes, serving
from tests.platform.trainjob.work import OUT, OWN_POD, published
from tests.servers.swift import Swift


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubernetes]:
    """A cluster in which this process is a pod of a pipeline run."""
    made = Kubernetes(pods={OWN_POD["metadata"]["name"]: json.loads(json.dumps(OWN_POD))})
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KFP_POD_NAME", OWN_POD["metadata"]["name"])
    monkeypatch.setenv("STEPCODER_RUN_ID", "0a1b-run")
    with serving(made, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield made


@pytest.fixture(scope="module")
def store(swift: Swift) -> Iterator[str]:
    """A bucket of a fixed name in a real object store, known by the usual variables."""
    import boto3
    from botocore.config import Config

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in swift.environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket="bucket")
        client.close()
        yield "s3://bucket"


@pytest.fixture
def bucket(store: str) -> str:
    """An empty bucket."""
    storage.remove(store)
    return store


@pytest.fixture
def done(bucket: str, tmp_path: Path) -> None:
    """The outputs of the training are there."""
    published(tmp_path / "made", OUT)
