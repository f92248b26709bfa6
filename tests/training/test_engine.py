"""The engine's steps, checkpoints and generation, on one rank and on two, in every ZeRO stage.

Each number of ranks does all cases in one go (`engine_steps.all_cases`), because starting ranks is what takes time.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepcoder.errors import StepCoderError
from stepcoder.plan import PlanConfig
from stepcoder.platform import engine
from stepcoder.platform.launch import launch
from tests.training import engine_steps as steps

STAGES = pytest.mark.parametrize("stage", [0, 1, 2, 3])
RANKS = pytest.mark.parametrize("count", [1, 2])
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16"])

pytestmark = pytest.mark.slow

Found = dict[int, dict[Any, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Results by the number of ranks. One rank writes checkpoints that two load, and the other way round."""
    out = tmp_path_factory.mktemp("engine")
    config = steps.Config(out=str(out))
    steps.all_cases(config)
    launch("tests.training.engine_steps:Config:all_cases", config, processes=2)
    results = {count: torch.load(out / f"found-{count}.pt", weights_only=False) for count in (1, 2)}
    for stage, precision in itertools.product(range(4), ("fp32", "bf16")):
        results[1]["resumed", stage, precision, 2] = steps.resumed(out / "2", stage, precision)
    return results


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance / 10, msg=name)


def expected_curve(count: int, taken: int) -> dict[str, Tensor]:
    """The same steps by plain torch, on the whole batch at once."""
    network = steps.curved()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, engine.warm_up_then_linear(2, 12))
    for _ in range(taken):
        (network(steps.INPUTS) ** 2).mean().backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    weights = {f"{name}.weight": weight.detach() for name, weight in network.named_parameters()}
    moments = {
        f"{name}.{key}": optimiser.state[weight][key]
        for name, weight in network.named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    return weights | moments


@RANKS
@STAGES
def test_the_gradient_is_the_sum_over_micro_batches_and_ranks_however_they_are_split(
    found: Found, count: int, stage: int
) -> None:
    expected = steps.WEIGHTS @ steps.INTEGERS / 8  # Derived in `engine_steps`.
    for split in steps.SPLITS[count]:
        norm, gradient = found[count]["linear", stage, 1e9, tuple(split)]
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)
        assert norm == pytest.approx(expected.norm().item(), rel=1e-6)


@RANKS
@STAGES
def test_a_gradient_over_the_limit_reaches_the_optimiser_with_the_limits_norm(
    found: Found, count: int, stage: int
) -> None:
    expected = steps.WEIGHTS @ steps.INTEGERS / 8
    for split in steps.SPLITS[count]:
        norm, gradient = found[count]["linear", stage, 0.1, tuple(split)]
        assert norm == pytest.approx(expected.norm().item(), rel=1e-6)  # Told as it was before.
        torch.testing.assert_close(gradient, expected * 0.1 / expected.norm(), rtol=1e-5, atol=0)


@RANKS
@STAGES
def test_steps_move_weights_and_moments_as_plain_torch_does_on_the_whole_batch(
    found: Found, count: int, stage: int
) -> None:
    state, rate = found[count]["curve", stage, "fp32"]
    assert_same(state, expected_curve(count, 6), 1e-5)
    assert rate == pytest.approx(1e-2 * (12 - 6) / 10)


@RANKS
@STAGES
@PRECISIONS
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all_and_changes_nothing(
    found: Found, count: int, stage: int, precision: str
) -> None:
    result = found[count]["skip", stage, precision]
    assert result["first"].skipped
    assert not math.isfinite(result["first"].norm)
    assert result["kept"]  # Weights and both moments, bit by bit.
    assert result["rate_kept"]
    assert not result["second"].skipped
    assert math.isfinite(result["second"].norm)


@RANKS
@STAGES
@pytest.mark.parametrize("offload", [False, True])
def test_each_rank_may_generate_as_often_as_it_likes_between_two_steps(
    found: Found, count: int, stage: int, offload: bool
) -> None:
    result = found[count]["generated", stage, offload]
    assert result["same"]
    assert result["shapes"] == [(5, 5), (5,), (5,), (1, 5), (1,)]
    assert_same(result["after"], expected_curve(count, 3), 1e-5)


@STAGES
@PRECISIONS
@pytest.mark.parametrize("offload", [False, True])
def test_a_plan_counts_with_the_stage_that_deepspeed_runs(stage: int, precision: Any, offload: bool) -> None:
    engine.start()
    running = steps.made(steps.linear(), stage, precision, offload=offload)
    planned = PlanConfig.model_validate({"model": "", "zero_stage": stage, "precision": precision, "offload": offload})
    assert planned.stage == running.engine.zero_optimization_stage()


@RANKS
@STAGES
@PRECISIONS
def test_training_resumed_with_another_number_of_ranks_goes_on_as_if_it_had_not_changed(
    found: Found, count: int, stage: int, precision: str
) -> None:
    # Rounding differs with the order of summation; bf16 rounds gradients to 8 bits.
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    state, rate, from_nothing = found[count]["resumed", stage, precision, 3 - count]
    whole, whole_rate = found[3 - count]["curve", stage, precision]
    assert_same(state, whole, tolerance)
    assert rate == whole_rate
    assert_same(from_nothing, whole, tolerance)


@RANKS
@STAGES
@PRECISIONS
def test_training_resumed_with_the_same_number_of_ranks_goes_on_bit_by_bit(
    found: Found, count: int, stage: int, precision: str
) -> None:
    state, rate, from_nothing = found[count]["resumed", stage, precision, count]
    whole, whole_rate = found[count]["curve", stage, precision]
    assert rate == whole_rate
    for name in whole:
        assert torch.equal(state[name], whole[name]), name
        assert torch.equal(from_nothing[name], whole[name]), name


def test_training_that_skips_step_after_step_has_diverged() -> None:
    running = steps.made(steps.curved(), 0)
    losses = steps.curved_losses(running, [8], math.nan)
    for _ in range(engine.MOST_SKIPPED - 1):
        assert running.step(losses).skipped
    assert not running.step(steps.curved_losses(running, [8])).skipped
    for _ in range(engine.MOST_SKIPPED - 1):
        assert running.step(losses).skipped
    with pytest.raises(StepCoderError, match=r"diverged.*20 optimiser steps in a row; lower the learning rate"):
        running.step(losses)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_checkpoint_without_the_optimisers_state_is_refused(stage: int, tmp_path: Path) -> None:
    running = steps.made(steps.curved(), stage)
    running.save(tmp_path, "policy")
    for file in (tmp_path / "policy").glob("*optim_states.pt"):
        file.unlink()
    with pytest.raises(StepCoderError, match="checkpoint"):
        running.load(tmp_path, "policy")


def test_weights_without_zero_are_those_of_the_network_itself() -> None:
    network: nn.Module = steps.curved()
    running = steps.made(network, 0)
    with running.generating(), engine.whole(network):
        assert network(steps.INPUTS).shape == (8, 1)
