"""The mathematics of PPO, as pure functions on tensors (Schulman et al. 2016, 2017; Zheng et al. 2023).

Notation: `mask` is the response mask, 1 for sampled tokens (end of text included) and 0 for padding, which is on the
right. The execution mask is another one and enters only where it is named. Padding may hold anything, NaN included.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log-ratios are bounded to this, so that one mad token gives no infinity."""

Scores = Float[Tensor, "batch response"]
Mask = Bool[Tensor, "batch response"]


def token_rewards(
    scores: Float[Tensor, " batch"], log_ratio: Scores, mask: Mask, *, beta: float
) -> Float[Tensor, "batch response"]:
    """KL penalty a token and the score on the last response token (paper equation 5).

    `r_t = -beta * log(pi / pi_ref)_t`, plus the score at the last token, whether it was executed or not.

    Args:
        scores: reward of each program.
        log_ratio: `log pi - log pi_ref` of the sampled tokens, the k1 estimate of the KL divergence.
        mask: response mask.
        beta: weight of the penalty.
    """
    rewards = torch.where(mask, -beta * log_ratio, 0.0)
    last = mask.sum(1) - 1
    rows = torch.arange(len(scores), device=scores.device)[last >= 0]
    rewards[rows, last[rows]] += scores[rows]
    return rewards


def gae(
    rewards: Scores, values: Scores, mask: Mask, *, gamma: float, lam: float
) -> tuple[Float[Tensor, "batch response"], Float[Tensor, "batch response"]]:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16), and returns.

    `delta_t = r_t + gamma * V_{t+1} - V_t`, `A_t = delta_t + gamma * lam * A_{t+1}`, `R_t = A_t + V_t`; beyond the
    last token `V = A = 0`.

    Returns:
        Advantages and returns; 0 in the padding.
    """
    rewards = torch.where(mask, rewards, 0.0)
    values = torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    following_advantage = torch.zeros_like(values[:, 0])
    following_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        following_advantage = torch.where(mask[:, t], delta + gamma * lam * following_advantage, 0.0)
        following_value = values[:, t]
        advantages[:, t] = following_advantage
    return advantages, torch.where(mask, advantages + values, 0.0)


def whiten(values: Scores, mask: Mask) -> Float[Tensor, "batch response"]:
    """Shifts and scales to mean 0 and variance 1 over the valid tokens; 0 in the padding.

    Every rank holds the tokens of all ranks, so there is nothing to exchange.
    """
    kept = torch.where(mask, values, 0.0)
    count = mask.sum().clamp(min=1)
    centred = torch.where(mask, values - kept.sum() / count, 0.0)
    return centred * torch.rsqrt(centred.square().sum() / count + 1e-8)


def policy_loss(
    log_probs: Float[Tensor, " tokens"],
    old_log_probs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
    mask: Bool[Tensor, " tokens"],
    *,
    clip_low: float,
    clip_high: float,
    denominator: float,
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate (Schulman et al. 2017, equation 7) over the tokens of the policy-loss mask.

    `-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)`, summed and divided by the denominator.

    Args:
        log_probs: under the policy that is trained.
        old_log_probs: under the policy that sampled.
        advantages: whitened.
        mask: execution mask; other tokens give neither loss nor gradient.
        clip_low: see the formula.
        clip_high: see the formula.
        denominator: tokens of the whole optimiser step on all ranks.

    Returns:
        The loss, and the number of tokens whose ratio was clipped.
    """
    log_ratio = (log_probs - old_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    return torch.where(mask, losses, 0.0).sum() / denominator, ((ratio != clipped) & mask).sum()


def value_loss(
    values: Float[Tensor, " tokens"],
    old_values: Float[Tensor, " tokens"],
    returns: Float[Tensor, " tokens"],
    mask: Bool[Tensor, " tokens"],
    *,
    clip: float,
    denominator: float,
) -> Tensor:
    """Clipped value loss: `0.5 * max((V - R)^2, (V_clipped - R)^2)`, summed and divided by the denominator.

    `V_clipped = clip(V, V_old - clip, V_old + clip)`.
    """
    clipped = values.clamp(old_values - clip, old_values + clip)
    losses = 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
    return torch.where(mask, losses, 0.0).sum() / denominator


def kl_estimates(log_ratio: Float[Tensor, " tokens"]) -> dict[str, float]:
    """Mean KL divergence of policy from reference a token, three ways (Schulman 2020): k1, k2, k3.

    With `d = log pi - log pi_ref` of tokens sampled from `pi`: `d`, `d^2 / 2`, `exp(-d) - 1 + d`.
    """
    bounded = log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return {
        "kl": log_ratio.mean().item(),
        "kl_k2": (log_ratio.square() / 2).mean().item(),
        "kl_k3": (torch.expm1(-bounded) + bounded).mean().item(),
    }


def explained_variance(values: Float[Tensor, " tokens"], returns: Float[Tensor, " tokens"]) -> float:
    """`1 - Var(R - V) / Var(R)`; 0 when all returns are equal."""
    spread = returns.var(unbiased=False)
    return (1 - (returns - values).var(unbiased=False) / spread).item() if spread > 0 else 0.0


def adapted_beta(beta: float, kl: float, *, target: float, samples: int, horizon: int) -> float:
    """Proportional control of the KL weight (Ziegler et al. 2019, section 2.2).

    It is never negative, which would reward divergence. Five horizons of samples, which `PpoConfig` refuses, could set
    it to 0 for good.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return max(0.0, beta * (1 + error * samples / horizon))
