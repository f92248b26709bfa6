"""One PPO step's roll-outs as tensors: everything that is fixed before the update.

Each rank scores what it sampled; then every rank holds the experience of all, so that whatever follows (advantages,
whitening, mini-batches, the curriculum) is computed alike everywhere, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stepcoder.masks import executed_bytes, policy_loss_mask
from stepcoder.model.batch import Packed, micro_batches, pack, units
from stepcoder.model.load import device
from stepcoder.platform import ranks
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.objective import gae, token_rewards, whiten
from stepcoder.rollouts import Rollout, Sample


@dataclass(frozen=True)
class Scores:
    """What the networks say of one response, a number a token."""

    log_probs: Float[Tensor, " response"]
    entropy: Float[Tensor, " response"]
    """Of each token's distribution; where the policy was not asked, its estimate by the drawn token, `-log p`."""
    reference_log_probs: Float[Tensor, " response"]
    values: Float[Tensor, " response"]


@dataclass(frozen=True)
class Experience:
    """The roll-outs of a step, of all ranks; tensors are `(batch, response)`, padded on the right."""

    samples: Sequence[Sample]
    # masks
    response_mask: Bool[Tensor, "batch response"]
    policy_mask: Bool[Tensor, "batch response"]
    # fixed by sampling
    behaviour_log_probs: Float[Tensor, "batch response"]
    """As the sampling had them."""
    log_probs: Float[Tensor, "batch response"]
    """The ratio's denominator: as training computes them, or those of the sampling (`old_log_probs`)."""
    reference_log_probs: Float[Tensor, "batch response"]
    values: Float[Tensor, "batch response"]
    entropy: Float[Tensor, "batch response"]
    # derived
    rewards: Float[Tensor, "batch response"]
    advantages: Float[Tensor, "batch response"]
    """Whitened."""
    returns: Float[Tensor, "batch response"]
    """From the advantages before whitening."""

    def packed(self, unit_list: Sequence[Sequence[int]]) -> Packed:
        """The ids of some samples as a micro-batch; those of a unit share their prompt."""
        return _packed(self.samples, unit_list)


LogProbs = Callable[[Packed], tuple[Tensor, Tensor | None]]
"""Log-prob and, if it is asked for, entropy of each response token of a micro-batch."""
Values = Callable[[Packed], Tensor]
"""Value of each response token of a micro-batch."""


@torch.no_grad()
def score(
    roll_outs: Sequence[Rollout], policy: LogProbs | None, reference: LogProbs, critic: Values, budget: int
) -> list[Scores]:
    """What the three networks say of this rank's roll-outs; their programs may still be judged meanwhile.

    Args:
        roll_outs: with responses that are not empty.
        policy: log-probs and entropy under the policy that sampled them; `None`: those of the sampling count.
        reference: log-probs under the frozen SFT policy.
        critic: values under the critic before this step's update.
        budget: tokens of one forward pass.
    """
    lengths = [len(one.response_ids) for one in roll_outs]
    together, tokens = units([one.prompt_ids for one in roll_outs], lengths, budget)
    # With ZeRO stage 3 a forward pass needs all ranks, so all make the same number; an empty one takes one token.
    groups = micro_batches(tokens, budget, ranks.largest(len(micro_batches(tokens, budget))))
    scored: dict[int, Scores] = {}
    for group in groups:
        chosen = [together[place] for place in group]
        packed = _packed(roll_outs, chosen) if chosen else pack([([0], [[0]])], device())
        ranks.busy()
        (reference_log_probs, _), values = reference(packed), critic(packed)
        own = policy(packed) if policy is not None else None
        if chosen:
            rows = [index for unit in chosen for index in unit]
            sizes = [len(roll_outs[index].response_ids) for index in rows]
            if own is None:
                log_probs = torch.cat([torch.tensor(roll_outs[index].log_probs) for index in rows])
                own = log_probs, -log_probs
            log_probs, entropy = own
            assert entropy is not None
            whole = (log_probs, entropy, reference_log_probs, values)
            parts = [torch.split(numbers.cpu(), sizes) for numbers in whole]
            # Copies: a view sent to other ranks takes the numbers of the whole micro-batch along.
            own_parts = ([part.clone() for part in numbers] for numbers in parts)
            scored |= {index: Scores(*numbers) for index, *numbers in zip(rows, *own_parts, strict=True)}
    return [scored[index] for index in range(len(roll_outs))]


def assemble(
    samples: Sequence[Sample],
    rewards: Sequence[float],
    scores: Sequence[Scores],
    table: Sequence[bytes],
    config: PpoConfig,
    *,
    beta: float,
) -> Experience:
    """Derives masks, token rewards, advantages and returns.

    Args:
        samples: judged roll-outs of all ranks; none with an empty response.
        rewards: of each program.
        scores: of each sample.
        table: bytes of each token id.
        config: settings.
        beta: weight of the KL penalty now.
    """
    response_mask = _padded([torch.ones(sample.tokens, dtype=torch.bool) for sample in samples])
    policy_mask = _padded([torch.tensor(_policy_mask(sample, table, config)) for sample in samples])
    log_probs = _padded([one.log_probs for one in scores])
    reference_log_probs = _padded([one.reference_log_probs for one in scores])
    values = _padded([one.values for one in scores])
    token_level = token_rewards(
        torch.tensor(rewards, device=device()), log_probs - reference_log_probs, response_mask, beta=beta
    )
    advantages, returns = gae(token_level, values, response_mask, gamma=config.gamma, lam=config.gae_lambda)
    return Experience(
        samples=samples,
        response_mask=response_mask,
        policy_mask=policy_mask,
        behaviour_log_probs=_padded([torch.tensor(sample.log_probs) for sample in samples]),
        log_probs=log_probs,
        reference_log_probs=reference_log_probs,
        values=values,
        entropy=_padded([one.entropy for one in scores]),
        rewards=token_level,
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


def _packed(samples: Sequence[Sample] | Sequence[Rollout], unit_list: Sequence[Sequence[int]]) -> Packed:
    return pack(
        [(samples[unit[0]].prompt_ids, [samples[index].response_ids for index in unit]) for unit in unit_list],
        device(),
    )


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device())
