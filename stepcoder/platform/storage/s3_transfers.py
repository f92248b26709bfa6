"""Many files to and from an object store: in parallel, each checked by size and SHA-256, with progress in bytes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepcoder.errors import DataError
from stepcoder.platform.logs import Progress, get_logger
from stepcoder.platform.storage import s3, s3_retries
from stepcoder.platform.storage.files import file_digest
from stepcoder.platform.storage.s3_errors import code_of, reporting

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig

FILES_AT_ONCE = 4
"""Files that are transferred at the same time, each in several parts at once."""
PART = 16 << 20
"""Bytes of a part; a file that is not larger goes in one piece. S3 takes no part below 5 MiB but the last."""
MOST_PARTS = 1000
"""Parts of one object: AWS takes 10,000, OpenStack Swift 1,000. Parts of larger files are larger."""
DIGEST = "sha256"
"""Name of an object's metadata that tells its content."""

log = get_logger("object-store")


@dataclass(frozen=True)
class Transfer:
    """A local file and the object that it becomes or comes from."""

    path: Path
    key: str
    size: int
    sha256: str
    """Empty when nobody has said what the content is."""


def recorded(bucket: str, key: str) -> tuple[int, str]:
    """An object's size, and the SHA-256 that its uploader has noted; empty when it is not one of ours."""
    head = s3.connect().head_object(Bucket=bucket, Key=key)
    return head["ContentLength"], head.get("Metadata", {}).get(DIGEST, "")


def upload(address: str, transfers: Sequence[Transfer], *, there: Iterable[s3.S3Object] = ()) -> None:
    """Uploads files; those that are already `there` with the same size and noted SHA-256 are passed over.

    Raises:
        StepCoderError: the object store failed; files that were uploaded stay.
    """
    bucket, _ = s3.split(address)
    sizes = {item.key: item.size for item in there}

    def one(transfer: Transfer, advance: Callable[[int], None]) -> None:
        same = (transfer.size, transfer.sha256)
        with reporting(f"s3://{bucket}/{transfer.key}"):
            if sizes.get(transfer.key) == transfer.size and recorded(bucket, transfer.key) == same:
                advance(transfer.size)
                return
            _upload(bucket, transfer, advance)

    _all(one, transfers, f"uploading to {address}")


def download(address: str, transfers: Sequence[Transfer]) -> list[str]:
    """Downloads files into folders that exist and checks them; a wrong one is fetched once more.

    Returns:
        The keys of files that were checked by size alone, since nobody has noted their SHA-256.

    Raises:
        DataError: a file is gone, or still not what it has to be.
        StepCoderError: the object store failed.
    """
    bucket, _ = s3.split(address)
    unknown = []

    def one(transfer: Transfer, advance: Callable[[int], None]) -> None:
        with reporting(f"s3://{bucket}/{transfer.key}"):
            expected = transfer.sha256 or recorded(bucket, transfer.key)[1]
            fault = _download(bucket, transfer, expected, advance)
            if fault:
                log.warning("fetching again", object=f"s3://{bucket}/{transfer.key}", reason=fault)
                fault = _download(bucket, transfer, expected, advance)
            if fault:
                raise DataError(
                    f"s3://{bucket}/{transfer.key}: {fault}; it was damaged, or changed after it was published:"
                    " publish it again"
                )
        if not expected:
            unknown.append(transfer.key)

    _all(one, transfers, f"downloading from {address}")
    return unknown


def _upload(bucket: str, transfer: Transfer, advance: Callable[[int], None]) -> None:
    extra = {"Metadata": {DIGEST: transfer.sha256}}
    counted = _Counted(advance)
    try:
        s3.connect().upload_file(
            str(transfer.path), bucket, transfer.key, extra, Callback=counted, Config=_config(transfer.size)
        )
    except BaseException as error:
        # When the answer to the last request is lost, the second try finds that there is nothing left to complete.
        finished = code_of(s3_retries.cause_of(error)) == "NoSuchUpload"
        if finished and recorded(bucket, transfer.key) == (transfer.size, transfer.sha256):
            return
        counted.undo()
        raise


def _download(bucket: str, transfer: Transfer, expected: str, advance: Callable[[int], None]) -> str:
    """Fetches a file and says what is wrong with it, if anything is."""
    from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

    counted = _Counted(advance)

    def fetch() -> None:
        try:
            s3.connect().download_file(
                bucket, transfer.key, str(transfer.path), Callback=counted, Config=_config(transfer.size)
            )
        except BaseException:
            counted.undo()
            raise

    try:
        s3_retries.again(fetch, transfer.key)
    except (S3DownloadFailedError, S3ValidationError) as error:  # its tag or size changed between two parts
        return str(error)
    size = transfer.path.stat().st_size
    fault = ""
    if size != transfer.size:
        fault = f"has {size} bytes instead of {transfer.size}"
    elif expected and (found := file_digest(transfer.path)) != expected:
        fault = f"its SHA-256 is {found[:12]}… instead of {expected[:12]}…"
    if fault:
        counted.undo()
    return fault


class _Counted:
    """Counts the bytes of one attempt, so that a failed one can be taken back."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._lock = threading.Lock()
        self._bytes = 0

    def __call__(self, count: int) -> None:
        self._advance(count)
        with self._lock:
            self._bytes += count

    def undo(self) -> None:
        with self._lock:
            count, self._bytes = self._bytes, 0
        self._advance(-count)


def _all(
    one: Callable[[Transfer, Callable[[int], None]], None], transfers: Sequence[Transfer], description: str
) -> None:
    stopped = threading.Event()
    lock = threading.Lock()
    bar = Progress(range(sum(transfer.size for transfer in transfers)), description, in_bytes=True)

    def advance(count: int) -> None:
        if not stopped.is_set():
            with lock:
                bar.advance(count)
        elif count > 0:
            raise s3_retries.StoppedError  # inside the transfer, which ends by it

    with bar, ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="transfer") as pool:
        # Large files first: the last one to end is then a small one.
        ordered = sorted(transfers, key=lambda transfer: -transfer.size)
        futures = [pool.submit(one, transfer, advance) for transfer in ordered]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _config(size: int) -> TransferConfig:
    from boto3.s3.transfer import TransferConfig

    part = max(PART, math.ceil(size / MOST_PARTS))
    return TransferConfig(
        multipart_threshold=part + 1,
        multipart_chunksize=part,
        max_concurrency=max(s3.CONNECTIONS // FILES_AT_ONCE, 1),
        # Another implementation would not follow our rules for trying again.
        preferred_transfer_client="classic",
    )
