"""Checkpoints of a long step: written aside, published whole, found again by what the step was asked to do.

The folder is named by a hash of the step's settings and of the digests of its inputs, so a restarted pod finds its own
and never another's. A checkpoint counts only with its marker, which is written last, by rank 0. All ranks call
everything here together; each writes its part.

With a local address all machines see one folder. With an object store each machine writes to a folder of its own, and
its first rank uploads that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError
from stepcoder.platform import ranks, storage
from stepcoder.platform.logs import get_logger
from stepcoder.platform.storage import s3

MARKER = "complete.json"

log = get_logger("checkpoints")


class Checkpoints:
    """The checkpoints of one step of one run; with no address there are none."""

    def __init__(self, address: str | None, identity: Mapping[str, Any], *, keep: int = 2) -> None:
        """Names the folder.

        Args:
            address: folder or `s3://` address for the checkpoints of all steps; `None` or empty for none.
            identity: settings and input digests that a checkpoint depends on.
            keep: how many are kept; the one before the newest serves when the newest is broken.
        """
        name = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:24]
        self.place = f"{address.rstrip('/')}/{name}" if address else ""
        self.keep = keep
        # One name a run, so that the next save removes what a killed process left there.
        self._scratch = Path(tempfile.gettempdir()) / f"stepcoder-checkpoint-{os.getuid()}-{name}"

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publishes what the ranks' `write` put into an empty folder as the checkpoint after `step`; drops old ones.

        Args:
            step: how many steps are done.
            write: called on every rank with the same folder, or one folder a machine with an object store; what is not
                a rank's own, rank 0 alone should write.

        Raises:
            StepCoderError: the disk is full or the object store failed; earlier checkpoints stay.
        """
        if not self.place:
            return
        ranks.detail(f"checkpoint {step}")
        ranks.once(lambda: self._remove_leftovers(step))
        if storage.is_remote(self.place):
            self._save_remote(step, write)
        else:
            self._save_local(step, write)
        if ranks.is_main():
            self._prune(step)

    def newest(self) -> tuple[int, Path] | None:
        """The newest whole checkpoint: its step and a local folder. A broken one is passed over with a warning.

        Rank 0 decides for all.

        Raises:
            StepCoderError: the object store failed.
        """
        step = ranks.once(self._newest_whole)
        if step is None:
            if self.place:
                log.info("no checkpoint yet", checkpoints=self.place)
            return None
        log.info("resumed", after=step, checkpoints=self.place)
        return step, ranks.once_a_machine(lambda: storage.fetch(self._name(step)))

    def finish(self, out: str) -> None:
        """Removes the checkpoints of a step that is done and has published its output to `out`.

        The newest stays where the output lies on this machine and checkpoints in an object store: Kubeflow uploads a
        pod's outputs only after its process has ended, and if that fails the step is tried again.
        """
        if not self.place or not ranks.is_main():
            return
        if storage.is_remote(self.place) and not storage.is_remote(out):
            for old in self._steps()[1:]:
                storage.remove(self._name(old))
        else:
            storage.remove(self.place)

    def _save_local(self, step: int, write: Callable[[Path], None]) -> None:
        target = Path(self._name(step))
        if not ranks.is_main():
            folder = ranks.once(lambda: target)
            with storage.full_disk(folder):
                write(folder)
            _described(folder, ranks.rank(), ranks.count())
            return
        # Written where it will stay, so that publishing it is a rename and no copy.
        with storage.publishing(target) as partial:
            folder = ranks.once(lambda: partial)
            write(folder)
            files = _described(folder, ranks.rank(), ranks.count())
            (folder / MARKER).write_text(_marker(step, files))

    def _save_remote(self, step: int, write: Callable[[Path], None]) -> None:
        folder = ranks.once_a_machine(self._empty_scratch)
        with storage.full_disk(folder):
            write(folder)
        files = _described(folder, ranks.local_rank(), ranks.local_count())
        if ranks.local_rank() == 0:
            for path in _files(folder):
                storage.publish(path, f"{self._name(step)}/{path.relative_to(folder).as_posix()}")
        ranks.gathered(None)
        if ranks.is_main():
            storage.write_text(folder / MARKER, _marker(step, files))
            storage.publish(folder / MARKER, f"{self._name(step)}/{MARKER}")
        if ranks.local_rank() == 0:
            shutil.rmtree(folder)

    def _empty_scratch(self) -> Path:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700)
        return self._scratch

    def _newest_whole(self) -> int | None:
        for step in self._steps():
            try:
                folder = storage.fetch(self._name(step))
                files = json.loads((folder / MARKER).read_text())["files"]
                broken = [
                    name for name, (size, digest) in files.items() if _description(folder / name) != [size, digest]
                ]
            except (OSError, ValueError, KeyError, TypeError, DataError) as error:
                log.warning("checkpoint passed over", place=self._name(step), error=str(error))
                continue
            if not broken:
                return step
            log.warning("checkpoint passed over", place=self._name(step), damaged=", ".join(broken[:5]))
        return None

    def _remove_leftovers(self, step: int) -> None:
        """Removes what a process that was killed while it saved has left, and what is in the way of this step."""
        if storage.is_remote(self.place):
            for old in {step, *self._steps()} - (set(self._steps(marked=True)) - {step}):
                storage.remove(self._name(old))
        else:
            for path in [*Path(self.place).glob(".step-*.partial"), *Path(self.place).glob(".step-*.replaced")]:
                storage.remove(str(path))

    def _prune(self, step: int) -> None:
        """Drops what is older than the ones to keep, and what is newer than this one: it was passed over at resume."""
        for old in [other for other in self._steps() if other > step]:
            storage.remove(self._name(old))
        for old in self._steps()[self.keep :]:
            storage.remove(self._name(old))

    def _name(self, step: int) -> str:
        return f"{self.place}/step-{step:08d}"

    def _steps(self, *, marked: bool = False) -> list[int]:
        """Steps with a checkpoint folder, newest first; `marked`: only those with a marker."""
        if not self.place:
            return []
        if storage.is_remote(self.place):
            names = {item.name for item in s3.list_folder(self.place)}
        else:
            names = {f"{path.name}/{MARKER}" for path in Path(self.place).glob("step-*")}
        pattern = rf"step-(\d{{8}})/{re.escape(MARKER) if marked else '.*'}"
        found = {int(match[1]) for name in names if (match := re.fullmatch(pattern, name))}
        return sorted(found, reverse=True)


def _described(folder: Path, share: int, shares: int) -> dict[str, list[Any]]:
    """Size and digest of every file that any rank wrote; each rank reads its share of them, once all have written."""
    ranks.gathered(None)
    mine = _files(folder)[share::shares]
    parts = ranks.gathered({path.relative_to(folder).as_posix(): _description(path) for path in mine})
    return {name: description for part in parts for name, description in sorted(part.items())}


def _description(path: Path) -> list[Any]:
    # SHA-256 reads faster than disks and networks do.
    return [path.stat().st_size, storage.digest(path)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _marker(step: int, files: Mapping[str, list[Any]]) -> str:
    return json.dumps({"step": step, "ranks": ranks.count(), "files": files}) + "\n"
