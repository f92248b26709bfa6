"""Settings that belong together: what `--preset` of `pipelines.local` and the smoke pipeline stand for."""

from __future__ import annotations

from typing import Any, Final

_SMALL: Final[dict[str, Any]] = {"precision": "fp32", "zero_stage": 0, "gradient_checkpointing": False}
"""A model of less than a million parameters on a CPU."""

SMOKE: Final[dict[str, dict[str, Any]]] = {
    "init": {"hidden_size": 32, "layers": 1, "heads": 2},
    "verification": {"repeats": 1, "max_chars": 600},
    "sft": {
        **_SMALL,
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "max_new_tokens": 64,
        "validation_problems": 4,
    },
    "ppo": {
        **_SMALL,
        "steps": 2,
        "problems_per_step": 4,
        "samples_per_problem": 2,
        "minibatches": 1,
        "learning_rate": 1e-4,
        "critic_learning_rate": 1e-4,
        "warmup_steps": 1,
        "max_new_tokens": 64,
        "checkpoint_every": 1,
        "validation_problems": 4,
    },
    "evaluation": {"problems": 4, "samples": 2, "max_new_tokens": 64, "resamples": 200},
    "gate": {"resamples": 200},
}
"""Every step does next to nothing: shows in a minute or two whether all parts work together."""

DEMO: Final[dict[str, dict[str, Any]]] = {
    "init": {},
    "verification": {"max_chars": 600},
    "sft": {
        **_SMALL,
        "epochs": 10,
        "learning_rate": 2e-3,
        "batch_size": 16,
        "max_new_tokens": 128,
    },
    "ppo": {
        **_SMALL,
        "steps": 6,
        "problems_per_step": 16,
        "samples_per_problem": 8,
        "minibatches": 2,
        "learning_rate": 1e-4,
        "critic_learning_rate": 3e-4,
        "max_new_tokens": 128,
    },
    "evaluation": {"samples": 8, "max_new_tokens": 128},
    "gate": {},
}
"""A small model learns the short ones of the shipped problems on two cores within minutes."""

PRESETS: Final = {"smoke": SMOKE, "demo": DEMO}
STAGES: Final = {"smoke": 1, "demo": 3}
"""PPO stages of each preset."""
