"""Settings that belong together: what `--preset` of `pipelines.local` and the smoke pipeline stand for."""

from __future__ import annotations

from typing import Any, Final

_SMALL: Final[dict[str, Any]] = {
    "precision": "fp32",
    "zero_stage": 0,
    "gradient_checkpointing": False,
    "nproc_per_node": 1,
}
"""A model of less than a million parameters: a CPU is enough, and so is one GPU of many."""

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

_SHORT: Final = {"max_prompt_tokens": 192, "max_new_tokens": 72, "sampling_batch": 128, "cpu_seconds": 0.3}
"""The short ones of the shipped problems: their longest prompt and solution, and programs that end at once."""

DEMO: Final[dict[str, dict[str, Any]]] = {
    "init": {"vocabulary": 1024, "max_chars": 350},
    # A tenth each: a model that learns from nothing needs the problems more than the paper's did.
    "verification": {"max_chars": 350, "validation": 0.1, "test": 0.1},
    "sft": {
        **_SMALL,
        **_SHORT,
        "epochs": 2,
        "learning_rate": 3e-3,
        "warmup_epochs": 0.1,
        "batch_size": 8,
        "validation_samples": 2,
    },
    "ppo": {
        **_SMALL,
        **_SHORT,
        "steps": 20,
        "problems_per_step": 32,
        "samples_per_problem": 4,
        "minibatches": 2,
        "learning_rate": 3e-4,
        "critic_learning_rate": 1e-3,
        "warmup_steps": 4,
        # A problem comes up about once a stage: it advances when all its roll-outs pass.
        "curriculum_alpha": 0.8,
        "critic_warmup_steps": 2,
        "validation_samples": 2,
    },
    "evaluation": {**_SHORT, "samples": 8, "ks": [1, 4, 8]},
    "gate": {},
}
"""A small model learns the short ones of the shipped problems on two cores within minutes."""

PRESETS: Final = {"smoke": SMOKE, "demo": DEMO}
STAGES: Final = {"smoke": 1, "demo": 3}
"""PPO stages of each preset."""
