"""The PPO mathematics against hand computation and plain-Python formulas."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder.ppo import objective
from stepcoder.ppo.moments import Moments

NAN = math.nan


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The sum form: A_t = sum_l (gamma lam)^l delta_{t+l}."""
    following = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, v, n in zip(rewards, values, following, strict=True)]
    return [
        sum((gamma * lam) ** step * deltas[t + step] for step in range(len(deltas) - t)) for t in range(len(deltas))
    ]


def test_token_rewards_by_hand() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    log_ratio = torch.tensor([[0.1, -0.2, NAN], [0.0, 0.5, 1.0]])
    rewards = objective.token_rewards(torch.tensor([1.0, -0.3]), log_ratio, mask, beta=0.05)
    expected = torch.tensor([[-0.005, 0.01 + 1.0, 0.0], [0.0, -0.025, -0.05 - 0.3]])
    torch.testing.assert_close(rewards, expected)


def test_gae_by_hand() -> None:
    # gamma 1, lambda 0.5: deltas 0.5, -0.5, 1.5 from the end: A_2 = 1.5, A_1 = -0.5 + 0.75, A_0 = 0.5 + 0.125.
    rewards = torch.tensor([[0.0, 0.0, 2.0]])
    values = torch.tensor([[0.5, 1.0, 0.5]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = objective.gae(rewards, values, mask, gamma=1.0, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.625, 0.25, 1.5]]))
    torch.testing.assert_close(returns, torch.tensor([[1.125, 1.25, 2.0]]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_gae_is_the_sum_form_whatever_the_padding_holds(
    length: int, padding: int, gamma: float, lam: float, seed: int
) -> None:
    rng = random.Random(seed)
    rewards, values = ([rng.gauss(0, 1) for _ in range(length)] for _ in range(2))
    garbage = [rng.choice([NAN, math.inf, 1e30]) for _ in range(padding)]
    mask = torch.tensor([[True] * length + [False] * padding])
    advantages, returns = objective.gae(
        torch.tensor([rewards + garbage], dtype=torch.float64),
        torch.tensor([values + garbage], dtype=torch.float64),
        mask,
        gamma=gamma,
        lam=lam,
    )
    expected = slow_gae(rewards, values, gamma, lam)
    assert advantages[0].tolist() == pytest.approx(expected + [0.0] * padding)
    assert returns[0].tolist() == pytest.approx(
        [a + v for a, v in zip(expected, values, strict=True)] + [0.0] * padding
    )


def test_whitening_gives_mean_0_and_variance_1_over_valid_tokens_alone() -> None:
    values = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    # Mean 3, variance 8/3.
    scale = math.sqrt(8 / 3)
    expected = torch.tensor([[-2 / scale, 0.0, 0.0], [2 / scale, 0.0, 0.0]])
    torch.testing.assert_close(objective.whiten(values, mask), expected)


def test_whitening_one_valid_token_or_none_divides_by_nothing() -> None:
    one = objective.whiten(torch.tensor([[2.0, NAN]]), torch.tensor([[True, False]]))
    none = objective.whiten(torch.tensor([[NAN]]), torch.tensor([[False]]))
    assert one.tolist() == [[0.0, 0.0]]
    assert none.tolist() == [[0.0]]


def test_the_policy_loss_by_hand() -> None:
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 1.5, 0.5, 1.0]))
    advantages = torch.tensor([1.0, -1.0, 1.0, 5.0])
    mask = torch.tensor([True, True, True, False])
    # -min(1.5, 1.3), -min(-1.5, -1.3), -min(0.5, 0.8); the last token is masked.
    loss, clipped = objective.policy_loss(new, old, advantages, mask, clip_low=0.2, clip_high=0.3, denominator=3)
    assert loss.item() == pytest.approx((-1.3 + 1.5 - 0.5) / 3)
    assert clipped.item() == 3


def test_masked_and_clipped_tokens_give_no_gradient() -> None:
    new = torch.tensor([0.5, 0.1, -3.0], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, 1.0])
    mask = torch.tensor([True, True, False])
    loss, _ = objective.policy_loss(new, torch.zeros(3), advantages, mask, clip_low=0.2, clip_high=0.2, denominator=2)
    loss.backward()
    # Token 0 is beyond the upper clip; token 1 has d(-e^x)/dx / 2; token 2 is masked.
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0.0, -math.exp(0.1) / 2, 0.0])


def test_an_empty_mask_gives_zero_loss_and_a_backward_pass() -> None:
    new = torch.tensor([0.5, 0.1], requires_grad=True)
    mask = torch.zeros(2, dtype=torch.bool)
    loss, _ = objective.policy_loss(
        new, torch.zeros(2), torch.ones(2), mask, clip_low=0.2, clip_high=0.2, denominator=1
    )
    loss.backward()
    assert loss.item() == 0.0
    assert new.grad is not None
    assert new.grad.tolist() == [0.0, 0.0]


def test_a_mad_log_ratio_stays_finite() -> None:
    loss, _ = objective.policy_loss(
        torch.tensor([500.0]),
        torch.zeros(1),
        -torch.ones(1),
        torch.tensor([True]),
        clip_low=0.2,
        clip_high=0.2,
        denominator=1,
    )
    assert math.isfinite(loss.item())


def test_the_value_loss_by_hand() -> None:
    values = torch.tensor([1.0, 0.0, 9.0])
    old = torch.tensor([0.0, 0.0, 0.0])
    returns = torch.tensor([1.0, 2.0, 0.0])
    mask = torch.tensor([True, True, False])
    # Token 0: unclipped 0, clipped value 0.2 gives 0.64; the larger counts. Token 1: 4 both ways.
    loss = objective.value_loss(values, old, returns, mask, clip=0.2, denominator=2)
    assert loss.item() == pytest.approx(0.5 * (0.64 + 4.0) / 2)


def test_kl_estimates_by_hand() -> None:
    estimates = objective.kl_estimates(torch.tensor([0.2, -0.1]))
    assert estimates["kl"] == pytest.approx(0.05)
    assert estimates["kl_k2"] == pytest.approx((0.02 + 0.005) / 2)
    assert estimates["kl_k3"] == pytest.approx((math.exp(-0.2) - 1 + 0.2 + math.exp(0.1) - 1 - 0.1) / 2)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert objective.explained_variance(returns, returns) == pytest.approx(1.0)
    assert objective.explained_variance(torch.zeros(4), returns) == pytest.approx(0.0)
    assert objective.explained_variance(torch.tensor([1.0]), torch.tensor([1.0])) == 0.0


def test_the_adaptive_kl_weight_moves_towards_its_target_by_bounded_steps() -> None:
    assert objective.adapted_beta(0.1, 0.2, target=0.1, samples=100, horizon=1000) == pytest.approx(0.1 * 1.02)
    assert objective.adapted_beta(0.1, 0.09, target=0.1, samples=100, horizon=1000) == pytest.approx(0.1 * 0.99)
    assert objective.adapted_beta(0.1, 0.0, target=0.1, samples=100, horizon=1000) == pytest.approx(0.1 * 0.98)


def test_the_adaptive_kl_weight_is_never_negative_however_many_samples_a_step_has() -> None:
    # 1 - 0.2 * samples / horizon is 0 at five horizons and negative beyond.
    for samples, expected in ((4999, 0.1 * 0.0002), (5000, 0.0), (5001, 0.0), (100_000, 0.0)):
        found = objective.adapted_beta(0.1, 0.0, target=0.1, samples=samples, horizon=1000)
        assert found == pytest.approx(expected, abs=1e-12)
        assert found >= 0
    assert objective.adapted_beta(0.1, 1.0, target=0.1, samples=10_000, horizon=1000) == pytest.approx(0.1 * 3)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(0, 20))
def test_running_moments_are_those_of_all_values_at_once(values: list[float], cut: int) -> None:
    parts = [part for part in (values[:cut], values[cut:]) if part]
    moments = Moments()
    for part in parts:
        moments = moments.updated(part)
    mean = sum(values) / len(values)
    assert moments.mean == pytest.approx(mean, abs=1e-12)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    if spread > 2e-6:
        assert moments.deviation == pytest.approx(spread, abs=1e-7)
    if len(set(values)) == 1:
        assert moments.deviation == 1.0


@pytest.mark.parametrize("value", [-1.0, -0.6, -0.3, 0.0, 1.0])
@pytest.mark.parametrize("count", [1, 12, 128, 1024])
def test_equal_rewards_stay_what_they_are_whatever_rounding_leaves(value: float, count: int) -> None:
    moments = Moments()
    for _ in range(3):
        moments = moments.updated([value] * count)
        assert moments.deviation == 1.0
