"""The S3 protocol: addresses, clients, listings and deletion.

Credentials, region, endpoint and CA come by the usual AWS variables, or by the files that they name. A store other than
AWS is addressed by path unless the configuration file says `addressing_style = virtual`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import redacted
from stepcoder.platform.storage import s3_retries
from stepcoder.platform.storage.s3_errors import code_of, reporting

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = [
    "S3Object",
    "abort_unfinished",
    "connect",
    "delete",
    "file_at",
    "is_file",
    "list_folder",
    "list_objects",
    "prefix",
    "reporting",
    "split",
]

CONNECTIONS = 32
"""Requests to the store at once."""
READ_SECONDS = 60.0
"""How long the store may be silent before a request is given up and sent again."""
_BATCH = 1000
"""Objects that S3 deletes or lists in one request at most."""
_NO_BATCHES = {
    "NotImplemented",
    "MethodNotAllowed",
    "InvalidRequest",
    "MissingContentMD5",
    "InvalidDigest",
    "MalformedXML",  # a key has a character that XML does not
    "501",
    "405",
}

log = get_logger("object-store")


class S3Object(NamedTuple):
    """One object under an address: its name relative to the address (empty for the address itself), size and tag."""

    key: str
    name: str
    size: int
    etag: str


def split(address: str) -> tuple[str, str]:
    """Bucket and key of an address; the key has no slash at its end.

    Raises:
        DataError: the address names no bucket, or holds credentials.
    """
    bucket, _, key = address.partition("://")[2].partition("/")
    if "@" in bucket:
        raise DataError("an object store address holds credentials; give them by AWS_ACCESS_KEY_ID and the like")
    if not bucket:
        raise DataError(f"{address}: an object store address reads s3://bucket/key")
    return bucket, key.rstrip("/")


def prefix(address: str) -> str:
    """What the keys of a folder's objects begin with."""
    _, key = split(address)
    return f"{key}/" if key else ""


def list_objects(address: str) -> list[S3Object]:
    """The object at an `s3://` address or, if there is none, all those under it as a folder, sorted by name.

    Raises:
        DataError: there is no such bucket.
        StepCoderError: the object store failed.
    """
    alone = file_at(address)
    return [alone] if alone else list_folder(address)


def file_at(address: str) -> S3Object | None:
    """The object at an address itself.

    Raises:
        DataError: there is no such bucket.
        StepCoderError: the object store failed.
    """
    bucket, key = split(address)
    if not key:
        return None
    with reporting(address):
        # The key itself comes before all that begin with it; and other than a HEAD, a listing says why it fails.
        page = connect().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    for item in page.get("Contents", []):
        if item["Key"] == key:
            return S3Object(key, "", item["Size"], item["ETag"].strip('"'))
    return None


def is_file(objects: Sequence[S3Object]) -> bool:
    """Whether what `list_objects` found is one object at the address itself."""
    return [item.name for item in objects] == [""]


def list_folder(address: str) -> list[S3Object]:
    """All objects under an address as a folder, sorted by name; an object at the address itself is not among them.

    Raises:
        DataError: there is no such bucket.
        StepCoderError: the object store failed.
    """
    bucket, _ = split(address)
    start = prefix(address)
    found = []
    with reporting(address):
        for page in connect().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start):
            for item in page.get("Contents", []):
                # Consoles make an empty object with a slash at its end to show a folder.
                if not item["Key"].endswith("/"):
                    tag = item["ETag"].strip('"')
                    found.append(S3Object(item["Key"], item["Key"][len(start) :], item["Size"], tag))
    return sorted(found, key=lambda item: item.name)


def delete(address: str, keys: Sequence[str]) -> None:
    """Deletes objects, many in one request where the store can; what is not there is no error.

    Args:
        address: names the bucket, and stands in errors.
        keys: whole keys.

    Raises:
        StepCoderError: the object store failed.
    """
    from botocore.exceptions import ClientError

    bucket, _ = split(address)
    with reporting(address):
        client = connect()
        for first in range(0, len(keys), _BATCH):
            batch = keys[first : first + _BATCH]
            left = batch
            if len(batch) > 1:
                try:
                    answer = client.delete_objects(
                        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                    )
                    left = [error["Key"] for error in answer.get("Errors", []) if error.get("Key")]
                except ClientError as error:
                    if code_of(error) not in _NO_BATCHES:
                        raise
            for key in left:
                client.delete_object(Bucket=bucket, Key=key)


def abort_unfinished(address: str) -> None:
    """Drops the parts that uploads below a folder have left when they were killed; they are stored, and paid for.

    It is a courtesy: a store that knows nothing of it, or does not allow it, is no fault.
    """
    bucket, _ = split(address)
    try:
        with reporting(address):
            client = connect()
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix(address)):
                for item in page.get("Uploads", []):
                    client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])
    except StepCoderError as error:
        log.info("parts of interrupted uploads stay", address=address, reason=str(error))


def connect() -> S3Client:
    """A client, safe to share between threads, that tries again what may be tried again.

    Raises:
        DataError: the endpoint, or another setting of the environment, cannot be used.
    """
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(os.getpid(), settings)


@lru_cache(maxsize=8)
def _client(process: int, settings: tuple[tuple[str, str], ...]) -> S3Client:
    # A process that was forked needs connections of its own; other settings need another client.
    del process
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    variables = dict(settings)
    options: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": READ_SECONDS,
        "max_pool_connections": CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    try:
        session = boto3.session.Session(region_name=variables.get("AWS_REGION"))
        profile = session._session.get_scoped_config()  # boto3 has no public way to ask
        endpoint = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} & variables.keys() or "endpoint_url" in profile
        if endpoint:
            # Stores other than AWS often know neither bucket host names nor the newer checksum headers.
            if "addressing_style" not in (profile.get("s3") or {}):
                options["s3"] = {"addressing_style": "path"}
            for name in ("request_checksum_calculation", "response_checksum_validation"):
                if f"AWS_{name.upper()}" not in variables and name not in profile:
                    options[name] = "when_required"
        client: S3Client = session.client("s3", config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        raise DataError(f"the object store's settings cannot be used: {redacted(str(error))}") from None
    s3_retries.install(client)
    return client
