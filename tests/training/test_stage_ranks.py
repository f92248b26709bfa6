"""Whole trainings on two ranks give the curves and the weights of one rank, in every ZeRO stage and with adapters.

What is left is rounding: sums in another order, 1e-7 of a gradient, which Adam divides by the gradient's own size. A
weight whose gradient is nearly nothing can so move by a share of the learning rate, 1e-4 here; a wrong denominator or a
lost rank moves all of them by about the learning rate.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stepcoder.platform.launch import launch
from stepcoder.ppo import PpoConfig
from tests.training import stage_steps as steps
from tests.training.trainings import lines, wait_for, without_times

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(dataset: Path, policy: Path, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> steps.Config:
    out = tmp_path_factory.mktemp("ranks")
    return steps.Config(out=str(out), dataset=str(dataset), policy=str(policy), base_model=str(base_model))


@pytest.fixture(scope="module")
def outputs(config: steps.Config) -> dict[int, Path]:
    """The folder of all trainings by the number of ranks."""
    found = {count: Path(config.out) / str(count) for count in (1, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPCODER_HOME", config.out)
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        steps.all_cases(config.model_copy(update={"out": str(found[1])}))
        two = config.model_copy(update={"out": str(found[2])})
        launch("tests.training.stage_steps:Config:all_cases", two, processes=2)
    return found


def curve(folder: Path) -> list[dict[str, Any]]:
    """What does not tell of time."""
    return without_times(lines(folder / "policy" / "metrics.jsonl"))


def assert_same(one: Path, two: Path) -> None:
    curves = curve(one), curve(two)
    assert len(curves[0]) == len(curves[1]) > 1
    for ours, theirs in zip(*curves, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            close = pytest.approx(value, rel=2e-3, abs=2e-5) if isinstance(value, float) else value
            assert theirs[name] == close, name
            assert not isinstance(value, float) or math.isfinite(value)
    files = ["policy/model.safetensors", "critic/model.safetensors", "critic/value_head.safetensors"]
    for file in files if (one / "critic").exists() else files[:1]:
        ours, theirs = (load_file(folder / file) for folder in (one, two))
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-5, msg=f"{file}: {name}")
            assert (weight - theirs[name]).abs().mean() < 1e-6


def command_line(settings: PpoConfig) -> list[str]:
    """The command of a stage with these settings."""
    values = settings.model_dump(mode="json", exclude={"conditional_kinds"})
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return [sys.executable, "-m", "stepcoder.cli", "ppo", *flags]


@pytest.mark.parametrize("name", steps.CASES)
def test_two_ranks_give_the_curves_and_weights_of_one(outputs: dict[int, Path], name: str) -> None:
    assert_same(outputs[1] / name, outputs[2] / name)


@pytest.mark.parametrize("kind", ["ppo", "sft"])
@pytest.mark.parametrize("count", [1, 2])
def test_every_zero_stage_gives_the_same(outputs: dict[int, Path], kind: str, count: int) -> None:
    for stage in range(1, 4):
        if f"{kind}-{stage}" in steps.CASES:
            assert_same(outputs[count] / f"{kind}-0", outputs[count] / f"{kind}-{stage}")


def test_the_curriculum_and_the_validation_are_the_same(outputs: dict[int, Path]) -> None:
    for file in ("policy/summary.json", "curriculum/curriculum.json"):
        one, two = (json.loads((outputs[count] / "ppo-2" / file).read_text()) for count in (1, 2))
        assert one == two


def test_the_command_line_starts_the_ranks(
    outputs: dict[int, Path], config: steps.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings = steps.settings_of("ppo-2", config, tmp_path, nproc_per_node=2)
    ended = subprocess.run(command_line(settings), capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert "processes=2" in ended.stderr
    assert_same(outputs[1] / "ppo-2", tmp_path / "ppo-2")


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_training_goes_on_with_another_number_of_ranks(
    before: int,
    after: int,
    outputs: dict[int, Path],
    config: steps.Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    places = {"checkpoints": str(tmp_path / "checkpoints"), "checkpoint_every": 1}

    def command(ranks: int) -> list[str]:
        return command_line(steps.settings_of("ppo-2", config, tmp_path, nproc_per_node=ranks, **places))

    quiet = subprocess.DEVNULL
    killed = subprocess.Popen(command(before), stdout=quiet, stderr=quiet)
    wait_for(lambda: any((tmp_path / "checkpoints").glob("*/step-*/complete.json")), 0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "ppo-2" / "policy").exists()
    again = subprocess.run(command(after), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "event=resumed" in again.stderr
    assert_same(outputs[1] / "ppo-2", tmp_path / "ppo-2")
