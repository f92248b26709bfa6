"""What has been judged so far, on disk: a killed run goes on from here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcoder.errors import StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.verification.reasons import Reason, Rejection

Judgement = Rejection | None
"""`None`: the reference solution passed everything."""


class Journal:
    """Judgements by a hash of everything that they depend on; one JSON line each, written at once."""

    def __init__(self, folder: Path) -> None:
        """The folder is made with the first judgement; what is in it already is read."""
        self._folder = folder
        self._path = folder / "journal.jsonl"
        self._known: dict[str, Judgement] = {}
        self._stream: int | None = None
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._learn(line)
        if self._known:
            get_logger("verify").info("resuming", judged=len(self._known), journal=self._path)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, key: str) -> Judgement:
        return self._known[key]

    def add(self, key: str, judgement: Judgement) -> None:
        """Keeps a judgement.

        Raises:
            StepCoderError: it cannot be written, for example because the disk is full.
        """
        row = {"key": key, "reason": judgement and judgement.reason, "detail": judgement and judgement.detail}
        with self._writing():
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._stream = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            # The line break comes first: half a line that a kill left behind spoils nothing but itself.
            data = memoryview(f"\n{json.dumps(row)}".encode())
            while data:
                data = data[os.write(self._stream, data) :]
        self._known[key] = judgement

    def close(self) -> None:
        """Keeps the file for the next run."""
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None

    def remove(self) -> None:
        """Ends the journal: its work is published, or will not be."""
        self.close()
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _learn(self, line: str) -> None:
        try:
            row = json.loads(line)
            reason = row["reason"]
            self._known[row["key"]] = None if reason is None else Rejection(Reason(reason), row["detail"])
        except (ValueError, KeyError, TypeError):
            return

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StepCoderError(
                f"{self._path}: what has been judged cannot be kept: {error.strerror or error}. Make the place "
                "writable, or free space, and run the same command again: it goes on from what is already there"
            ) from error
