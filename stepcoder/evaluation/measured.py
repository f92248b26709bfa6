"""Earlier measurements, kept so that a champion is not sampled again every week.

One file a measurement, named by a hash of everything that its result depends on: the checkpoint, the problems and the
settings. A file is put in place whole, so a run that was killed finds the models that it had finished.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError
from stepcoder.evaluation.samples import JudgedSample, read_samples, write_samples
from stepcoder.platform import storage
from stepcoder.platform.logs import get_logger
from stepcoder.problems.problem import Problem

log = get_logger("evaluate")


def problems_digest(problems: Sequence[Problem]) -> str:
    """A digest of the problems' content that does not depend on their order."""
    whole = hashlib.sha256()
    for text in sorted(problem.model_dump_json() for problem in problems):
        whole.update(text.encode() + b"\n")
    return whole.hexdigest()


def measurement_key(settings: dict[str, Any]) -> str:
    """The name of a measurement: a hash of the settings that its result depends on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def read_measurement(folder: str, key: str) -> list[JudgedSample] | None:
    """Reads an earlier measurement.

    Args:
        folder: where measurements are kept: a path or an `s3://` address.
        key: see `measurement_key`.

    Returns:
        The samples, or None when there are none or the file is damaged, which is logged.

    Raises:
        StepCoderError: the object store cannot be read.
    """
    address = _address(folder, key)
    if not storage.exists(address):
        return None
    path = storage.fetch(address)
    try:
        with path.open(encoding="utf-8") as stream:
            written = json.loads(stream.readline())["lines"]
        found = list(read_samples(path, skip_lines=1))
    except (DataError, ValueError, KeyError, TypeError) as error:
        log.warning("an earlier measurement cannot be read and is made anew", address=address, error=str(error))
        return None
    if len(found) != written:
        log.warning("an earlier measurement is cut short and is made anew", address=address)
        return None
    return found


def write_measurement(folder: str, key: str, settings: dict[str, Any], samples: Sequence[JudgedSample]) -> None:
    """Keeps a measurement for later evaluations: a line with the settings, then a line a sample.

    Raises:
        StepCoderError: the disk is full or the object store cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="stepcoder-") as scratch:
        path = Path(scratch) / "samples.jsonl"
        write_samples(path, (({}, sample) for sample in samples), head={**settings, "lines": len(samples)})
        storage.publish(path, _address(folder, key))


def _address(folder: str, key: str) -> str:
    return f"{folder.rstrip('/')}/{key}.jsonl"
