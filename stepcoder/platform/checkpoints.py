"""Checkpoints of a long step: written aside, published whole, found again by what the step was asked to do.

The folder is named by a hash of the step's settings and of the digests of its inputs, so a restarted pod finds its own
and never another's. A checkpoint counts only with its marker, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepcoder.errors import StepCoderError
from stepcoder.platform import storage
from stepcoder.platform.logs import get_logger

MARKER = "complete.json"
KEPT = 2
"""Checkpoints that are kept; the one before the newest serves when the newest is broken."""

log = get_logger("checkpoints")


class Checkpoints:
    """The checkpoints of one step of one run; with no address there are none."""

    def __init__(self, address: str | None, identity: Mapping[str, Any]) -> None:
        """Names the folder.

        Args:
            address: folder or `s3://` address for the checkpoints of all steps; `None` or empty for none.
            identity: settings and input digests that a checkpoint depends on.
        """
        text = json.dumps(identity, sort_keys=True, default=str)
        self.place = f"{address.rstrip('/')}/{hashlib.sha256(text.encode()).hexdigest()[:24]}" if address else ""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publishes what `write` puts into an empty folder as the checkpoint after `step`, and drops old ones.

        Raises:
            StepCoderError: the disk is full or the object store failed; earlier checkpoints stay.
        """
        if not self.place:
            return
        with tempfile.TemporaryDirectory(prefix="stepcoder-checkpoint-") as scratch:
            # A local checkpoint is written where it will stay, so that publishing it is a rename and no copy.
            target = Path(scratch) / "whole" if storage.is_remote(self.place) else Path(self._name(step))
            with storage.publishing(target) as folder:
                write(folder)
                files = {
                    str(path.relative_to(folder)): path.stat().st_size
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                }
                (folder / MARKER).write_text(json.dumps({"step": step, "files": files}) + "\n")
            if storage.is_remote(self.place):
                marker = Path(shutil.move(target / MARKER, Path(scratch) / MARKER))
                storage.publish(target, self._name(step))
                storage.publish(marker, f"{self._name(step)}/{MARKER}")
        for old in self._steps()[KEPT:]:
            storage.remove(self._name(old))

    def newest(self) -> tuple[int, Path] | None:
        """The newest whole checkpoint: its step and a local folder. A broken one is passed over with a warning."""
        for step in self._steps():
            try:
                folder = storage.fetch(self._name(step))
                marker = json.loads((folder / MARKER).read_text())
                broken = [name for name, size in marker["files"].items() if (folder / name).stat().st_size != size]
            except (OSError, ValueError, KeyError, StepCoderError) as error:
                log.warning("checkpoint passed over", place=self._name(step), error=str(error))
                continue
            if broken:
                log.warning("checkpoint passed over", place=self._name(step), wrong_size=", ".join(broken[:5]))
                continue
            return step, folder
        return None

    def clear(self) -> None:
        """Removes all checkpoints: the step's output is published, nothing is left to resume."""
        if self.place:
            storage.remove(self.place)

    def _name(self, step: int) -> str:
        return f"{self.place}/step-{step:08d}"

    def _steps(self) -> list[int]:
        """Steps with a checkpoint folder, newest first."""
        if not self.place:
            return []
        if storage.is_remote(self.place):
            names = {item.name.split("/")[0] for item in storage.list_objects(self.place)}
        else:
            names = {path.name for path in Path(self.place).glob("step-*")}
        return sorted((int(name[5:]) for name in names if re.fullmatch(r"step-\d{8}", name)), reverse=True)
