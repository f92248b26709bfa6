"""Files and folders, whole or not there, on disks and in object stores.

`addresses` is what steps use; `files` knows the disk, the `s3` modules know object stores, and `manifest` is what makes
a folder in a store whole.
"""

from stepcoder.platform.storage.addresses import (
    address_digest,
    exists,
    fetch,
    is_remote,
    list_objects,
    publish,
    remove,
    staged,
)
from stepcoder.platform.storage.files import digest, full_disk, publishing, text_digest, write_text

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
