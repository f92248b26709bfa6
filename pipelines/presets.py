"""Settings that belong together: what `--preset` of `pipelines.local` and the smoke pipeline stand for."""

from __future__ import annotations

from typing import Any, Final

_TINY: Final[dict[str, Any]] = {"precision": "fp32", "zero_stage": 0, "gradient_checkpointing": False}

SMOKE: Final[dict[str, dict[str, Any]]] = {
    "init": {"hidden_size": 32, "layers": 1, "heads": 2},
    "verification": {"repeats": 1},
    "sft": _TINY | {},
    "ppo": _TINY | {},
    "evaluation": {},
    "gate": {},
}
"""Every step does next to nothing: shows in a minute or two whether all parts work together."""

DEMO: Final[dict[str, dict[str, Any]]] = {
    "init": {},
    "verification": {},
    "sft": _TINY | {},
    "ppo": _TINY | {},
    "evaluation": {},
    "gate": {},
}
"""A small model learns the short ones of the shipped problems on two cores within minutes."""

PRESETS: Final = {"smoke": SMOKE, "demo": DEMO}
STAGES: Final = {"smoke": 1, "demo": 3}
"""PPO stages of each preset."""
