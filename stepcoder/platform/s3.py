"""The S3 protocol: clients, listings, and its errors in our words.

Credentials, region, endpoint and CA come by the usual AWS variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from stepcoder.errors import DataError, StepCoderError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Object(NamedTuple):
    """One object under an address: its name relative to the address (empty for the address itself), size and tag."""

    key: str
    name: str
    size: int
    etag: str


def list_objects(address: str) -> list[S3Object]:
    """The object at an `s3://` address or, if there is none, those under it as a folder, sorted by name."""
    bucket, key = split(address)
    found = []
    with reporting(address):
        for page in connect().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", []):
                name = item["Key"][len(key) :]
                if name == "" or name.startswith("/") or key == "":
                    found.append(S3Object(item["Key"], name.lstrip("/"), item["Size"], item["ETag"].strip('"')))
    files = [item for item in found if not item.key.endswith("/")]
    alone = [item for item in files if item.name == ""]
    return alone or sorted(files, key=lambda item: item.name)


def connect() -> S3Client:
    """A client that tries again what may be tried again."""
    import boto3
    from botocore.config import Config

    custom = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    # Stores other than AWS often know neither bucket host names nor the newer checksum headers.
    compatible = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    config = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 6})
    return boto3.client("s3", config=config.merge(compatible) if custom else config)


def split(address: str) -> tuple[str, str]:
    """Bucket and key of an address; the key has no slash at its end.

    Raises:
        DataError: the address names no bucket.
    """
    bucket, _, key = address.partition("://")[2].partition("/")
    if not bucket:
        raise DataError(f"{address}: an object store address reads s3://bucket/key")
    return bucket, key.rstrip("/")


@contextmanager
def reporting(address: str) -> Iterator[None]:
    """Turns boto3's errors into ours; they name the address and never a credential."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in {"NoSuchBucket", "NoSuchKey", "404"}:
            raise DataError(f"{address}: there is no such bucket or object") from error
        if code in {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            raise StepCoderError(
                f"{address}: the object store refuses access ({code}); check the credentials"
            ) from error
        raise StepCoderError(f"{address}: the object store answered {code}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StepCoderError(f"{address}: cannot reach the object store: {error}") from error
