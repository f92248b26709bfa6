"""What `test_stage_ranks` lets one rank and two ranks do alike: whole trainings, one behind the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.run import train as train_ppo
from stepcoder.sft.config import SftConfig
from stepcoder.sft.run import train as train_sft
from tests.training.rank_steps import Config as RankConfig

COMMON: dict[str, Any] = {
    "precision": "fp32", "gradient_checkpointing": False, "max_prompt_tokens": 256, "max_new_tokens": 40,
    "validation_problems": 3, "sandbox_slots": 1, "micro_batch_tokens": 700,
}  # fmt: skip
PPO: dict[str, Any] = {
    **COMMON, "steps": 2, "problems_per_step": 3, "samples_per_problem": 2, "minibatches": 2, "learning_rate": 1e-4,
    "critic_learning_rate": 1e-4, "warmup_steps": 1,
}  # fmt: skip
SFT: dict[str, Any] = {**COMMON, "epochs": 1, "batch_size": 5, "learning_rate": 1e-4, "warmup_epochs": 0}
LORA = {"lora_rank": 3, "lora_alpha": 6}

CASES: dict[str, dict[str, Any]] = {
    **{f"ppo-{stage}": {"zero_stage": stage} for stage in range(4)},
    **{f"sft-{stage}": {"zero_stage": stage} for stage in (0, 3)},
    "ppo-lora-3": {"zero_stage": 3, **LORA},
    "sft-lora-2": {"zero_stage": 2, **LORA},
}
"""Settings by the name of the training."""


class Config(RankConfig):
    dataset: str
    base_model: str
    policy: str


def settings_of(name: str, config: Config, out: Path, **more: Any) -> PpoConfig | SftConfig:
    """The settings of a training, that writes below `out / name`."""
    own = {**CASES[name], "dataset": config.dataset, "out": str(out / name / "policy"), **more}
    if name.startswith("sft"):
        return SftConfig(base_model=config.base_model, **{**SFT, **own})
    places = {f"out_{what}": str(out / name / what) for what in ("critic", "curriculum")}
    return PpoConfig(policy=config.policy, reference=config.policy, **{**PPO, **places, **own})


def train(config: PpoConfig | SftConfig) -> None:
    if isinstance(config, PpoConfig):
        train_ppo(config)
    else:
        train_sft(config)


def all_cases(config: Config) -> None:
    """Every training, with the ranks that there are."""
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    for name in CASES:
        train(settings_of(name, config, Path(config.out)))
