"""One PPO step's roll-outs as tensors: everything that is fixed before the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stepcoder.masks import executed_bytes, policy_loss_mask
from stepcoder.model.batch import Sequences, collate, micro_batches
from stepcoder.model.critic import Critic
from stepcoder.model.load import device
from stepcoder.model.policy import Policy
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.objective import gae, token_rewards, whiten
from stepcoder.rollouts import Sample


@dataclass(frozen=True)
class Experience:
    """The roll-outs of a step; tensors are `(batch, response)`, padded on the right."""

    samples: Sequence[Sample]
    # masks
    response_mask: Bool[Tensor, "batch response"]
    policy_mask: Bool[Tensor, "batch response"]
    # fixed by sampling
    log_probs: Float[Tensor, "batch response"]
    reference_log_probs: Float[Tensor, "batch response"]
    values: Float[Tensor, "batch response"]
    entropy: Float[Tensor, "batch response"]
    # derived
    rewards: Float[Tensor, "batch response"]
    advantages: Float[Tensor, "batch response"]
    """Whitened."""
    returns: Float[Tensor, "batch response"]
    """From the advantages before whitening."""

    def sequences(self, group: Sequence[int]) -> Sequences:
        """The padded ids of some samples."""
        chosen = [self.samples[index] for index in group]
        return collate([s.prompt_ids for s in chosen], [s.response_ids for s in chosen], device())


def gather(
    samples: Sequence[Sample],
    scores: Sequence[float],
    policy: Policy,
    reference: Policy,
    critic: Critic,
    table: Sequence[bytes],
    config: PpoConfig,
    *,
    beta: float,
) -> Experience:
    """Scores the samples with all three networks and derives advantages and returns.

    Args:
        samples: judged roll-outs; none with an empty response.
        scores: reward of each.
        policy: the policy that sampled them.
        reference: the frozen SFT policy.
        critic: the critic before this step's update.
        table: bytes of each token id.
        config: settings.
        beta: weight of the KL penalty now.
    """
    response_mask = _padded([[True] * sample.tokens for sample in samples]).bool()
    policy_mask = _padded([_policy_mask(sample, table, config) for sample in samples]).bool()
    log_probs, entropy = _scored(policy, samples, response_mask, config)
    reference_log_probs, _ = _scored(reference, samples, response_mask, config)
    values = _valued(critic, samples, response_mask, config)
    rewards = token_rewards(
        torch.tensor(scores, device=device()), log_probs - reference_log_probs, response_mask, beta=beta
    )
    advantages, returns = gae(rewards, values, response_mask, gamma=config.gamma, lam=config.gae_lambda)
    return Experience(
        samples=samples,
        response_mask=response_mask,
        policy_mask=policy_mask,
        log_probs=log_probs,
        reference_log_probs=reference_log_probs,
        values=values,
        entropy=entropy,
        rewards=rewards,
        advantages=whiten(advantages, response_mask),
        returns=returns,
    )


def _policy_mask(sample: Sample, table: Sequence[bytes], config: PpoConfig) -> list[bool]:
    if not config.use_execution_mask:
        return [True] * sample.tokens
    lengths = [len(table[index]) if index < len(table) else 0 for index in sample.response_ids]
    return policy_loss_mask(
        lengths,
        len(sample.opened.encode()),
        executed_bytes(sample.program.encode(), sample.verdict.statements),
        when_nothing_ran=config.when_nothing_ran,
        keep_tail=config.mask_keeps_tail,
    )


def _padded(rows: Sequence[Sequence[bool]]) -> Tensor:
    whole = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.uint8)
    for index, row in enumerate(rows):
        whole[index, : len(row)] = torch.tensor(row, dtype=torch.uint8)
    return whole.to(device())


def _groups(samples: Sequence[Sample], config: PpoConfig) -> list[list[int]]:
    return micro_batches([len(s.prompt_ids) + s.tokens for s in samples], config.micro_batch_tokens)


@torch.no_grad()
def _scored(network: Policy, samples: Sequence[Sample], mask: Tensor, config: PpoConfig) -> tuple[Tensor, Tensor]:
    log_probs, entropy = torch.zeros(mask.shape, device=mask.device), torch.zeros(mask.shape, device=mask.device)
    for group in _groups(samples, config):
        batch = collate([samples[i].prompt_ids for i in group], [samples[i].response_ids for i in group], mask.device)
        chosen, spread = network(batch.input_ids, batch.attention_mask, batch.rows, config.temperature)
        log_probs[group] = log_probs[group].masked_scatter(mask[group], chosen)
        entropy[group] = entropy[group].masked_scatter(mask[group], spread)
    return log_probs, entropy


@torch.no_grad()
def _valued(network: Critic, samples: Sequence[Sample], mask: Tensor, config: PpoConfig) -> Tensor:
    values = torch.zeros(mask.shape, device=mask.device)
    for group in _groups(samples, config):
        batch = collate([samples[i].prompt_ids for i in group], [samples[i].response_ids for i in group], mask.device)
        # The value of an action is that of the state before it.
        flat = network(batch.input_ids, batch.attention_mask).flatten()[batch.rows - 1]
        values[group] = values[group].masked_scatter(mask[group], flat)
    return values
