"""Our side: PPO steps by the project's own functions.

What is compared is training, so judging is left out: every response gets a fixed reward, and all of its tokens count
as executed.

    python -m benchmarks.ppo_step.ours SETTING MODEL_FOLDER CHANGES_AS_JSON
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from benchmarks.ppo_step import settings
from benchmarks.ppo_step.peak import matrix_rates
from benchmarks.ppo_step.settings import SETTINGS, Setting
from benchmarks.ppo_step.worker import Pipe, Step, memory
from stepcoder.model import generation
from stepcoder.model.critic import load_critic
from stepcoder.model.generation import Request, TransformersGenerator
from stepcoder.model.load import load_policy, load_tokenizer
from stepcoder.model.policy import Policy
from stepcoder.model.seeds import derived_seed
from stepcoder.model.settings import Sampling
from stepcoder.platform import engine
from stepcoder.platform.entry import spare_the_collector
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.experience import Experience, assemble, score
from stepcoder.ppo.update import update
from stepcoder.rollouts import Rollout, Sample
from stepcoder.sandbox import Verdict


def config_of(setting: Setting) -> PpoConfig:
    """The project's settings for a comparison."""
    return PpoConfig(
        **dict.fromkeys(("dataset", "out", "policy", "reference", "out_critic", "out_curriculum"), "-"),  # type: ignore[arg-type]
        max_new_tokens=setting.response_tokens,
        temperature=settings.TEMPERATURE,
        learning_rate=settings.LEARNING_RATE,
        critic_learning_rate=settings.LEARNING_RATE,
        ppo_epochs=setting.epochs,
        minibatches=setting.minibatches,
        kl_beta=settings.KL_BETA,
        clip_low=settings.CLIP,
        clip_high=settings.CLIP,
        value_clip=settings.VALUE_CLIP,
        value_loss_weight=settings.VALUE_LOSS_WEIGHT,
        gamma=settings.GAMMA,
        gae_lambda=settings.LAMBDA,
        use_execution_mask=False,
        precision="fp32",
        zero_stage=0,
        gradient_checkpointing=False,
        micro_batch_tokens=setting.micro_batch_tokens,
    )


class OurStep:
    """The networks and engines, and one step after the other."""

    def __init__(self, setting: Setting, folder: str) -> None:
        engine.start()
        self.language_model = load_policy(folder)
        self.tokenizer = load_tokenizer(folder)
        self.policy, self.reference = Policy(self.language_model), Policy(load_policy(folder))
        self.critic = load_critic(folder)
        config = config_of(setting)
        self.engines = [
            engine.Engine(
                network,
                learning_rate=settings.LEARNING_RATE,
                schedule=lambda _: 1.0,
                epsilon=epsilon,
                zero_stage=config.zero_stage,
                precision=config.precision,
                max_gradient_norm=config.max_gradient_norm,
            )
            for network, epsilon in ((self.policy, 1e-6), (self.critic, 1e-8))
        ]
        self.steps, self.idle = 0, memory("VmRSS")

    def step(self, setting: Setting) -> dict[str, Any]:
        """One step's figures."""
        config, lengths = config_of(setting), setting.lengths(self.steps)
        self.steps += 1
        clock = Step(self.idle)
        samples = self.rollouts(setting, config, lengths)
        clock.ends("rollouts")
        experience = self.scoring(samples, config)
        clock.ends("scoring")
        self.updating(experience, config)
        clock.ends("update")
        if [sample.tokens for sample in samples] != lengths:
            raise SystemExit("the responses have other lengths than they should")
        return clock.answer(sum(lengths) + setting.batch * setting.prompt_tokens)

    def rollouts(self, setting: Setting, config: PpoConfig, lengths: list[int]) -> list[Sample]:
        """Sampled responses, each as long as it should be."""
        generator = TransformersGenerator(self.language_model, self.tokenizer, setting.sampling_batch)
        prompts = setting.prompt_ids()
        requests = [Request(ids, setting.samples, derived_seed(self.steps, index)) for index, ids in enumerate(prompts)]
        of = {request.seed: index for index, request in enumerate(requests)}
        with ending(setting, lambda seed, number: lengths[of[seed] * setting.samples + number]):
            found = list(generator.generate(requests, config.sampling))
        return [
            Sample(
                problem_id=str(response.request),
                index=response.number,
                opened="",
                completion="",
                program="",
                verdict=cast(Verdict, None),
                prompt_ids=tuple(prompts[response.request]),
                response_ids=tuple(response.ids),
                log_probs=tuple(response.log_probs),
                truncated=not setting.ragged,
            )
            for response in sorted(found, key=lambda one: (one.request, one.number))
        ]

    def scoring(self, samples: list[Sample], config: PpoConfig) -> Experience:
        """The step's data with rewards that need no judge."""
        _, critic = self.engines
        scores = score(
            cast(list[Rollout], samples),
            None,  # like TRL: log-probs as the sampling had them
            lambda packed: self.reference(packed, config.temperature),
            critic,
            config.micro_batch_tokens,
        )
        rewards = [float(index % 2) for index in range(len(samples))]
        return assemble(samples, rewards, scores, [], config, beta=config.kl_beta)

    def updating(self, experience: Experience, config: PpoConfig) -> None:
        """The update of policy and critic."""
        policy, critic = self.engines
        update(experience, policy, critic, config, seed=self.steps)

    def profile(self, setting: Setting) -> dict[str, Any]:
        """The update's operators by the CPU time of their own."""
        from torch.profiler import ProfilerActivity, profile

        config = config_of(setting)
        experience = self.scoring(self.rollouts(setting, config, setting.lengths(self.steps)), config)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            self.updating(experience, config)
        events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        return {
            "update_cpu_seconds": total / 1e6,
            "operators": [
                {"name": e.key, "share": e.self_cpu_time_total / total, "calls": e.count} for e in events[:20]
            ],
        }


@contextmanager
def ending(setting: Setting, length_of: Callable[[int, int], int]) -> Iterator[None]:
    """Inside, each ragged response ends where it was decided beforehand: its stream of random numbers says when.

    Args:
        setting: the comparison.
        length_of: tokens of a response by its request's seed and its number.
    """
    if not setting.ragged:
        yield
        return
    stream, draw = generation._stream, generation.draw

    def stream_(seed: int, number: int, length: int) -> Tensor:
        numbers = stream(seed, number, length)
        numbers[length_of(seed, number) - 1 :] = 2.0
        return numbers

    def draw_(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        logits[:, [setting.end, setting.padding]] = -torch.inf
        ids, log_probs = draw(logits, uniform.clamp(max=0.5), sampling)
        return torch.where(uniform > 1, setting.end, ids), torch.where(uniform > 1, 0.0, log_probs)

    with mock.patch.multiple(generation, _stream=stream_, draw=draw_):
        yield


def main() -> None:
    """Serves the parent's orders."""
    pipe = Pipe()
    torch.set_num_threads(1)
    spare_the_collector()  # as every step does
    setting = dataclasses.replace(SETTINGS[sys.argv[1]], **json.loads(sys.argv[3]))
    ours = OurStep(setting, sys.argv[2])
    pipe.send({"ready": True, "torch": torch.__version__, "transformers": __import__("transformers").__version__})
    while order := pipe.receive():
        shape = dataclasses.replace(setting, **order.get("shape", {}))
        if order["do"] == "step":
            pipe.send(ours.step(shape))
        elif order["do"] == "profile":
            pipe.send(ours.profile(shape))
        else:
            pipe.send(matrix_rates(shape))
    os._exit(0)  # nothing to save, and tearing the process group down takes a while


if __name__ == "__main__":
    main()
