"""What one run of the benchmark is: problems, model, warm start, roll-outs, measurement. Data only."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from stepcoder.platform.config import StepConfig

Variant = Literal["sft", "plain", "fgo", "cccs", "stepcoder"]

SWITCHES: Final[dict[Variant, dict[str, bool]]] = {
    "plain": {"use_curriculum": False, "use_execution_mask": False},
    "fgo": {"use_curriculum": False, "use_execution_mask": True},
    "cccs": {"use_curriculum": True, "use_execution_mask": False},
    "stepcoder": {"use_curriculum": True, "use_execution_mask": True},
}
"""All that tells the four kinds of PPO apart, besides what tuning found for each."""

NAMES: Final[dict[Variant, str]] = {
    "sft": "SFT only",
    "plain": "plain PPO",
    "fgo": "PPO + FGO",
    "cccs": "PPO + CCCS",
    "stepcoder": "StepCoder",
}

BASELINE: Final[Variant] = "plain"
"""What the others are compared with."""


class Setting(StepConfig):
    """One run: the same problems, warm start and number of roll-outs for every variant."""

    seeds: tuple[int, ...]
    """Each seed has its own warm start, which all its variants share."""
    stages: int = Field(ge=1)
    """PPO stages of every variant, also of those without a curriculum: optimisers start anew equally often."""
    max_chars: int = Field(ge=1)
    """Most characters of statement, starter and solution together."""
    validation: float = Field(gt=0, lt=1)
    """Share of validation problems: what tuning looks at."""
    test: float = Field(gt=0, lt=1)
    """Share of test problems: what results are measured on."""
    train_problems: int = Field(ge=1)
    """Problems that PPO trains on, by a hash of their id; SFT has all of the training split."""
    least_conditionals: int = Field(ge=0)
    """PPO trains on problems with at least so many conditional statements: with fewer than two there is one level."""
    measured_problems: int | None = Field(None, ge=1)
    """Held-out problems to measure, by a hash of their id. Empty: all."""
    buckets: tuple[tuple[int, int | None], ...] = ((0, 1), (2, 2), (3, None))
    """Groups of held-out problems: lowest and highest number of conditional statements."""
    init: dict[str, Any]
    """Settings of `init-model`."""
    shared: dict[str, Any]
    """Settings that SFT and PPO have in common."""
    sft: dict[str, Any]
    """Settings of the warm start."""
    ppo: dict[str, Any]
    """Settings of every PPO stage, the same for all variants. `steps` counts one stage."""
    tuned: dict[Variant, dict[str, Any]] = Field(default_factory=dict)
    """Settings of PPO that tuning found for one variant."""
    measured: dict[str, Any]
    """How held-out programs are sampled: `samples`, `temperature`, `top_p`."""

    @property
    def rollouts(self) -> int:
        """Roll-outs of each PPO variant, over all stages."""
        settings = {"problems_per_step": 64, "samples_per_problem": 16, **self.ppo}
        a_step = min(settings["problems_per_step"], self.train_problems) * settings["samples_per_problem"]
        return int(self.stages * settings["steps"] * a_step)


_MODEL: Final = {"precision": "fp32", "zero_stage": 0, "gradient_checkpointing": False}
"""Small models on a CPU."""
_SHORT: Final = {"max_prompt_tokens": 192, "max_new_tokens": 72, "sampling_batch": 128, "cpu_seconds": 0.3}
"""Longest prompt and solution of the short problems; programs that end at once."""

SMALL: Final = Setting(
    seeds=(0, 1, 2, 3, 4),
    stages=2,
    max_chars=350,
    validation=0.15,
    test=0.2,
    train_problems=640,
    least_conditionals=1,
    init={"vocabulary": 1024},
    shared={**_MODEL, **_SHORT, "sandbox_slots": 1},
    # From two epochs on the policy is good enough to learn from; after three, PPO adds little.
    sft={"epochs": 2, "learning_rate": 3e-3, "warmup_epochs": 0.1, "batch_size": 8, "validation_problems": 0},
    ppo={
        "steps": 30,
        "problems_per_step": 32,
        "samples_per_problem": 4,
        "minibatches": 2,
        "learning_rate": 2e-4,
        "critic_learning_rate": 1e-3,
        "warmup_steps": 16,
        "critic_warmup_steps": 2,
        "curriculum_alpha": 0.8,
        "validation_samples": 2,
        "checkpoint_every": 10,
    },
    measured={"samples": 8, "temperature": 0.2, "top_p": 0.95},
)
"""Under an hour on two cores."""

SMOKE: Final = SMALL.model_copy(
    update={
        "seeds": (0, 1),
        "measured_problems": 24,
        "sft": {**SMALL.sft, "epochs": 0.2},
        "ppo": {**SMALL.ppo, "steps": 2, "problems_per_step": 8, "validation_problems": 8, "checkpoint_every": 1},
    }
)
"""Some minutes: shows that all parts work, and nothing else."""

FULL: Final = Setting(
    seeds=(0, 1, 2, 3, 4),
    stages=3,
    # The long problems too: five to nine conditional statements, three levels.
    max_chars=2000,
    validation=0.15,
    test=0.2,
    train_problems=512,
    least_conditionals=2,
    buckets=((0, 1), (2, 2), (3, 4), (5, None)),
    init={"vocabulary": 1024, "hidden_size": 192, "layers": 3, "heads": 6},
    shared={
        **_MODEL,
        "max_prompt_tokens": 640,
        "max_new_tokens": 320,
        "sampling_batch": 256,
        "cpu_seconds": 0.3,
        "sandbox_slots": 1,
    },
    sft={**SMALL.sft, "epochs": 2, "learning_rate": 2e-3, "checkpoint_every": 100},
    ppo={**SMALL.ppo, "steps": 70, "checkpoint_every": 20},
    tuned=SMALL.tuned,
    measured={"samples": 16, "temperature": 0.2, "top_p": 0.95},
)
"""A night on two cores, or a GPU with `shared` set to bf16."""

SETTINGS: Final[dict[str, Setting]] = {"smoke": SMOKE, "small": SMALL, "full": FULL}
