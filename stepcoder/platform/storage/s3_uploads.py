"""Files and folders in an object store that are whole or not there.

An object store replaces one object at once, but not a folder. So an upload leaves traces in this order:

1. the marker, with the list of what is to be there;
2. the files, all with their SHA-256 as metadata; one that is already there with the same is passed over;
3. the manifest, once the store lists every file with its size;
4. what the earlier folder had besides is deleted, then the marker.

A removal begins with a marker too, and deletes it last. What follows, for a kill at any moment:

- With a marker, a folder counts only if its manifest is the one that the upload intended and every file has the tag
  that the manifest lists. So it is the whole new one, or it is an interrupted upload, which `s3_folders.look` refuses;
  never a mixture, and no longer the earlier one.
- Who reads while a folder is replaced has checked all files against one manifest, or gets an error.
- The same upload started again goes on where it was.
- Two different uploads to one address at once can end in a folder whose files do not fit its manifest; reading it is an
  error then.

A folder with neither is foreign: put there by other tools. It is taken as it is listed. All this needs a store that
lists what was written before, as S3 promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.logs import Progress, get_logger
from stepcoder.platform.storage import s3, s3_folders, s3_transfers
from stepcoder.platform.storage.files import file_digest, files_below
from stepcoder.platform.storage.manifest import MANIFEST, MARKER, Entry, Manifest
from stepcoder.platform.storage.s3 import S3Object
from stepcoder.platform.storage.s3_errors import reporting
from stepcoder.platform.storage.s3_transfers import Transfer

log = get_logger("object-store")


def upload_file(source: Path, address: str) -> None:
    """Puts a file at an address; a folder that was there is removed.

    Raises:
        StepCoderError: the object store failed.
    """
    _, key = s3.split(address)
    if not key:
        raise DataError(f"{address}: a file needs a name below the bucket")
    transfer = Transfer(source, key, source.stat().st_size, file_digest(source))
    earlier = s3.file_at(address)
    s3_transfers.upload(address, [transfer], there=[earlier] if earlier else [])
    _remove_all(address, s3.list_folder(address))


def upload_folder(source: Path, address: str) -> None:
    """Puts a folder at an address in place of what is there; see above for what holds meanwhile.

    Raises:
        DataError: the folder has a file of the name that the manifest needs, or a link that cannot be uploaded.
        StepCoderError: the object store failed; the same call goes on where this one ended.
    """
    _, key = s3.split(address)
    start = s3.prefix(address)
    wanted = _described(source)
    intended = Manifest.of(wanted)
    transfers = [Transfer(source / name, start + name, entry.size, entry.sha256) for name, entry in wanted.items()]
    if taken := {MANIFEST, MARKER} & wanted.keys():
        raise DataError(f"{source}: {min(taken)} has a name that is needed for the list of the folder's files")
    earlier = s3.list_folder(address)
    if _is_there(address, intended, earlier):
        log.info("already there", address=address, files=len(wanted))
        return
    _put(address, MARKER, intended)
    if MARKER in {item.name for item in earlier}:
        s3.abort_unfinished(address)
    s3_transfers.upload(address, transfers, there=earlier)
    listed = {item.name: item for item in s3.list_folder(address)}
    wrong = [name for name, entry in wanted.items() if name not in listed or listed[name].size != entry.size]
    if wrong:
        raise StepCoderError(
            f"{address}: {wrong[0]} is not there as it was uploaded ({len(wrong)} such files); does something else"
            " write to this address? Start again"
        )
    complete = {name: entry.model_copy(update={"etag": listed[name].etag}) for name, entry in wanted.items()}
    _put(address, MANIFEST, Manifest.of(complete))
    stale = [item.key for name, item in listed.items() if name not in wanted and name not in {MANIFEST, MARKER}]
    if s3.file_at(address):
        stale.append(key)
    s3.delete(address, stale)
    s3.delete(address, [start + MARKER])


def remove(address: str) -> None:
    """Deletes the file or the whole folder at an address.

    Raises:
        StepCoderError: the object store failed; a folder that is half deleted does not count as one.
    """
    objects = s3.list_objects(address)
    if s3.is_file(objects):
        s3.delete(address, [objects[0].key])
    else:
        _remove_all(address, objects)


def _remove_all(address: str, objects: Sequence[S3Object]) -> None:
    if not objects:
        return
    _put(address, MARKER, Manifest.of({}))
    s3.abort_unfinished(address)
    s3.delete(address, [item.key for item in objects if item.name != MARKER])
    s3.delete(address, [s3.prefix(address) + MARKER])


def _is_there(address: str, intended: Manifest, objects: Sequence[S3Object]) -> bool:
    by_name = {item.name: item for item in objects}
    if MARKER in by_name or MANIFEST not in by_name or by_name.keys() != {*intended.files, MANIFEST}:
        return False
    try:
        listed = s3_folders.read_manifest(address, MANIFEST)
    except (DataError, s3_folders.GoneError):
        return False
    if listed is None or listed.digest != intended.digest:
        return False
    # A folder that looks the same to the store as when it was uploaded; a file at its own address would hide it.
    same = all(
        (by_name[name].size, by_name[name].etag) == (entry.size, entry.etag) for name, entry in listed.files.items()
    )
    return same and s3.file_at(address) is None


def _described(source: Path) -> dict[str, Entry]:
    for path in source.rglob("*"):
        if path.is_symlink() and not path.is_file():
            raise DataError(f"{path}: is a link to a folder or to nothing, which cannot be uploaded; put files there")
    files = files_below(source)
    sizes = [file.stat().st_size for file in files]
    found = {}
    bar = Progress(range(sum(sizes)), f"reading {source.name}", in_bytes=True)
    with bar:
        for file, size in zip(files, sizes, strict=True):
            found[file.relative_to(source).as_posix()] = Entry(size=size, sha256=file_digest(file))
            bar.advance(size)
    return found


def _put(address: str, name: str, content: Manifest) -> None:
    bucket, _ = s3.split(address)
    body = content.text().encode()
    with reporting(address):
        s3.connect().put_object(
            Bucket=bucket,
            Key=s3.prefix(address) + name,
            Body=body,
            ContentType="application/json",
            Metadata={s3_transfers.DIGEST: hashlib.sha256(body).hexdigest()},
        )
