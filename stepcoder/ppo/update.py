"""The update of a PPO step: mini-batches are optimiser steps, and each is as many micro-batches as fit the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from stepcoder.model.batch import micro_batches
from stepcoder.model.seeds import permutation
from stepcoder.platform import engine
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.experience import Experience
from stepcoder.ppo.objective import policy_loss, value_loss


def update(
    experience: Experience, policy: engine.Engine | None, critic: engine.Engine, config: PpoConfig, seed: int
) -> dict[str, float]:
    """PPO epochs over mini-batches; each mini-batch is one optimiser step of each network.

    Args:
        experience: the roll-outs of this step.
        policy: the policy's engine; `None` while only the critic learns.
        critic: the critic's engine.
        config: settings.
        seed: decides which samples share a mini-batch.

    Returns:
        Mean losses and clip fraction of an optimiser step, the largest deviation of the ratio from 1 in the first
        one, and the mean gradient norm of the policy before clipping.
    """
    count = len(experience.samples)
    sums = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "ratio_deviation": 0.0}
    norms: list[float] = []
    optimiser_steps = 0
    for epoch in range(config.ppo_epochs):
        order = permutation(count, "mini-batches", seed, epoch)
        size = -(-count // config.minibatches)
        for begin in range(0, count, size):
            chosen = order[begin : begin + size]
            losses = _MinibatchLosses(experience, chosen, config, sums, first=optimiser_steps == 0)
            groups = [[chosen[i] for i in group] for group in micro_batches(losses.lengths, config.micro_batch_tokens)]
            if policy is not None and losses.policy_tokens:
                norms.append(policy.step([losses.policy(policy, group) for group in groups]))
            critic.step([losses.critic(critic, group) for group in groups])
            optimiser_steps += 1
    means = {name: sums[name] / optimiser_steps for name in ("policy_loss", "value_loss", "clip_fraction")}
    norm = sum(norms) / len(norms) if norms else 0.0
    return {**means, "ratio_deviation": sums["ratio_deviation"], "gradient_norm": norm}


class _MinibatchLosses:
    """The two losses of one optimiser step, micro-batch by micro-batch."""

    def __init__(
        self, experience: Experience, chosen: Sequence[int], config: PpoConfig, sums: dict[str, float], *, first: bool
    ) -> None:
        self.experience, self.config, self.sums, self.first = experience, config, sums, first
        self.lengths = [len(s.prompt_ids) + s.tokens for s in (experience.samples[i] for i in chosen)]
        rows = list(chosen)
        self.response_tokens = int(experience.response_mask[rows].sum())
        self.policy_tokens = int(experience.policy_mask[rows].sum())

    def policy(self, network: engine.Engine, group: Sequence[int]) -> Callable[[], Tensor]:
        """The policy loss of a micro-batch, to be computed when its turn comes."""
        config, rows = self.config, list(group)
        executed = config.policy_denominator == "executed"
        denominator = self.policy_tokens if executed else self.response_tokens

        def loss() -> Tensor:
            batch = self.experience.sequences(group)
            new, _ = network(batch.input_ids, batch.attention_mask, batch.rows, config.temperature)
            valid = self.experience.response_mask[rows]
            old = self.experience.log_probs[rows][valid]
            mask = self.experience.policy_mask[rows][valid]
            value, clipped = policy_loss(
                new,
                old,
                self.experience.advantages[rows][valid],
                mask,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                denominator=denominator,
            )
            self.sums["policy_loss"] += value.item()
            self.sums["clip_fraction"] += clipped.item() / self.policy_tokens
            if self.first:
                deviation = (new.detach() - old).exp().sub(1).abs().max().item()
                self.sums["ratio_deviation"] = max(self.sums["ratio_deviation"], deviation)
            return value

        return loss

    def critic(self, network: engine.Engine, group: Sequence[int]) -> Callable[[], Tensor]:
        """The value loss of a micro-batch, to be computed when its turn comes."""
        config, rows = self.config, list(group)
        masked = config.mask_value_loss and self.policy_tokens > 0
        denominator = self.policy_tokens if masked else self.response_tokens

        def loss() -> Tensor:
            batch = self.experience.sequences(group)
            values = network(batch.input_ids, batch.attention_mask).flatten()[batch.rows - 1]
            valid = self.experience.response_mask[rows]
            mask = self.experience.policy_mask if masked else self.experience.response_mask
            value = config.value_loss_weight * value_loss(
                values,
                self.experience.values[rows][valid],
                self.experience.returns[rows][valid],
                mask[rows][valid],
                clip=config.value_clip,
                denominator=denominator,
            )
            self.sums["value_loss"] += value.item()
            return value

        return loss
