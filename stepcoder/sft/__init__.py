"""Supervised fine-tuning: the warm start, and the reference policy of PPO.

The sampling of programs and their judging live in `stepcoder.rollouts`. Importing this imports no torch.
"""

from __future__ import annotations

from stepcoder.sft.config import SftConfig

__all__ = ["SftConfig", "train"]


def train(config: SftConfig) -> None:
    """Trains a policy and publishes it to `config.out`; see `stepcoder.sft.run.train`."""
    from stepcoder.platform import launch

    if not launch.launched() and (ranks := launch.ranks_here(config.nproc_per_node)) > 1:
        launch.launch("sft", config, ranks)
        return
    from stepcoder.sft.run import train as run

    run(config)
