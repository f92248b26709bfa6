"""The dataset folder: three split files, what was rejected and why, and the card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import storage
from stepcoder.problems import Problem, dump_problems
from stepcoder.problems.splits import SPLITS, Split
from stepcoder.verification.card import Card
from stepcoder.verification.reasons import Rejection

CARD = "card.json"


@dataclass(frozen=True)
class Rejected:
    """One line of `rejected.jsonl`."""

    id: str
    source: str
    where: str
    """The record's place in the file, for the log; the line leaves it out, since it changes with the order."""
    rejection: Rejection
    record: Any

    def line(self) -> str:
        """The line, without its end."""
        row = {
            "id": self.id,
            "source": self.source,
            "reason": self.rejection.reason,
            "detail": self.rejection.detail,
            "record": self.record,
        }
        # Escaped, since a rejected record may hold text that is no Unicode.
        return json.dumps(row)


def check_target(address: str) -> None:
    """Refuses to replace what is not a dataset.

    Raises:
        DataError: there is something else at the address.
    """
    if not storage.exists(address):
        return
    empty = Path(address).is_dir() and not any(Path(address).iterdir())
    if not empty and not storage.exists(f"{address.rstrip('/')}/{CARD}"):
        raise DataError(f"{address}: is there already and is no dataset; give a new folder, or remove it first")


def digest_of(splits: dict[Split, list[Problem]]) -> str:
    """A SHA-256 over the split files as they are written."""
    whole = hashlib.sha256()
    for name in SPLITS:
        whole.update(f"{name}\n".encode())
        for problem in splits[name]:
            whole.update(f"{problem.model_dump_json()}\n".encode())
    return whole.hexdigest()


def write(address: str, splits: dict[Split, list[Problem]], rejected: Sequence[Rejected], card: Card) -> None:
    """Writes the folder aside and publishes it as a whole.

    Raises:
        StepCoderError: it cannot be written, for example because the disk is full.
    """
    try:
        with storage.staged(address) as folder:
            _fill(folder, splits, rejected, card)
    except OSError as error:
        raise StepCoderError(f"{address}: the dataset cannot be written: {error.strerror or error}") from error


def _fill(folder: Path, splits: dict[Split, list[Problem]], rejected: Sequence[Rejected], card: Card) -> None:
    for name in SPLITS:
        dump_problems(splits[name], folder / f"{name}.jsonl")
    with (folder / "rejected.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(item.line() + "\n" for item in rejected)
    (folder / CARD).write_text(json.dumps(card.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
