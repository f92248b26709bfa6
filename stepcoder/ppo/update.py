"""The update of a PPO step: mini-batches are optimiser steps, and each is as many micro-batches as fit the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepcoder.model.batch import shared_out
from stepcoder.model.seeds import permutation
from stepcoder.platform import engine, ranks
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.experience import Experience
from stepcoder.ppo.objective import policy_loss, value_loss


@dataclass
class _Sums:
    """What an update adds up for the log; of this rank's own tokens."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    clip_fraction: float = 0.0
    ratio_deviation: float = 0.0


def update(
    experience: Experience, policy: engine.Engine | None, critic: engine.Engine, config: PpoConfig, seed: int
) -> dict[str, float]:
    """PPO epochs over mini-batches; each mini-batch is one optimiser step of each network.

    Every rank has the whole experience and computes the same mini-batches; a rank works on its share of each.

    Args:
        experience: the roll-outs of this step, of all ranks.
        policy: the policy's engine; `None` while only the critic learns.
        critic: the critic's engine.
        config: settings.
        seed: decides which samples share a mini-batch.

    Returns:
        Mean losses and clip fraction of an optimiser step, the largest deviation of the ratio from 1 in the first
        one, the mean gradient norms before clipping, and how many optimiser steps were skipped.
    """
    count = len(experience.samples)
    sums = _Sums()
    steps: dict[str, list[engine.Step]] = {"policy": [], "critic": []}
    minibatches = 0
    for epoch in range(config.ppo_epochs):
        order = permutation(count, "mini-batches", seed, epoch)
        size = -(-count // config.minibatches)
        for begin in range(0, count, size):
            chosen = order[begin : begin + size]
            losses = _MinibatchLosses(experience, chosen, config, sums, first=minibatches == 0)
            groups = shared_out(losses.lengths, config.micro_batch_tokens, ranks.count())[ranks.rank()]
            mine = [[chosen[i] for i in group] for group in groups]
            if policy is not None and losses.policy_tokens:
                steps["policy"].append(policy.step([losses.policy(policy, group) for group in mine]))
            steps["critic"].append(critic.step([losses.critic(critic, group) for group in mine]))
            minibatches += 1
    everyone = ranks.gathered(sums)
    means = {
        name: sum(getattr(one, name) for one in everyone) / minibatches
        for name in ("policy_loss", "value_loss", "clip_fraction")
    }
    return {
        **means,
        "ratio_deviation": max(one.ratio_deviation for one in everyone),
        "gradient_norm": _mean_norm(steps["policy"]),
        "critic_gradient_norm": _mean_norm(steps["critic"]),
        "skipped_updates": sum(step.skipped for taken in steps.values() for step in taken),
    }


def _mean_norm(steps: Sequence[engine.Step]) -> float:
    norms = [step.norm for step in steps if not step.skipped]
    return sum(norms) / len(norms) if norms else 0.0


class _MinibatchLosses:
    """The two losses of one optimiser step, micro-batch by micro-batch."""

    def __init__(
        self, experience: Experience, chosen: Sequence[int], config: PpoConfig, sums: _Sums, *, first: bool
    ) -> None:
        self.experience, self.config, self.sums, self.first = experience, config, sums, first
        self.lengths = [len(s.prompt_ids) + s.tokens for s in (experience.samples[i] for i in chosen)]
        self.chosen = list(chosen)
        # Denominators are those of the whole optimiser step on all ranks.
        self.response_tokens = int(experience.response_mask[self.chosen].sum())
        self.policy_tokens = int(experience.policy_mask[self.chosen].sum())

    def policy(self, network: engine.Engine, group: Sequence[int]) -> Callable[[], Tensor]:
        """The policy loss of a micro-batch, to be computed when its turn comes."""
        config = self.config
        executed = config.policy_denominator == "executed"
        denominator = self.policy_tokens if executed else self.response_tokens

        def loss() -> Tensor:
            rows, valid = self._rows(group)
            new, _ = network(self.experience.packed(rows), config.temperature)
            old = self.experience.log_probs[rows][valid]
            mask = self.experience.policy_mask[rows][valid] & bool(group)
            value, clipped = policy_loss(
                new,
                old,
                self.experience.advantages[rows][valid],
                mask,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                denominator=denominator,
            )
            self.sums.policy_loss += value.item()
            self.sums.clip_fraction += clipped.item() / self.policy_tokens
            if self.first:
                deviation = torch.expm1(new.detach() - old).abs().max().item()
                self.sums.ratio_deviation = max(self.sums.ratio_deviation, deviation)
            return value

        return loss

    def critic(self, network: engine.Engine, group: Sequence[int]) -> Callable[[], Tensor]:
        """The value loss of a micro-batch, to be computed when its turn comes."""
        config = self.config
        masked = config.mask_value_loss and self.policy_tokens > 0
        denominator = self.policy_tokens if masked else self.response_tokens

        def loss() -> Tensor:
            rows, valid = self._rows(group)
            values = network(self.experience.packed(rows))
            mask = self.experience.policy_mask if masked else self.experience.response_mask
            value = config.value_loss_weight * value_loss(
                values,
                self.experience.values[rows][valid],
                self.experience.returns[rows][valid],
                mask[rows][valid] & bool(group),
                clip=config.value_clip,
                denominator=denominator,
            )
            self.sums.value_loss += value.item()
            return value

        return loss

    def _rows(self, group: Sequence[int]) -> tuple[list[int], Tensor]:
        """The samples of a micro-batch, and where their tokens are.

        A rank without a share takes part in the passes that the others make: with one sample, all of it masked.
        """
        rows = list(group) or self.chosen[:1]
        return rows, self.experience.response_mask[rows]
