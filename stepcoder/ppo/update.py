"""The update of a PPO step: mini-batches are optimiser steps, and each is as many micro-batches as fit the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from stepcoder.model.batch import Packed, shared_out, units
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
    ratio_deviation: float | None = None
    """Of the first optimiser step, where the policy took one."""


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
        one if the policy took it, the mean gradient norms before clipping, and how many optimiser steps were skipped.
    """
    count = len(experience.samples)
    prompts = [list(run) for _, run in groupby(range(count), key=lambda index: experience.samples[index].prompt_ids)]
    sums = _Sums()
    steps: dict[str, list[engine.Step]] = {"policy": [], "critic": []}
    parts = min(config.minibatches, count)
    borders = [-(-count * part // parts) for part in range(parts + 1)]
    minibatches = 0
    for epoch in range(config.ppo_epochs):
        # Samples of a prompt stay together, since they share its tokens.
        order = [index for turn in permutation(len(prompts), "mini-batches", seed, epoch) for index in prompts[turn]]
        for begin, end in pairwise(borders):
            minibatch = _Minibatch(experience, order[begin:end], config, sums, first=minibatches == 0)
            mine = minibatch.micro_batches
            if policy is not None and minibatch.policy_tokens:
                steps["policy"].append(policy.step([minibatch.policy_loss(policy, batch) for batch in mine]))
            steps["critic"].append(critic.step([minibatch.value_loss(critic, batch) for batch in mine]))
            minibatches += 1
    everyone = ranks.gathered(sums)
    means = {
        name: sum(getattr(one, name) for one in everyone) / minibatches
        for name in ("policy_loss", "value_loss", "clip_fraction")
    }
    deviations = [one.ratio_deviation for one in everyone if one.ratio_deviation is not None]
    return {
        **means,
        **({"ratio_deviation": max(deviations)} if deviations else {}),
        "gradient_norm": _mean_norm(steps["policy"]),
        "critic_gradient_norm": _mean_norm(steps["critic"]),
        "skipped_updates": sum(step.skipped for taken in steps.values() for step in taken),
    }


def _mean_norm(steps: Sequence[engine.Step]) -> float:
    norms = [step.norm for step in steps if not step.skipped]
    return sum(norms) / len(norms) if norms else 0.0


@dataclass(frozen=True)
class _MicroBatch:
    """What the losses of one forward and backward pass need; tensors are `(tokens,)`, over its response tokens."""

    packed: Packed
    policy_mask: Tensor
    response_mask: Tensor
    """True, but in the pass of a rank that has no share."""
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor


class _Minibatch:
    """The samples of one optimiser step, and its two losses, micro-batch by micro-batch."""

    def __init__(
        self, experience: Experience, chosen: Sequence[int], config: PpoConfig, sums: _Sums, *, first: bool
    ) -> None:
        self.experience, self.config, self.sums, self.first = experience, config, sums, first
        # Denominators are those of the whole optimiser step on all ranks.
        self.response_tokens = int(experience.response_mask[list(chosen)].sum())
        self.policy_tokens = int(experience.policy_mask[list(chosen)].sum())
        samples = [experience.samples[index] for index in chosen]
        together, tokens = units(
            [one.prompt_ids for one in samples], [one.tokens for one in samples], config.micro_batch_tokens
        )
        groups = shared_out(tokens, config.micro_batch_tokens, ranks.count())[ranks.rank()]
        # A rank without a share takes part in the passes that the others make: with one sample, all of it masked.
        self.micro_batches = [
            self._micro_batch([[chosen[place] for place in together[unit]] for unit in group])
            if group
            else self._micro_batch([list(chosen[:1])], counts=False)
            for group in groups
        ]
        """This rank's."""

    def _micro_batch(self, unit_list: Sequence[Sequence[int]], *, counts: bool = True) -> _MicroBatch:
        rows = [index for unit in unit_list for index in unit]
        there = self.experience.response_mask[rows]
        return _MicroBatch(
            packed=self.experience.packed(unit_list),
            policy_mask=self.experience.policy_mask[rows][there] & counts,
            response_mask=there[there] & counts,
            log_probs=self.experience.log_probs[rows][there],
            advantages=self.experience.advantages[rows][there],
            values=self.experience.values[rows][there],
            returns=self.experience.returns[rows][there],
        )

    def policy_loss(self, network: engine.Engine, batch: _MicroBatch) -> Callable[[], Tensor]:
        """The policy loss of a micro-batch, to be computed when its turn comes."""
        config = self.config
        executed = config.policy_denominator == "executed"
        denominator = self.policy_tokens if executed else self.response_tokens

        def loss() -> Tensor:
            new, _ = network(batch.packed, config.temperature)
            value, clipped = policy_loss(
                new,
                batch.log_probs,
                batch.advantages,
                batch.policy_mask,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                denominator=denominator,
            )
            self.sums.policy_loss += value.item()
            self.sums.clip_fraction += clipped.item() / self.policy_tokens
            if self.first:
                deviation = torch.expm1(new.detach() - batch.log_probs).abs().max().item()
                self.sums.ratio_deviation = max(self.sums.ratio_deviation or 0.0, deviation)
            return value

        return loss

    def value_loss(self, network: engine.Engine, batch: _MicroBatch) -> Callable[[], Tensor]:
        """The value loss of a micro-batch, to be computed when its turn comes."""
        config = self.config
        masked = config.mask_value_loss and self.policy_tokens > 0

        def loss() -> Tensor:
            value = config.value_loss_weight * value_loss(
                network(batch.packed),
                batch.values,
                batch.returns,
                batch.policy_mask if masked else batch.response_mask,
                clip=config.value_clip,
                denominator=self.policy_tokens if masked else self.response_tokens,
            )
            self.sums.value_loss += value.item()
            return value

        return loss
