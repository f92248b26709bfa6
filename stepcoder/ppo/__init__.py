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

    if config.nproc_per_node > 1 and not launch.launched():
        launch.launch("ppo", config, config.nproc_per_node)
        return
    from stepcoder.ppo.run import train as run

    run(config)
