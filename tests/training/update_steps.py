"""What `test_update` lets one rank and two ranks do alike: one `update` on made-up experience, in several shapes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepcoder.model.critic import Critic
from stepcoder.model.policy import Policy
from stepcoder.platform import engine, ranks
from stepcoder.ppo import PpoConfig
from stepcoder.ppo.experience import Experience, Scores, assemble
from stepcoder.ppo.update import update
from stepcoder.rollouts import Sample, in_order
from stepcoder.sandbox import Outcome, Verdict
from tests.training.architectures import SIZE, made
from tests.training.rank_steps import Config

__all__ = ["Config"]

SETTINGS: dict[str, Any] = {
    "dataset": "", "policy": "", "reference": "", "out": "", "out_critic": "", "out_curriculum": "",
    "minibatches": 1, "clip_low": 0.1, "clip_high": 0.1, "value_clip": 0.1,
}  # fmt: skip

SHAPES: dict[str, tuple[list[int], str, int]] = {
    "uneven": ([9, 2, 30, 5, 17, 3, 3, 12], "some", 1),
    "one long": ([40, 2, 2, 2, 2], "some", 1),
    "a rank without a sample": ([7], "some", 1),
    "nothing in the policy's mask": ([4, 9, 3], "none", 1),
    "all masked but one": ([6, 8, 5, 7], "one", 1),
    "shared": ([9, 2, 30, 5, 17, 3, 3, 12, 1, 1, 4, 4], "some", 4),
    "one prompt for all": ([5, 9, 3, 1, 7, 7, 7], "some", 7),
    "shared with a masked one": ([6, 8, 5, 7], "one", 2),
}
"""Lengths of the responses, how much of them the policy's mask keeps, and samples of each prompt."""


def config(**more: Any) -> PpoConfig:
    return PpoConfig(**{**SETTINGS, **more})


def experience(
    lengths: Sequence[int], kept: str, samples_a_prompt: int = 1, seed: int = 0, *, garbage: bool = True
) -> Experience:
    """Old log-probs near those of nobody: ratios on both sides of the clip; padding holds NaN."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    samples = []
    prompt: list[int] = []
    for index, length in enumerate(lengths):
        if index % samples_a_prompt == 0:
            prompt = [rng.randrange(SIZE) for _ in range(rng.randint(1, 6))]
        response = [rng.randrange(SIZE) for _ in range(length)]
        verdict = Verdict("p", Outcome.PASS, ())
        samples.append(Sample("p", index, "", "", "", verdict, tuple(prompt), tuple(response), (), truncated=False))
    shape = (len(lengths), max(lengths))
    valid = torch.arange(shape[1]).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    policy_mask = valid & (torch.rand(shape, generator=generator) < 0.6)
    if kept == "none":
        policy_mask[:] = False
    if kept == "one":
        policy_mask[1:] = False
        policy_mask[0, 0] = True

    def numbers(scale: float, shift: float = 0.0) -> Tensor:
        drawn = torch.randn(shape, generator=generator) * scale + shift
        return torch.where(valid, drawn, torch.nan) if garbage else drawn

    log_probs = numbers(1.0, -4.0)
    return Experience(
        samples, valid, policy_mask, log_probs, log_probs, log_probs, numbers(0.3), numbers(0.1), numbers(1.0),
        numbers(1.0), numbers(1.0),
    )  # fmt: skip


def networks(dtype: torch.dtype = torch.float32) -> tuple[Policy, Critic]:
    policy = Policy(made("llama").to(dtype), head_chunk_mib=1e-3)
    critic = Critic(Policy(made("llama")).language_model.base_model, 16)
    nn.init.normal_(critic.value_head.weight, generator=torch.Generator().manual_seed(1))
    return policy, critic.to(dtype)


class Summed:
    """An engine's place taken by plain torch: gradients pile up in the weights' own format, and no step is made."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.passes = network, 0

    def __call__(self, *args: Any) -> Any:
        return self.network(*args)

    def step(self, losses: Sequence[Callable[[], Tensor]]) -> engine.Step:
        for loss in losses:
            loss().backward()
            self.passes += 1
        return engine.Step(0.0, False)

    def gradient(self) -> dict[str, Tensor]:
        found = {}
        for name, weight in self.network.named_parameters():
            found[name] = torch.zeros_like(weight) if weight.grad is None else weight.grad
        return found


def engines(stage: int) -> list[engine.Engine]:
    """Real engines that move each weight by its gradient's sign and size: their first moment is the gradient."""
    return [
        engine.Engine(
            network, learning_rate=1e-3, schedule=lambda _: 1.0, epsilon=1e-8, zero_stage=stage, precision="fp32",
            max_gradient_norm=1e9,
        )
        for network in networks()
    ]  # fmt: skip


def moments(running: engine.Engine) -> dict[str, Tensor]:
    from tests.training.engine_steps import state

    found = {name: value * 10 for name, value in state(running).items()}
    return {name.removesuffix(".exp_avg"): value for name, value in found.items() if name.endswith(".exp_avg")}


CASES = [
    *((name, 10, 0) for name in SHAPES), ("uneven", 10_000, 0), ("uneven", 10, 2), ("uneven", 10, 3),
    ("a rank without a sample", 10, 3), ("shared", 40, 0), ("shared", 40, 2), ("shared", 40, 3), ("shared", 10_000, 0),
]  # fmt: skip
"""Shape, token budget of a micro-batch, ZeRO stage."""


def assembled() -> Experience:
    """Each rank has scores for what it sampled, every second prompt; then all assemble what all have."""
    data = experience(*SHAPES["shared"])
    n = SHAPES["shared"][2]
    mine = []
    for index, sample in enumerate(data.samples):
        if index // n % ranks.count() == ranks.rank():
            generator = torch.Generator().manual_seed(index)
            # What rank 0 sampled alone has another mean than all of it.
            numbers = [torch.randn(sample.tokens, generator=generator) + index for _ in range(4)]
            mine.append((sample, Scores(*numbers), float(index % 3)))
    samples, scores, rewards = zip(*in_order(mine, n), strict=True)
    told = [dataclasses.replace(sample, log_probs=(0.0,) * sample.tokens) for sample in samples]
    return assemble(told, rewards, scores, [], config(use_execution_mask=False), beta=0.1)


def all_cases(settings: Config) -> None:
    """Gradients and metrics of every case, as this number of ranks finds them; one rank does the first alone."""
    engine.start()
    found: dict[Any, Any] = {}
    for name, budget, stage in CASES if ranks.count() > 1 else CASES[:1]:
        policy, critic = engines(stage)
        metrics = update(experience(*SHAPES[name]), policy, critic, config(micro_batch_tokens=budget), seed=1)
        found[name, budget, stage] = metrics, {**moments(policy), **moments(critic)}
    torch.save(assembled(), Path(settings.out) / f"assembled-{ranks.count()}-{ranks.rank()}.pt")
    if ranks.is_main():
        torch.save(found, Path(settings.out) / f"found-{ranks.count()}.pt")
