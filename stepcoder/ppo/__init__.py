"""PPO with a critic, the completion curriculum and execution masks: one pipeline stage of it.

`objective.py` is the mathematics, `experience.py` one step's data, `update.py` its update, `run.py` the loop,
`artifacts.py` what a stage reads and writes. Importing this imports no torch.
"""

from __future__ import annotations

from stepcoder.ppo.config import PpoConfig

__all__ = ["PpoConfig", "train"]


def train(config: PpoConfig) -> None:
    """Trains one stage and publishes policy, critic and curriculum; see `stepcoder.ppo.run.train`."""
    from stepcoder.platform import launch

    if not launch.launched() and (ranks := launch.ranks_here(config.nproc_per_node)) > 1:
        launch.launch("ppo", config, ranks)
        return
    from stepcoder.ppo.run import train as run

    run(config)
