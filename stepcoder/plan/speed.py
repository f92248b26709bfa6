"""Seconds of a step by phase: a rank's bytes and operations, each over an assumed share of the device's peak.

No share has been measured on a GPU with this code. Judging programs is not counted: it depends on cores and tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stepcoder.plan.config import PlanConfig
from stepcoder.plan.devices import Device
from stepcoder.plan.memory import networks
from stepcoder.plan.shape import Shape


@dataclass(frozen=True)
class AssumedShares:
    """Assumptions, all in one place: shares of a peak that a phase reaches, and costs beside bytes and operations."""

    prefill: float = 0.5
    """Of the matrix peak."""
    scoring: float = 0.5
    """Of the matrix peak."""
    update: float = 0.4
    """Of the matrix peak."""
    decode: float = 0.6
    """Of the memory bandwidth."""
    link: float = 0.7
    """Of the bandwidth between ranks; nothing is hidden behind computation."""
    launch: float = 0.0006
    """Seconds a layer and token step that `transformers` spends on starting kernels; nothing on a processor."""
    host_bandwidth: float = 50.0
    """GB/s of host memory for one rank's AdamW under `offload`."""


ASSUMED = AssumedShares()
ADAM_BYTES = 28
"""Bytes that AdamW reads and writes a weight: gradient, master and two moments read, the last three written."""


@dataclass(frozen=True)
class Speed:
    """A step's tokens and seconds."""

    sequences: int
    """Roll-outs of PPO or examples of SFT a step, over all ranks."""
    tokens: int
    """Prompt and response tokens of all roll-outs or examples a step, over all ranks. Each counts with its whole
    prompt; scoring and update, where samples share prompts, see fewer."""
    response_tokens: int
    seconds: Mapping[str, float]
    """By phase."""

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())


def speed(shape: Shape, config: PlanConfig, device: Device, assumed: AssumedShares = ASSUMED) -> Speed:
    """Tokens and seconds of one step: of PPO with its roll-outs, of SFT one optimiser step."""
    ppo = config.phase == "ppo"
    sequences = config.problems_per_step * config.samples_per_problem if ppo else config.batch_size
    prompt = min(config.mean_prompt_tokens or config.max_prompt_tokens, config.max_prompt_tokens)
    response = min(config.mean_response_tokens or config.max_new_tokens, config.max_new_tokens)
    mine = math.ceil(sequences / config.nproc_per_node)
    rank = _Rank(shape, config, device, assumed, mine, prompt, response)
    seconds: dict[str, float] = {}
    if ppo:
        seconds |= {"roll-outs: prompts": rank.prefill(), "roll-outs: tokens": rank.decode(), "scoring": rank.scoring()}
    seconds |= {"update": rank.update(), "optimiser": rank.optimiser(), "communication": rank.communication()}
    return Speed(sequences, sequences * (prompt + response), sequences * response, seconds)


@dataclass(frozen=True)
class _Rank:
    """One rank's part of a step."""

    shape: Shape
    config: PlanConfig
    device: Device
    assumed: AssumedShares
    sequences: int
    prompt: int
    response: int

    @property
    def peak(self) -> float:
        """Operations a second."""
        return self.device.tflops(self.config.precision) * 1e12

    @property
    def bandwidth(self) -> float:
        """Bytes a second of the device's memory."""
        return self.device.bandwidth * 1e9 * self.assumed.decode

    @property
    def samples(self) -> int:
        """Samples of a unit: they share a prompt's tokens in scoring and update."""
        return self.config.sharing(self.prompt, self.response)

    @property
    def each(self) -> int:
        """Sequences with one prompt."""
        return self.config.samples_per_problem if self.config.phase == "ppo" else 1

    @property
    def prompts(self) -> int:
        """Prompts of this rank."""
        return math.ceil(self.sequences / self.each)

    @property
    def units(self) -> int:
        """Units of this rank: none holds samples of two prompts."""
        return self.prompts * math.ceil(self.each / self.samples)

    @property
    def tokens(self) -> int:
        """Tokens of this rank in scoring and in a pass of the update: each response, and a prompt a unit."""
        return self.sequences * self.response + self.units * self.prompt

    @property
    def pairs(self) -> float:
        """Pairs of attention: a prompt's with itself, once a unit, and each response's with its prompt and itself."""
        return self.units * self.prompt**2 / 2 + self.sequences * self.response * (self.prompt + self.response / 2)

    def forward(self, *, head: bool) -> float:
        """Operations of a forward pass: 2 a weight and token, and causal attention; the head sees responses alone."""
        # Scores and values: 2 operations each for every pair.
        attention = 4 * self.pairs * self.shape.attention * self.shape.layers
        rows = self.sequences * self.response if head else 0
        return 2 * self.shape.body * self.tokens + 2 * self.shape.head * rows + attention

    def prefill(self) -> float:
        """A problem's prompt is read once for all of its samples."""
        prompts = self.prompts
        tokens = prompts * self.prompt
        attention = 2 * tokens * self.prompt * self.shape.attention * self.shape.layers
        return (2 * self.shape.body * tokens + attention) / (self.peak * self.assumed.prefill)

    def decode(self) -> float:
        """Token by token, each step bound by memory, operations or kernel launches; a batch ends with its longest."""
        shape, config = self.shape, self.config
        batch = min(config.sampling_batch, self.sequences)
        batches = math.ceil(self.sequences / config.sampling_batch)
        own = config.max_new_tokens / 2
        # A prompt's keys and values are read once for all of its samples.
        keys = math.ceil(batch / self.each) * self.prompt + batch * own
        cache = keys * shape.layers * shape.keys_and_values * config.element
        read = (shape.body + shape.head) * config.element + cache
        work = 2 * batch * (shape.body + shape.head) + 4 * batch * (self.prompt + own) * shape.attention * shape.layers
        launch = 0.0 if self.device.name == "cpu" else self.assumed.launch * shape.layers
        step = max(read / self.bandwidth, work / (self.peak * self.assumed.prefill), launch)
        return batches * config.max_new_tokens * step

    def scoring(self) -> float:
        """Forward passes of reference and critic, and of the policy where its log-probs are recomputed."""
        work = (1 + self.recomputed) * self.forward(head=True) + self.forward(head=False)
        return work / (self.peak * self.assumed.scoring)

    def update(self) -> float:
        """A backward pass costs two forward ones (one through frozen weights); checkpointing costs one more forward."""
        passes = (2 if self.config.lora_rank else 3) + self.config.gradient_checkpointing
        work = self.forward(head=True) + (self.forward(head=False) if self.config.phase == "ppo" else 0.0)
        return self.epochs * passes * work / (self.peak * self.assumed.update)

    def optimiser(self) -> float:
        """AdamW, bound by memory; under offload in the host, with gradients and weights over PCIe."""
        config, seconds = self.config, 0.0
        for network in networks(self.shape, config):
            mine = network.trained / (config.nproc_per_node if config.stage else 1)
            bandwidth = self.assumed.host_bandwidth * 1e9 if config.offloads else self.bandwidth
            # Gradients travel in fp32, weights come back in the training precision.
            travel = (4 + config.element) * mine / (self.device.pcie * 1e9 * self.assumed.link)
            travel = travel if config.offloads else 0.0
            seconds += self.optimiser_steps * (ADAM_BYTES * mine / bandwidth + travel)
        return seconds

    def communication(self) -> float:
        """Bytes that a rank sends, over the link: gradients, weights, and what stage 3 gathers for each pass."""
        config = self.config
        part = (config.nproc_per_node - 1) / config.nproc_per_node
        sent = 0.0
        for network in networks(self.shape, config):
            gradients, weights = config.element * network.trained, config.element * network.weights
            micro_batches = self.optimiser_steps * self.micro_batches(self.optimiser_steps // self.epochs)
            # An all-reduce sends twice what it reduces; stages 1 and 2 reduce so too, and then gather the new weights.
            if config.stage == 0:
                sent += self.optimiser_steps * 2 * gradients
            elif config.stage < 3:
                reductions = self.optimiser_steps if config.stage == 1 else micro_batches
                sent += (2 * reductions + self.optimiser_steps) * gradients
            else:
                sent += micro_batches * (2 * weights + gradients)
                if config.phase == "ppo":  # scoring; with adapters the policy is the reference too, with them off
                    times = self.recomputed + bool(config.lora_rank) if network.name == "policy" else 1
                    sent += times * self.micro_batches(1) * weights
                    sent += weights if network.name == "policy" else 0.0  # gathered for sampling
        return sent * part / (self.device.link * 1e9 * self.assumed.link)

    @property
    def recomputed(self) -> bool:
        """Whether scoring has a forward pass of the policy."""
        return self.config.old_log_probs == "recomputed"

    @property
    def epochs(self) -> int:
        """Passes over the step's tokens."""
        return self.config.ppo_epochs if self.config.phase == "ppo" else 1

    @property
    def optimiser_steps(self) -> int:
        """Optimiser steps of each network; a mini-batch of PPO has a sample at least."""
        config = self.config
        samples = config.problems_per_step * config.samples_per_problem
        return config.ppo_epochs * min(config.minibatches, samples) if config.phase == "ppo" else 1

    def micro_batches(self, parts: int) -> int:
        """Micro-batches of one of the equal parts of this rank's units: each has as many whole ones as fit.

        What is left of each prompt's samples is a smaller unit, of which more fit.
        """
        budget = self.config.micro_batch
        whole, rest = divmod(self.each, self.samples)
        together = max(1, budget // (self.prompt + self.samples * self.response))
        count = math.ceil(self.prompts * whole / (parts * together))
        if rest:
            together = max(1, budget // (self.prompt + rest * self.response))
            count += math.ceil(self.prompts / (parts * together))
        return count
