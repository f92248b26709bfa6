"""The training record grows by one folder a step, in order, without the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcoder.errors import DataError
from stepcoder.platform import history


def policy(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "summary.json").write_text(text)
    (folder / "metrics.jsonl").write_text(text)
    (folder / "model.safetensors").write_text("weights")
    return str(folder)


def test_steps_come_in_the_order_of_training_beyond_nine(tmp_path: Path) -> None:
    previous = None
    for number in range(12):
        out = str(tmp_path / f"record{number}")
        history.carry(previous, policy(tmp_path / f"policy{number}", str(number)), out)
        previous = out
    assert previous is not None
    folders = history.steps(previous)
    assert [(folder / "summary.json").read_text() for folder in folders] == [str(number) for number in range(12)]
    assert {path.name for folder in folders for path in folder.iterdir()} == {"summary.json", "metrics.jsonl"}


def test_a_folder_that_no_training_wrote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json"):
        history.carry(None, str(tmp_path), str(tmp_path / "out"))
