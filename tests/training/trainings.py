"""Settings of trainings that are over in seconds, and what they leave behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepcoder.ppo import PpoConfig

SMALL: dict[str, Any] = {
    "precision": "fp32",
    "zero_stage": 0,
    "gradient_checkpointing": False,
    "max_prompt_tokens": 256,
    "max_new_tokens": 48,
    "validation_problems": 4,
    "sandbox_slots": 1,
}
PPO: dict[str, Any] = {
    **SMALL,
    "steps": 3,
    "problems_per_step": 4,
    "samples_per_problem": 2,
    "minibatches": 2,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "warmup_steps": 1,
    "checkpoint_every": 1,
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ppo_config(dataset: Path, policy: Path, out: Path, **more: Any) -> PpoConfig:
    places = {"out": str(out / "policy"), "out_critic": str(out / "critic"), "out_curriculum": str(out / "curriculum")}
    return PpoConfig(dataset=str(dataset), policy=str(policy), reference=str(policy), **places, **{**PPO, **more})


def without_times(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if "second" not in name} for line in curve]


def wait_for(condition: Callable[[], bool], interval: float, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(interval)
