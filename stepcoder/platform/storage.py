"""Files and folders by address: a plain path, or `s3://bucket/key` (`minio://`, as Kubeflow writes it, is the same).

Object stores are reached by boto3 with the usual AWS variables (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_CA_BUNDLE`, the
credential chain). A folder in a bucket is a prefix.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import s3
from stepcoder.platform.s3 import list_objects

__all__ = [
    "address_digest",
    "digest",
    "exists",
    "fetch",
    "full_disk",
    "is_remote",
    "list_objects",
    "publish",
    "publishing",
    "remove",
    "staged",
    "text_digest",
    "write_text",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 20
_HARDLY_ANY = 1 << 16
"""Bytes of free space below which a failure to write is put down to the disk."""
_SCHEMES = {"s3", "minio"}

OUTPUTS = {"stepcoder.json", "card.json", "curriculum.json", "metrics.json", "decision.json", "registration.json"}
"""A folder with one of these was written by a step, and may be replaced by the same step's next run."""


def is_remote(address: str) -> bool:
    """Whether the address names an object store rather than a path.

    Raises:
        DataError: the address has another scheme.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    if scheme and scheme[1] not in _SCHEMES:
        raise DataError(f"{address}: cannot read {scheme[1]}:// addresses; give a path or an s3:// address")
    return scheme is not None


def exists(address: str) -> bool:
    """Whether there is a file or a non-empty folder at the address."""
    return bool(list_objects(address)) if is_remote(address) else Path(address).exists()


def fetch(address: str, cache: Path | None = None) -> Path:
    """Brings a file or folder to this machine.

    Args:
        address: A path, which is returned as it is, or an `s3://` address, which is downloaded unless the same
            content (by the store's tags) is in the cache.
        cache: Where downloads lie; default `$STEPCODER_CACHE`, else `~/.cache/stepcoder`.

    Raises:
        DataError: there is nothing at the address.
        StepCoderError: the object store failed, or the disk is full.
    """
    if not is_remote(address):
        if not Path(address).exists():
            raise DataError(f"{address}: there is no such file or folder")
        return Path(address)
    objects = list_objects(address)
    if not objects:
        raise DataError(f"{address}: there is nothing at this address")
    root = cache or Path(os.environ.get("STEPCODER_CACHE") or Path.home() / ".cache" / "stepcoder")
    target = root / _listing_digest(address, objects)[:32] / address.rstrip("/").rpartition("/")[2]
    if not target.exists():
        bucket, _ = s3.split(address)
        with publishing(target) as partial, s3.reporting(address):
            client = s3.connect()
            for item in objects:
                place = partial / item.name if item.name else partial
                if not item.name:
                    place.rmdir()
                place.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, item.key, str(place))
    return target


def publish(source: Path, address: str) -> None:
    """Puts a file or a folder at an address; a folder's earlier content there is replaced.

    Raises:
        DataError: there is no such source.
        StepCoderError: the object store failed, or the disk is full.
    """
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    if not is_remote(address):
        with publishing(Path(address)) as partial:
            if source.is_dir():
                shutil.copytree(source, partial, dirs_exist_ok=True)
            else:
                partial.rmdir()
                shutil.copyfile(source, partial)
        return
    bucket, key = s3.split(address)
    earlier = {item.key for item in list_objects(address)}
    with s3.reporting(address):
        client = s3.connect()
        written = set()
        for path in _files(source):
            name = f"{key}/{path.relative_to(source).as_posix()}" if source.is_dir() else key
            client.upload_file(str(path), bucket, name)
            written.add(name)
        for stale in sorted(earlier - written):
            client.delete_object(Bucket=bucket, Key=stale)


@contextmanager
def staged(address: str) -> Iterator[Path]:
    """Yields an empty local folder that is published at the address on success and vanishes otherwise.

    For a path it lies beside the target, so that publishing is a rename; for an object store it is temporary.

    Raises:
        DataError: a folder is there that no step has written; it would be lost.
        StepCoderError: the disk is full, or the object store failed.
    """
    if not is_remote(address):
        there = {path.name for path in Path(address).iterdir()} if Path(address).is_dir() else set()
        if there and not there & OUTPUTS:
            raise DataError(
                f"{address}: holds something else ({min(there)}); give a new folder, or remove this one first"
            )
        with publishing(Path(address)) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="stepcoder-") as scratch:
        folder = Path(scratch) / "staged"
        folder.mkdir()
        with full_disk(folder):
            yield folder
        publish(folder, address)


def remove(address: str) -> None:
    """Deletes the file or the whole folder at an address; nothing happens when there is none.

    Raises:
        StepCoderError: the object store failed.
    """
    if not is_remote(address):
        _remove(Path(address))
        return
    bucket, _ = s3.split(address)
    objects = list_objects(address)
    with s3.reporting(address):
        client = s3.connect()
        for item in objects:
            client.delete_object(Bucket=bucket, Key=item.key)


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's sorted relative names and contents, in hexadecimal.

    Raises:
        DataError: there is no such path.
    """
    if path.is_file():
        return _file_digest(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    whole = hashlib.sha256()
    for file in _files(path):
        whole.update(f"{file.relative_to(path).as_posix()}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def text_digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def address_digest(address: str) -> str:
    """A digest that changes when the content at the address does, without downloading it.

    For a path it is `digest`; for an object store it covers the names, sizes and tags that the store lists, so it
    differs from the digest of the same content on disk.

    Raises:
        DataError: there is nothing at the address.
    """
    if not is_remote(address):
        return digest(Path(address))
    objects = list_objects(address)
    if not objects:
        raise DataError(f"{address}: there is nothing at this address")
    return _listing_digest("", objects)


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` on success and vanishes otherwise.

    The body may replace the folder by a file of the same name. An earlier `target` is replaced as a whole.

    Raises:
        StepCoderError: the disk is full.
    """
    token = secrets.token_hex(4)
    partial = target.parent / f".{target.name}.{token}.partial"
    try:
        with full_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            _replace(partial, target, token)
    finally:
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        StepCoderError: the disk is full.
    """
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        with full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def full_disk(target: Path) -> Iterator[None]:
    """Inside, a disk without space ends the writing of `target` with an error that says so.

    Raises:
        StepCoderError: the disk is full.
    """
    try:
        yield
    except StepCoderError:
        raise
    except Exception as error:
        if not _means_full(error, target.parent):
            raise
        message = f"{target}: cannot be written, the disk is full; nothing was left behind. Free space and try again"
        raise StepCoderError(message) from error


def _means_full(error: Exception, folder: Path) -> bool:
    if getattr(error, "errno", None) in _FULL or "No space left on device" in str(error):
        return True
    # Libraries that write weights hide the system's error behind one of their own; the disk itself tells.
    return folder.is_dir() and shutil.disk_usage(folder).free < _HARDLY_ANY


def _replace(partial: Path, target: Path, token: str) -> None:
    try:
        partial.replace(target)
    except OSError:
        # A folder cannot replace one that has content, nor a file: the earlier one steps aside first.
        if not target.exists():
            raise
        aside = target.parent / f".{target.name}.{token}.replaced"
        target.replace(aside)
        try:
            partial.replace(target)
        except OSError:
            aside.replace(target)
            raise
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        (file for file in path.rglob("*") if file.is_file()), key=lambda file: file.relative_to(path).as_posix()
    )


def _file_digest(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


def _listing_digest(address: str, objects: list[s3.S3Object]) -> str:
    listing = [address, *(f"{item.name}\0{item.size}\0{item.etag}" for item in objects)]
    return text_digest("\n".join(listing))
