"""Files and folders of this machine: published whole or not at all, and named by their content."""

from __future__ import annotations

import errno
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.storage.manifest import content_digest, is_bookkeeping

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HARDLY_ANY = 1 << 16
"""Bytes of free space below which a failure to write is put down to the disk."""


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's sorted relative names and contents, in hexadecimal.

    Raises:
        DataError: there is no such path.
    """
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    return content_digest((file.relative_to(path).as_posix(), file_digest(file)) for file in files_below(path))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def files_below(path: Path) -> list[Path]:
    """A file itself, or all files of a folder sorted by their relative names, without what a store keeps for itself."""
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*") if file.is_file() and not (file.parent == path and is_bookkeeping(file)))
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def remove_path(path: Path) -> None:
    """Deletes a file or a whole folder; nothing happens when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def publishing(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` on success and vanishes otherwise.

    The body may replace the folder by a file of the same name. An earlier `target` is replaced as a whole.

    Args:
        target: file or folder.
        keep: who else writes it writes the same: a folder that is there by then stays, since somebody may be reading.

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
            _replace(partial, target, token, keep)
    finally:
        remove_path(partial)


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


def _replace(partial: Path, target: Path, token: str, keep: bool) -> None:
    try:
        partial.replace(target)
    except OSError:
        # A folder cannot replace one that has content, nor a file: the earlier one steps aside first.
        if not target.exists():
            raise
        if keep:
            return
        aside = target.parent / f".{target.name}.{token}.replaced"
        target.replace(aside)
        try:
            partial.replace(target)
        except OSError:
            aside.replace(target)
            raise
        remove_path(aside)
