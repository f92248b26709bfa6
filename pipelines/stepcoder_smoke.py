"""The smoke pipeline: one PPO stage, tiny settings, small pods without a GPU, to try a cluster before it costs much."""

from typing import Any

from pipelines.pods import SMALL
from pipelines.presets import SMOKE, STAGES
from pipelines.stepcoder import build


def build_smoke() -> Any:
    """The pipeline of `pipelines.stepcoder` with the smoke preset as defaults."""
    return build(STAGES["smoke"], name="stepcoder-smoke", pods=SMALL, settings=SMOKE, gpus=0)
