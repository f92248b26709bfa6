"""Settings become configs, and every fault in them is named at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder.errors import DataError
from stepcoder.platform.config import StepConfig, parse, write_resolved


class Demo(StepConfig):
    dataset: str
    epochs: int = 1
    learning_rate: float = 0.1
    kinds: tuple[str, ...] = ("if",)


def test_whole_numbers_may_come_as_floats() -> None:
    config = parse(Demo, {"epochs": 3.0, "kinds": ["for"]}, where="sft", dataset="d")
    assert config == Demo(dataset="d", epochs=3, kinds=("for",))


def test_all_faults_are_listed_with_their_names() -> None:
    settings = {"epoch": 3, "zzz": 1, "learning_rate": "fast", "epochs": 1.5, "dataset": "other"}
    with pytest.raises(DataError) as caught:
        parse(Demo, settings, where="sft", dataset="d")
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "sft.epoch: unknown setting; did you mean epochs?" in lines
    assert "sft.zzz: unknown setting; valid: epochs, learning_rate, kinds" in lines
    assert any(line.startswith("sft.learning_rate:") and "'fast'" in line for line in lines)
    assert any(line.startswith("sft.epochs:") and "1.5" in line for line in lines)
    assert any(line.startswith("sft.dataset:") and "input of its own" in line for line in lines)
    assert caught.value.exit_status == 2


def test_the_resolved_config_holds_the_defaults_too(tmp_path: Path) -> None:
    path = write_resolved(Demo(dataset="d"), tmp_path)
    assert json.loads(path.read_text()) == {"dataset": "d", "epochs": 1, "learning_rate": 0.1, "kinds": ["if"]}


def test_sets_are_written_in_one_order_in_every_process() -> None:
    program = (
        "from stepcoder.platform.config import StepConfig\n"
        "class Sets(StepConfig):\n    kinds: frozenset[str] = frozenset(('if', 'for', 'while', 'with', 'try'))\n"
        "print(Sets().model_dump(mode='json'), Sets().model_dump_json())"
    )
    written = {
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2", "3")
    }
    assert len(written) == 1
