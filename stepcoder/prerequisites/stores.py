"""Object stores and folders: credentials are there, and a place can be written to."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from stepcoder.errors import StepCoderError
from stepcoder.platform import storage
from stepcoder.platform.storage import s3
from stepcoder.platform.storage.s3_errors import reporting
from stepcoder.prerequisites.checks import named

VARIABLES: Final = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PROBE: Final = ".stepcoder-probe-"
"""How the names of the objects begin that only try whether a place can be written to."""


def mend() -> str:
    """Where an object store's address and credentials are set."""
    return named(*VARIABLES)


def check_credentials(address: str) -> None:
    """Raises `StepCoderError` when the address is in an object store and no credentials can be found."""
    if not storage.is_remote(address):
        return
    import boto3

    if boto3.Session().get_credentials() is None:
        raise StepCoderError(f"no credentials; set {named('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')}")


def check_writable(address: str) -> None:
    """Writes a tiny object under the address and removes it; for a path a file in its nearest existing folder.

    Raises:
        DataError: there is no such bucket, or the address is none.
        StepCoderError: it cannot be written or removed; the message says which.
    """
    if not storage.is_remote(address):
        _check_folder(Path(address).absolute())
        return
    check_credentials(address)
    bucket, key = s3.split(address)
    name = f"{key}/{PROBE}{secrets.token_hex(4)}".lstrip("/")
    client = s3.connect()
    with reporting(address):
        client.put_object(Bucket=bucket, Key=name, Body=b"stepcoder")
    try:
        with reporting(address):
            client.delete_object(Bucket=bucket, Key=name)
    except StepCoderError as error:
        # Old checkpoints are removed, and a folder's earlier content is replaced.
        raise StepCoderError(f"can be written, but not removed from: {error}; {name} is left there") from error


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise StepCoderError(f"{path}: is a file; give a folder")
    folder = next(place for place in (path, *path.parents) if place.exists())
    try:
        if not folder.is_dir() or not os.access(folder, os.X_OK):
            raise NotADirectoryError(f"{folder} is no folder that can be entered")
        with tempfile.TemporaryFile(dir=folder, prefix=PROBE):
            pass
    except OSError as error:
        raise StepCoderError(f"{path}: cannot be written: {error.strerror or error}") from error
