"""What is in an object store at an address, and bringing it here whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepcoder.errors import DataError
from stepcoder.platform.logs import get_logger
from stepcoder.platform.storage import manifest, s3, s3_retries, s3_transfers
from stepcoder.platform.storage.manifest import MANIFEST, MARKER, Manifest
from stepcoder.platform.storage.s3 import S3Object
from stepcoder.platform.storage.s3_errors import code_of, reporting
from stepcoder.platform.storage.s3_transfers import Transfer

log = get_logger("object-store")


@dataclass(frozen=True)
class Content:
    """What is at an address."""

    address: str
    objects: list[S3Object]
    """The files without manifest and marker, sorted by name; one with an empty name when the address is a file."""
    manifest: Manifest | None
    """None for a single file, and for a folder that other tools have put there."""
    noted: str = ""
    """The SHA-256 of a single file, where its uploader has noted it."""

    def digest(self) -> str:
        """Changes when the content does. That of the same files on disk, unless other tools have put them there.

        Raises:
            StepCoderError: the object store failed.
        """
        bucket, _ = s3.split(self.address)
        if self.manifest is None:
            return self.noted or manifest.content_digest(
                (item.name, f"{item.size} {item.etag}") for item in self.objects
            )
        parts = []
        for item in self.objects:
            entry = self.manifest.files[item.name]
            # Another tag: a copy by other tools, whose metadata still tell the content, or a change by them.
            known = item.etag == entry.etag
            parts.append(
                (item.name, entry.sha256 if known else s3_transfers.recorded(bucket, item.key)[1] or item.etag)
            )
        return manifest.content_digest(parts)


def look(address: str) -> Content | None:
    """What is at an address, judged by its marker and manifest; None when there is nothing.

    Raises:
        DataError: an upload was interrupted there, or the folder is not what its manifest lists.
        StepCoderError: the object store failed.
    """
    for _ in range(3):
        objects = s3.list_objects(address)
        try:
            return _judged(address, objects) if objects else None
        except GoneError:
            continue  # an upload has ended meanwhile
    raise DataError(f"{address}: is written again and again; try when nobody writes there")


def _judged(address: str, objects: list[S3Object]) -> Content:
    if s3.is_file(objects):
        bucket, key = s3.split(address)
        with reporting(address):
            return Content(address, objects, None, s3_transfers.recorded(bucket, key)[1])
    by_name = {item.name: item for item in objects}
    if MARKER not in by_name and MANIFEST not in by_name:
        return Content(address, objects, None)
    listed = read_manifest(address, MANIFEST) if MANIFEST in by_name else None
    if MARKER in by_name:
        intended = read_manifest(address, MARKER)
        if listed is None or intended is None or not _is_finished(intended, listed, by_name):
            raise DataError(
                f"{address}: an upload or a removal was interrupted here, or is under way; start the step that writes"
                " it again, or remove what is there"
            )
    if listed is None:
        return Content(address, objects, None)
    faults = []
    for name, entry in listed.files.items():
        item = by_name.get(name)
        if item is None:
            faults.append(f"{address}: {name} is missing, though {MANIFEST} lists it")
        elif item.size != entry.size:
            faults.append(f"{address}: {name} has {item.size} bytes, but {MANIFEST} lists {entry.size}")
    if faults:
        more = [f"{address}: {len(faults) - 5} more such files"] if len(faults) > 5 else []
        raise DataError("\n".join([*faults[:5], *more, f"{address}: publish it again"]))
    return Content(address, [by_name[name] for name in sorted(listed.files)], listed)


def _is_finished(intended: Manifest, listed: Manifest, by_name: Mapping[str, S3Object]) -> bool:
    """Whether an upload whose marker is still there lacked only its tidying."""
    # The manifest may be an earlier one of the same content, and an upload of other content may have replaced files
    # since: where they have the same size, only the tags tell.
    same = all(name in by_name and by_name[name].etag == entry.etag for name, entry in listed.files.items())
    return same and bool(intended.files) and intended.digest == listed.digest


def is_whole(address: str) -> bool:
    """Whether there is a file, or a folder without an interrupted upload.

    Raises:
        StepCoderError: the object store failed.
    """
    names = {item.name for item in s3.list_objects(address)}
    if MARKER not in names:
        return bool(names)
    try:
        return look(address) is not None
    except DataError:
        return False


def download(content: Content, target: Path) -> None:
    """Brings content to `target`, an empty folder, which a single file replaces; every file is checked.

    Raises:
        DataError: a file is damaged, or has changed while it was read.
        StepCoderError: the object store failed.
    """
    transfers = []
    for item in content.objects:
        if item.name.startswith("/") or ".." in item.name.split("/"):
            raise DataError(f"{content.address}: {item.name}: such a name cannot be a file here")
        place = target / item.name if item.name else target
        if not item.name:
            place.rmdir()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"{content.address}: {item.name}: is below a name that is a file too") from error
        sha256 = content.manifest.files[item.name].sha256 if content.manifest else content.noted
        transfers.append(Transfer(place, item.key, item.size, sha256))
    unknown = s3_transfers.download(content.address, transfers)
    if unknown:
        log.info("not verified by content", address=content.address, files=len(unknown), reason="no SHA-256 is noted")
    if content.manifest is None and s3.list_objects(content.address) != content.objects:
        raise DataError(f"{content.address}: changed while it was read; try again when nobody writes there")


class GoneError(Exception):
    """What was listed a moment ago is not there any more."""


def has_manifest(address: str) -> bool:
    """Whether a folder with a file of the manifest's name has one of ours, damaged or not.

    Raises:
        StepCoderError: the object store failed.
    """
    try:
        return read_manifest(address, MANIFEST) is not None
    except (DataError, GoneError):
        return True


def read_manifest(address: str, name: str) -> Manifest | None:
    """A manifest or marker of ours; None when another one's file has its name.

    Raises:
        DataError: it is damaged.
        StepCoderError: the object store failed.
        GoneError: it was deleted meanwhile.
    """
    for last in (False, True):
        body, noted = _get(address, name)
        try:
            if noted not in {"", hashlib.sha256(body).hexdigest()}:
                raise manifest.DamagedError("its SHA-256 is another one")
            return manifest.read(body.decode(errors="replace"))
        except manifest.DamagedError as error:
            if last:
                raise DataError(f"{address}: {name} is damaged ({error}); publish the folder again") from error
    raise AssertionError  # the second turn returns or raises


def _get(address: str, name: str) -> tuple[bytes, str]:
    bucket, _ = s3.split(address)

    def get() -> tuple[bytes, str]:
        answer = s3.connect().get_object(Bucket=bucket, Key=s3.prefix(address) + name)
        return answer["Body"].read(), answer.get("Metadata", {}).get(s3_transfers.DIGEST, "")

    with reporting(f"{address}/{name}"):
        try:
            return s3_retries.again(get, name)
        except Exception as error:
            if code_of(error) == "NoSuchKey":
                raise GoneError from None
            raise
