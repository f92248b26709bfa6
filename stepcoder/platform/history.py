"""The record of a training run that travels from step to step without the weights: curves and validation results.

A folder with one subfolder a training step, in order: `0/` for SFT, `1/` for PPO stage 1, and so on. Each holds the
`metrics.jsonl` and `summary.json` of that step's policy, and `mlflow-unsent.json` where MLflow was away when it ended.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stepcoder.errors import DataError
from stepcoder.platform.storage import exists, fetch, publishing
from stepcoder.platform.tracking.unsent import METRICS_NAME, UNSENT_NAME

SUMMARY_NAME = "summary.json"


def carry(previous: str | None, policy: str, out: str) -> None:
    """Writes the record so far plus that of the step that wrote `policy`.

    Args:
        previous: Record before this step; None in the first training step.
        policy: Folder or `s3://` address of the step's policy; of the latter these files alone are read.
        out: Where the new record goes.

    Raises:
        DataError: the policy folder has no `summary.json`.
    """
    if not exists(f"{policy}/{SUMMARY_NAME}"):
        raise DataError(f"{policy}: has no {SUMMARY_NAME}, so it does not come from a training step")
    with publishing(Path(out)) as partial:
        earlier = [str(folder) for folder in steps(previous)] if previous else []
        for number, folder in enumerate([*earlier, policy]):
            (partial / str(number)).mkdir()
            for name in (METRICS_NAME, SUMMARY_NAME, UNSENT_NAME):
                if exists(f"{folder}/{name}"):
                    shutil.copyfile(fetch(f"{folder}/{name}"), partial / str(number) / name)


def steps(record: str) -> list[Path]:
    """The folders of a record, in the order of training."""
    return sorted((path for path in Path(record).iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
