"""The smoke pipeline: one PPO stage with tiny settings on small pods, to try a cluster before spending GPU time."""

from typing import Any

from pipelines.pods import SMALL
from pipelines.presets import SMOKE, STAGES
from pipelines.stepcoder import build


def build_smoke() -> Any:
    """The pipeline of `pipelines.stepcoder` with the smoke preset as defaults."""
    return build(STAGES["smoke"], name="stepcoder-smoke", pods=SMALL, settings=SMOKE)
