"""Models of the Hugging Face Hub by address: `ID`, or `ID@COMMIT`, which stays the same model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.platform.redaction import first_line


def is_id(address: str) -> bool:
    """Whether an address is a Hugging Face id, with or without a commit: not in a store, and no path."""
    return not storage.is_remote(address) and not Path(address).exists() and not address.startswith((".", "/"))


def split(address: str) -> tuple[str, str]:
    """Name and revision of an address, as `from_pretrained` takes them; the revision is `main` where none is named."""
    name, at, revision = address.rpartition("@")
    return (name, revision) if at and is_id(address) else (address, "main")


@cache
def pinned(address: str) -> str:
    """A Hugging Face id with its commit: a process reads all files from the one that it has found first.

    Raises:
        DataError: there is no such model, or neither the hub nor the local cache gives it.
    """
    from huggingface_hub import hf_hub_download

    name, revision = split(address)
    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{address}: is neither a folder here nor a model that the hub or its local cache gives: "
            f"{first_line(error)}"
        ) from error
    return f"{name}@{Path(config).parent.name}"
