"""What tests of object stores share."""

from __future__ import annotations

from pathlib import Path

from stepcoder.platform.storage import s3


def folder_of(root: Path, files: dict[str, str]) -> Path:
    """A folder with these texts."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def raw(address: str) -> dict[str, int]:
    """Everything that the store lists below an address, and its size."""
    return {item.name: item.size for item in s3.list_folder(address)}


def put(address: str, text: str) -> None:
    """Writes an object as another tool would: without metadata."""
    bucket, key = s3.split(address)
    s3.connect().put_object(Bucket=bucket, Key=key, Body=text.encode())
