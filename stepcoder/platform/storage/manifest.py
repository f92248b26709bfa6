"""What a folder in an object store says of itself: its files' sizes and SHA-256, and whether an upload is under way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "manifest.json"
"""Written last: with it, and all that it lists, a folder is whole."""
MARKER = ".stepcoder-upload.json"
"""Written first and deleted at the end: what an upload under way wants to be there, nothing for a removal."""
FORMAT: Literal["stepcoder-manifest-1"] = "stepcoder-manifest-1"


class Entry(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""
    etag: str = ""
    """The store's own tag of what was uploaded: another one tells, without a download, that the file has changed."""


class Manifest(BaseModel):
    """The files of a folder by their relative names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["stepcoder-manifest-1"] = FORMAT
    digest: str
    """`content_digest` of the files, the same as of the folder on disk."""
    files: dict[str, Entry]

    @classmethod
    def of(cls, files: Mapping[str, Entry]) -> Self:
        """The manifest of these files."""
        return cls(digest=content_digest((name, files[name].sha256) for name in files), files=dict(files))

    def text(self) -> str:
        """As it is stored."""
        return self.model_dump_json(indent=1) + "\n"


class DamagedError(Exception):
    """It is a manifest of ours, but not as it was written."""


def read(text: str) -> Manifest | None:
    """Reads a manifest; None when the text is something else that has the same name.

    Raises:
        DamagedError: it contradicts itself.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        if FORMAT in text:
            raise DamagedError(str(error)) from error
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    try:
        found = Manifest.model_validate(content)
    except ValidationError as error:
        raise DamagedError(str(error)) from error
    if content_digest((name, entry.sha256) for name, entry in found.files.items()) != found.digest:
        raise DamagedError("its digest is not that of its files")
    return found


def content_digest(files: Iterable[tuple[str, str]]) -> str:
    """The SHA-256 of a folder: of its sorted relative names and the files' SHA-256, in hexadecimal."""
    whole = hashlib.sha256()
    for name, sha256 in sorted(files):
        whole.update(f"{name}\0{sha256}\n".encode())
    return whole.hexdigest()


def is_bookkeeping(path: Path) -> bool:
    """Whether a file at the top of a local folder is a manifest or marker of ours, which other tools download too."""
    if path.name == MARKER:
        return True
    if path.name != MANIFEST or not path.is_file():
        return False
    try:
        return read(path.read_text(encoding="utf-8", errors="replace")) is not None
    except DamagedError:
        return True
