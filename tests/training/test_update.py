"""An optimiser step's gradient is that of the whole step, however its samples are split.

The loss is a sum over the step's tokens divided by a number that is fixed before the split, the tokens `N` of the whole
step on all ranks: `L = (1 / N) sum_i l_i`. A group `G` gives `(1 / N) sum_{i in G} l_i`, and over any partition these
add up to `L`, so the gradients add up too. With a mean over each group instead, a token would count
`1 / (groups * |G|)`, more the fewer tokens its group has.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepcoder.model.seeds import permutation
from stepcoder.platform import engine
from stepcoder.platform.launch import launch
from stepcoder.ppo import PpoConfig
from stepcoder.ppo.experience import Experience
from stepcoder.ppo.update import update
from tests.training import update_steps as steps

POLICY = {name for name, _ in steps.networks()[0].named_parameters()}


def split_up(
    data: Experience, config: PpoConfig, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, float], dict[str, Tensor], int]:
    """Metrics, the gradients of both networks by plain torch, and the number of the policy's passes."""
    policy, critic = (steps.Summed(network) for network in steps.networks(dtype))
    metrics = update(data, policy, critic, config, seed=1)  # type: ignore[arg-type]
    return metrics, {**policy.gradient(), **critic.gradient()}, policy.passes


def by_sample(data: Experience, config: PpoConfig) -> dict[str, Tensor]:
    """The same gradients from the formula: all samples one by one, no padding, one sum, one division."""
    policy, critic = steps.networks(torch.float64)
    to_policy, to_critic = [], []
    for index, sample in enumerate(data.samples):
        prompt, response = list(sample.prompt_ids), list(sample.response_ids)
        ids = torch.tensor([prompt + response])
        rows = slice(len(prompt) - 1, -1)
        logits = policy.language_model(input_ids=ids, use_cache=False).logits[0, rows].double() / config.temperature
        new = logits.log_softmax(-1)[range(len(response)), response]
        length = len(response)
        mask = data.policy_mask[index, :length]
        ratio = (new - data.log_probs[index, :length]).exp()
        bounded = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        a = data.advantages[index, :length]
        to_policy.append(torch.minimum(ratio * a, bounded * a)[mask])
        values = critic.value_head(critic.backbone(input_ids=ids).last_hidden_state[0, rows])[:, 0]
        old, target = data.values[index, :length], data.returns[index, :length]
        near = torch.minimum(torch.maximum(values, old - config.value_clip), old + config.value_clip)
        to_critic.append(torch.maximum((values - target) ** 2, (near - target) ** 2) / 2)
    every = torch.cat(to_policy)
    if len(every):
        (-every.sum() / len(every)).backward()
    torch.cat(to_critic).mean().backward()
    return {**steps.Summed(policy).gradient(), **steps.Summed(critic).gradient()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each weight's gradient within a share of the largest entry."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        bound = tolerance * max(theirs[name].abs().max().item(), 1e-3)
        torch.testing.assert_close(ours[name].double(), theirs[name].double(), rtol=0, atol=bound, msg=name)


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=9),
    samples_a_prompt=st.integers(1, 9),
    budget=st.integers(1, 120),
    seed=st.integers(0, 999),
)
@example(lengths=[9, 2, 30, 5, 17, 3, 3, 12], samples_a_prompt=1, budget=1, seed=0)
@example(lengths=[9, 2, 30, 5, 17, 3, 3, 12], samples_a_prompt=8, budget=1, seed=0)
@example(lengths=[9, 2, 30, 5, 17, 3, 3, 12], samples_a_prompt=8, budget=25, seed=0)
@example(lengths=[4, 4, 4, 1, 1, 1, 1, 1, 1], samples_a_prompt=3, budget=15, seed=0)
def test_any_split_into_micro_batches_gives_the_gradient_of_the_formula(
    lengths: list[int], samples_a_prompt: int, budget: int, seed: int
) -> None:
    data = steps.experience(lengths, "some", samples_a_prompt, seed)
    config = steps.config(micro_batch_tokens=budget)
    _, split, passes = split_up(data, config)
    _, whole, _ = split_up(data, steps.config(micro_batch_tokens=10_000))
    expected = by_sample(data, config)
    assert_equal(split, whole, 1e-6)
    assert_equal(whole, expected, 1e-5)  # The LM head scores in float32, the formula in float64.
    if data.policy_mask.any() and budget == 1:
        assert passes == len(lengths)
    _, single, _ = split_up(data, config, torch.float32)
    _, together, _ = split_up(data, steps.config(micro_batch_tokens=10_000), torch.float32)
    assert_equal(single, together, 1e-5)


def test_padding_may_hold_anything() -> None:
    lengths = [9, 2, 30]
    config = steps.config(micro_batch_tokens=20)
    clean, dirty = (split_up(steps.experience(lengths, "some", 2, garbage=bad), config) for bad in (False, True))
    for name, gradient in dirty[1].items():
        assert torch.equal(gradient, clean[1][name]), name
    assert dirty[0] == clean[0]


def test_the_losses_that_are_told_are_those_of_the_step_and_not_of_its_last_group() -> None:
    data = steps.experience([9, 2, 30, 5], "some", 2)
    told = [split_up(data, steps.config(micro_batch_tokens=budget))[0] for budget in (8, 10_000)]
    assert told[0] == pytest.approx(told[1], rel=1e-5)
    assert 0 < told[0]["clip_fraction"] <= 1


def test_a_mini_batch_without_a_token_of_the_policy_takes_no_policy_step_and_gives_no_nan() -> None:
    metrics, gradient, passes = split_up(steps.experience([4, 9, 3], "none"), steps.config())
    assert passes == 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(gradient[name].isfinite().all() for name in gradient)
    assert gradient["value_head.weight"].abs().sum() > 0
    assert metrics["policy_loss"] == metrics["clip_fraction"] == 0


@pytest.mark.parametrize("samples_a_prompt", [1, 2])
def test_a_masked_sample_beside_others_changes_neither_loss_nor_gradient_of_the_policy(samples_a_prompt: int) -> None:
    data = steps.experience([6, 8], "one", samples_a_prompt)  # Of the second sample no token counts.
    alone = steps.experience([6, 8], "one", samples_a_prompt)
    object.__setattr__(alone, "samples", data.samples[:1])
    for budget in (1, 10_000):
        config = steps.config(micro_batch_tokens=budget)
        both, one = split_up(data, config)[1], split_up(alone, config)[1]
        assert_equal({n: both[n] for n in POLICY}, {n: one[n] for n in POLICY}, 1e-6)


def test_every_epoch_and_mini_batch_is_an_optimiser_step_and_each_sample_is_in_one_of_an_epoch() -> None:
    data = steps.experience([3, 4, 5, 6, 7], "some")
    policy, critic = (steps.Summed(network) for network in steps.networks())
    taken: list[int] = []
    once = critic.step
    critic.step = lambda losses: taken.append(len(losses)) or once(losses)  # type: ignore[assignment,func-returns-value]
    config = steps.config(minibatches=2, ppo_epochs=3, micro_batch_tokens=1)
    update(data, policy, critic, config, seed=1)  # type: ignore[arg-type]
    assert taken == [3, 2] * 3


@pytest.mark.parametrize(
    ("samples", "minibatches", "sizes"),
    [
        (9, 8, [2, 1, 1, 1, 1, 1, 1, 1]),
        (5, 4, [2, 1, 1, 1]),
        (11, 4, [3, 3, 3, 2]),
        (8, 4, [2, 2, 2, 2]),
        (3, 5, [1, 1, 1]),  # A mini-batch has a sample at least.
    ],
)
def test_a_pass_takes_as_many_optimiser_steps_as_are_set_over_samples_that_are_spread_evenly(
    samples: int, minibatches: int, sizes: list[int]
) -> None:
    data = steps.experience([2] * samples, "some")
    policy, critic = (steps.Summed(network) for network in steps.networks())
    taken: list[int] = []
    critic.step = lambda losses: taken.append(len(losses)) or engine.Step(0.0, False)  # type: ignore[method-assign,assignment,func-returns-value]
    config = steps.config(minibatches=minibatches, micro_batch_tokens=1)  # Each sample is a micro-batch.
    update(data, policy, critic, config, seed=1)  # type: ignore[arg-type]
    assert sorted(taken) == sorted(sizes)


def test_prompts_have_an_order_of_their_own_in_every_epoch_and_their_samples_stay_together() -> None:
    # Neighbours with one prompt are its samples; the fifth prompt has one alone.
    data = steps.experience([3, 4, 5, 6, 7, 8, 9, 10, 11], "some", 2)
    prompts = [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    policy, critic = (steps.Summed(network) for network in steps.networks())
    seen: list[list[int]] = []
    rows: list[int] = []
    once = Experience.packed

    def packed(self: Experience, unit_list: Any) -> Any:
        rows.extend(index for unit in unit_list for index in unit)
        return once(self, unit_list)

    def step(losses: Any) -> engine.Step:
        for loss in losses:
            loss()
        seen.append(list(rows))
        rows.clear()
        return engine.Step(0.0, False)

    critic.step = step  # type: ignore[method-assign]
    config = steps.config(minibatches=3, ppo_epochs=4, micro_batch_tokens=10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experience, "packed", packed)
        update(data, policy, critic, config, seed=7)  # type: ignore[arg-type]
    expected = []
    for epoch in range(4):
        order = [sample for turn in permutation(5, "mini-batches", 7, epoch) for sample in prompts[turn]]
        expected += [order[begin : begin + 3] for begin in (0, 3, 6)]
    assert [sorted(rows) for rows in seen] == [sorted(rows) for rows in expected]
    assert len({tuple(rows) for rows in expected}) > 3  # The epochs differ.


def test_samples_that_share_a_prompt_cost_its_tokens_once_and_what_does_not_fit_costs_them_again() -> None:
    data = steps.experience([3, 4, 5, 6], "some", 4)
    prompt = len(data.samples[0].prompt_ids)
    costs = []
    for budget in (10_000, prompt + 7, 1):
        policy, critic = (steps.Summed(network) for network in steps.networks())
        read: list[int] = []
        critic.network.register_forward_pre_hook(lambda _, args, read=read: read.append(len(args[0].input_ids)))
        update(data, policy, critic, steps.config(micro_batch_tokens=budget), seed=1)  # type: ignore[arg-type]
        costs.append(sorted(read))
    # 18 response tokens, of which the last of each response is not read.
    assert costs == [
        [prompt + 14],
        sorted([prompt + 5, prompt + 4, prompt + 5]),
        [prompt + n for n in (2, 3, 4, 5)],
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one rank and then two have left what they found."""
    out = tmp_path_factory.mktemp("update")
    config = steps.Config(out=str(out))
    steps.all_cases(config)
    launch("tests.training.update_steps:Config:all_cases", config, processes=2)
    return out


@pytest.fixture(scope="module")
def found(out: Path) -> dict[int, Any]:
    return {count: torch.load(out / f"found-{count}.pt", weights_only=False) for count in (1, 2)}


@pytest.mark.slow
def test_advantages_are_whitened_over_all_ranks_tokens_because_every_rank_holds_all(out: Path) -> None:
    one, *two = (torch.load(out / f"assembled-{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1"))
    lengths = steps.SHAPES["shared"][0]
    for found in two:
        assert [sample.tokens for sample in found.samples] == lengths
        for name in ("advantages", "returns", "rewards", "values", "response_mask"):
            assert torch.equal(getattr(found, name), getattr(one, name)), name
    raw, white = (numbers[one.response_mask].double().numpy() for numbers in (one.returns - one.values, one.advantages))
    np.testing.assert_allclose(white, (raw - raw.mean()) / raw.std(), atol=1e-5)
    assert abs(white.mean()) < 1e-5
    assert white.std() == pytest.approx(1, abs=1e-5)
    # The tokens of rank 0 alone, every second prompt, have another mean: whitened by themselves they would differ.
    mine = torch.arange(len(lengths)) // steps.SHAPES["shared"][2] % 2 == 0
    assert abs(one.advantages[mine][one.response_mask[mine]].mean()) > 0.05


@pytest.mark.slow
def norm_of(gradient: dict[str, torch.Tensor]) -> float:
    return float(sum(value.double().square().sum() for name, value in gradient.items() if name in POLICY) ** 0.5)


@pytest.mark.parametrize("case", steps.CASES, ids=str)
def test_engines_of_one_rank_and_of_two_give_the_gradient_and_the_losses_of_plain_torch(
    found: dict[int, Any], case: tuple[str, int, int]
) -> None:
    shape = steps.SHAPES[case[0]]
    expected, gradient, _ = split_up(steps.experience(*shape), steps.config(), torch.float32)
    by_formula = by_sample(steps.experience(*shape), steps.config())
    for told, ours in (found[count][case] for count in (1, 2) if case in found[count]):
        assert_equal(ours, gradient, 1e-5)
        assert_equal(ours, by_formula, 1e-4)
        for name in ("policy_loss", "value_loss", "clip_fraction", "ratio_deviation"):
            # Where the policy takes no step there is no ratio.
            assert (name in told) == (name in expected) == (name != "ratio_deviation" or norm_of(by_formula) > 0)
            assert name not in told or told[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-7), name
        assert told["skipped_updates"] == 0
        assert told["gradient_norm"] == pytest.approx(norm_of(by_formula), rel=1e-4)
