"""Files and folders by address: a plain path, or `s3://bucket/key` (`minio://`, as Kubeflow writes it, is the same).

Object stores are reached by boto3 with the usual AWS variables (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_CA_BUNDLE`,
`AWS_MAX_ATTEMPTS`, the credential chain). A folder in a bucket is a prefix; `s3_uploads` says what is promised of it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcoder.errors import DataError
from stepcoder.platform.storage import s3, s3_folders, s3_uploads
from stepcoder.platform.storage.files import digest, full_disk, publishing, remove_path, text_digest
from stepcoder.platform.storage.manifest import MANIFEST, MARKER, is_bookkeeping

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
    """Whether there is a file or a non-empty folder at the address; an upload that was interrupted does not count.

    Raises:
        StepCoderError: the object store failed.
    """
    return s3_folders.is_whole(address) if is_remote(address) else Path(address).exists()


def list_objects(address: str) -> list[s3.S3Object]:
    """The object at an `s3://` address or, if there is none, the files of the folder there, sorted by name.

    Raises:
        DataError: an upload was interrupted there, or files are missing.
        StepCoderError: the object store failed.
    """
    content = s3_folders.look(address)
    return content.objects if content else []


def fetch(address: str, cache: Path | None = None) -> Path:
    """Brings a file or folder to this machine.

    Args:
        address: A path, which is returned as it is, or an `s3://` address, which is downloaded and checked unless the
            same content is in the cache.
        cache: Where downloads lie; default `$STEPCODER_CACHE`, else `~/.cache/stepcoder`.

    Raises:
        DataError: there is nothing at the address, or it is not whole.
        StepCoderError: the object store failed, or the disk is full.
    """
    if not is_remote(address):
        if not Path(address).exists():
            raise DataError(f"{address}: there is no such file or folder")
        return Path(address)
    content = s3_folders.look(address)
    if content is None:
        raise DataError(f"{address}: there is nothing at this address")
    root = cache or Path(os.environ.get("STEPCODER_CACHE") or Path.home() / ".cache" / "stepcoder")
    name = text_digest(f"{address}\n{content.digest()}")[:32]
    target = root / name / address.rstrip("/").rpartition("/")[2]
    if not target.exists():
        with publishing(target, keep=True) as partial:
            s3_folders.download(content, partial)
    return target


def publish(source: Path, address: str) -> None:
    """Puts a file or a folder at an address; a folder's earlier content there is replaced.

    What was interrupted goes on where it was when the same is published again.

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
    if source.is_dir():
        s3_uploads.upload_folder(source, address)
    else:
        s3_uploads.upload_file(source, address)


@contextmanager
def staged(address: str) -> Iterator[Path]:
    """Yields an empty local folder that is published at the address on success and vanishes otherwise.

    For a path it lies beside the target, so that publishing is a rename; for an object store it is temporary.

    Raises:
        DataError: a folder is there that no step has written; it would be lost.
        StepCoderError: the disk is full, or the object store failed.
    """
    _refuse_others(address)
    if not is_remote(address):
        with publishing(Path(address)) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="stepcoder-") as scratch:
        folder = Path(scratch) / "staged"
        folder.mkdir()
        with full_disk(folder):
            yield folder
        publish(folder, address)


def _refuse_others(address: str) -> None:
    if is_remote(address):
        there = {item.name.partition("/")[0] for item in s3.list_folder(address)}
        ours = MARKER in there or (MANIFEST in there and s3_folders.has_manifest(address))
    else:
        there = {path.name for path in Path(address).iterdir()} if Path(address).is_dir() else set()
        ours = any(is_bookkeeping(Path(address) / name) for name in there)
    if there and not ours and not there & OUTPUTS:
        raise DataError(f"{address}: holds something else ({min(there)}); give a new folder, or remove this one first")


def remove(address: str) -> None:
    """Deletes the file or the whole folder at an address; nothing happens when there is none.

    Raises:
        StepCoderError: the object store failed.
    """
    if not is_remote(address):
        remove_path(Path(address))
    else:
        s3_uploads.remove(address)


def address_digest(address: str) -> str:
    """A digest that changes when the content at the address does, without downloading it.

    It is the `digest` of the same content on disk for a path and for what was published here. For what other tools
    have put into an object store, it covers the names, sizes and tags that the store lists.

    Raises:
        DataError: there is nothing at the address, or it is not whole.
        StepCoderError: the object store failed.
    """
    if not is_remote(address):
        return digest(Path(address))
    content = s3_folders.look(address)
    if content is None:
        raise DataError(f"{address}: there is nothing at this address")
    return content.digest()
