"""Bytes on one rank, by phase and item. The formulas' sources are in docs/performance.md.

`stage` is the ZeRO stage that the engine uses inside; gradients are summed in fp32 in all of them.

Weights, optimiser state and what DeepSpeed keeps stay through all phases (`resident`). Phases come one after the other,
and so do the updates of policy and critic: their activations and gradients do not add up, and the largest phase counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stepcoder.plan.config import PlanConfig
from stepcoder.plan.devices import GIB, Device
from stepcoder.plan.shape import Shape

BUCKET = 500_000_000
"""DeepSpeed's `reduce_bucket_size`, in elements: gradients are copied into a buffer of this size before they travel."""
LIVE = 1_000_000_000
"""DeepSpeed's `stage3_max_live_parameters`: gathered weights that may be there at the same time in stage 3."""
SUB_GROUP = 1_000_000_000
"""DeepSpeed's `sub_group_size`: in stage 3 the optimiser steps over this many weights at a time."""
STILL_ENOUGH = 0.75
"""As in `model/generation.py`: the largest share of a batch that goes on when ended samples leave it."""
ROLL_OUT_DRAW = 8
"""Bytes a number of the vocabulary that `draw` takes beside the logits: probabilities and their cumulative sums."""
NUCLEUS_DRAW = 20
"""The same for a nucleus: sorted probabilities, their places (8 bytes), cumulative sums, and what comes before each."""
RUNTIME_GIB = 1.5
"""Assumed: CUDA context, NCCL and cuBLAS buffers of a process, which torch does not count."""
FRAGMENTED = 0.05
"""Assumed: share of a device's memory that the allocator cannot use."""

Bytes = Mapping[str, int]


@dataclass(frozen=True)
class Network:
    """One network of a training."""

    name: str
    weights: int
    trained: int
    """Weights that learn."""


@dataclass(frozen=True)
class Memory:
    """What one rank needs."""

    resident: Bytes
    phases: Mapping[str, Bytes]
    """What each phase needs on top of what is resident."""
    host: Bytes
    """In host memory, for this rank."""
    capacity: int
    """Bytes of the device that can be used."""

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes of the largest phase, with what is resident."""
        return self.total(self.peak_phase)

    @property
    def fits(self) -> bool:
        """Whether the largest phase fits."""
        return self.peak <= self.capacity

    def total(self, phase: str) -> int:
        """Bytes of a phase, with what is resident."""
        return sum(self.resident.values()) + sum(self.phases[phase].values())

    @property
    def largest(self) -> list[tuple[str, int]]:
        """Items of the largest phase, the largest first."""
        return sorted({**self.resident, **self.phases[self.peak_phase]}.items(), key=lambda item: -item[1])


def networks(shape: Shape, config: PlanConfig) -> list[Network]:
    """Networks that learn: the policy, and in PPO the critic."""
    adapters = config.lora_rank * shape.linear_width
    policy = Network("policy", shape.parameters + adapters, adapters or shape.parameters)
    critic = Network("critic", shape.critic + adapters, adapters + shape.hidden if adapters else shape.critic)
    return [policy, critic] if config.phase == "ppo" else [policy]


def memory(shape: Shape, config: PlanConfig, device: Device) -> Memory:
    """Bytes on one rank."""
    trained = networks(shape, config)
    resident: dict[str, int] = {}
    host: dict[str, int] = {}
    for network in trained:
        for name, size in model_states(network, config).items():
            in_host = config.offloads and (name != "weights" or config.stage == 3)
            (host if in_host else resident)[f"{network.name}: {name}"] = size
        if config.offloads:
            host[f"{network.name}: gradients"] = _host_gradients(config) * _share(network.trained, config)
            if config.stage < 3 and not config.lora_rank:
                # On their way to the host gradients stop in a buffer that holds the largest of them.
                largest = shape.hidden * max(shape.vocabulary, shape.inner)
                resident[f"{network.name}: gradient on its way"] = config.element * largest
        if config.stage == 3:
            resident[f"{network.name}: gradient bucket"] = _bucket(network, config)
            if not config.offloads:
                resident[f"{network.name}: gradients"] = 4 * _share(network.trained, config)
    if config.phase == "ppo" and not config.lora_rank:
        resident["reference: weights"] = config.element * shape.parameters
    phases: dict[str, dict[str, int]] = {}
    if config.phase == "ppo":
        phases["roll-outs"] = _sampling(shape, trained[0], config, config.samples_per_problem, ROLL_OUT_DRAW)
    if config.validation_problems != 0:
        phases["validation"] = _sampling(shape, trained[0], config, config.validation_samples, NUCLEUS_DRAW)
    if config.phase == "ppo":
        phases["scoring"] = _scoring(shape, trained[0], config)
    for network in trained:
        phases[f"update of the {network.name}"] = _update(shape, network, config)
    phases["optimiser step"] = _optimiser_step(max(trained, key=lambda network: network.trained), config)
    used = {name: {item: size for item, size in items.items() if size} for name, items in phases.items()}
    capacity = device.memory_gib * GIB * (1 - FRAGMENTED)
    if device.name != "cpu":
        resident["CUDA, NCCL"] = int(RUNTIME_GIB * GIB)
    return Memory(resident, used, host, int(capacity))


def model_states(network: Network, config: PlanConfig) -> dict[str, int]:
    """Bytes of weights, fp32 master weights and Adam's two moments of a network on one rank.

    Stage 3 partitions all weights, frozen ones too. From stage 1 on the optimiser's state is partitioned. Stages 1
    and 2 have a master copy even where the weights are fp32 themselves, and so has stage 3 under offload.
    """
    weights = network.weights if config.stage < 3 else _share(network.weights, config)
    has_master = config.precision == "bf16" or config.stage in (1, 2) or config.offloads
    owned = _share(network.trained, config) if config.stage else network.trained
    states = {"weights": config.element * weights, "master weights": 4 * owned * has_master, "Adam moments": 8 * owned}
    return {name: size for name, size in states.items() if size}


def activations(shape: Shape, tokens: int, config: PlanConfig) -> int:
    """Bytes that a forward pass keeps for its backward pass.

    Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) counted anew for RMSNorm, grouped queries and SwiGLU as
    `transformers` computes them, with attention that keeps no scores. Per token and layer, in elements: what enters the
    two norms (in fp32), what leaves them before and after their weights, queries, keys, values, what attention returns;
    gate, its SiLU, up and their product (without a gate: five of an unfused GELU, the most that one keeps). With
    gradient checkpointing each layer keeps its input, and one at a time the rest.
    """
    return _kept(shape, tokens, config) + (_layer(shape, tokens, config) if config.gradient_checkpointing else 0)


def kv_cache(shape: Shape, config: PlanConfig, prompts: int, samples: int) -> int:
    """Bytes of keys and values of prompts and samples that are in a batch, all of them as long as they may be."""
    tokens = prompts * config.max_prompt_tokens + samples * config.max_new_tokens
    return tokens * shape.layers * shape.keys_and_values * config.element


def _kept(shape: Shape, tokens: int, config: PlanConfig) -> int:
    """Activations that are there when the backward pass begins."""
    if config.gradient_checkpointing:
        return tokens * shape.layers * config.element * shape.hidden
    return shape.layers * _layer(shape, tokens, config)


def _layer(shape: Shape, tokens: int, config: PlanConfig) -> int:
    """Activations of one layer."""
    mlp = (4 if shape.gated else 5) * shape.inner
    norms = 2 * 4 * shape.hidden + config.element * 4 * shape.hidden
    return tokens * (norms + config.element * (2 * shape.attention + shape.keys_and_values + mlp))


def _update(shape: Shape, network: Network, config: PlanConfig) -> dict[str, int]:
    """The backward pass: it goes through the LM head first, and layer by layer after it, so the larger counts."""
    tokens = config.micro_batch
    items = {"activations": _kept(shape, tokens, config)}
    layers = {
        "activations of a layer": _layer(shape, tokens, config) if config.gradient_checkpointing else 0,
        "gradients of activations": tokens
        * config.element
        * (shape.inner * (3 if shape.gated else 2) + 2 * shape.hidden),
    }
    if config.gradient_checkpointing:
        layers["copies of shared prompts"] = _shared(shape, config)
    else:
        items["copies of shared prompts"] = shape.layers * _shared(shape, config)
    head = _head(shape, config, backward=True) if network.name == "policy" else {}
    items |= _larger(layers, head)
    items |= _live(network, config)
    if config.stage < 3:
        items["gradients"] = _gradients(network, config)
    if config.stage == 2 or (config.stage == 1 and config.gpu != "cpu"):  # stage 1 fills it after the backward pass
        items["gradient bucket"] = _bucket(network, config)
    if config.stage >= 2:
        # What a full bucket is made into to be summed over the ranks; stage 3 then makes its part fp32.
        full = min(BUCKET, network.trained)
        items["bucket's copy"] = config.element * full
        if config.stage == 3 and config.precision == "bf16":
            items["bucket's copy"] += 4 * _share(full, config)
    return items


def _shared(shape: Shape, config: PlanConfig) -> int:
    """What a layer's attention keeps where samples share a prompt: its keys and values once more for each of them."""
    prompt, response = config.max_prompt_tokens, config.max_new_tokens
    samples = config.sharing(prompt, response)
    if samples == 1:
        return 0
    again = config.micro_batch * samples * prompt // (prompt + samples * response)
    return again * shape.keys_and_values * config.element


def _gradients(network: Network, config: PlanConfig) -> int:
    """Gradients of an update below stage 3: whole ones below stage 2, then a rank's share; offload leaves them there.

    In stage 2 and bf16 a micro-batch is added to the fp32 sum bucket by bucket. In fp32 there are a micro-batch's own
    and the sum; offload has neither on the device.
    """
    if config.stage < 2:
        return 4 * network.trained
    if config.precision == "bf16":
        return 4 * _share(network.trained, config)
    return 0 if config.offloads else 8 * _share(network.trained, config)


def _host_gradients(config: PlanConfig) -> int:
    """Bytes a weight of this rank in the machine's memory under offload.

    The fp32 gradients that AdamW reads; in stage 3 their sums; below it a buffer for the new weights, and in fp32 the
    sums.
    """
    if config.stage == 3:
        return 4 + 4
    return 4 + config.element + (4 if config.precision == "fp32" else 0)


def _optimiser_step(network: Network, config: PlanConfig) -> dict[str, int]:
    """The gradients, and copies that are made of them at the last micro-batch's end and for AdamW.

    AdamW itself is fused and needs nothing. Stage 0 flattens gradients to sum them over the ranks, also on one. In
    stages 1 and 2 all of a rank's part becomes one tensor, which in bf16 it is already.
    """
    share, full = _share(network.trained, config), min(BUCKET, network.trained)
    if config.stage == 0:
        return {"gradients": 4 * network.trained, "gradients' copy": 4 * full}
    if config.stage == 3:
        return {} if config.offloads else {"gradients' copy": 4 * min(share, SUB_GROUP)}
    if config.precision == "bf16":
        return {"gradients": 4 * share}
    if config.stage == 1:
        bucket = 0 if config.gpu == "cpu" else 4 * BUCKET  # a processor's holds the gradients themselves
        return {"gradients": 4 * network.trained, "gradient bucket": bucket, "gradients' copy": 4 * max(full, share)}
    return {} if config.offloads else {"gradients": 4 * share, "gradients' copy": 4 * share}


def _sampling(shape: Shape, policy: Network, config: PlanConfig, samples: int, draw: int) -> dict[str, int]:
    """A batch of samples: one prefill a prompt, then token by token; in stage 3 each rank has the policy whole.

    Args:
        shape: the model.
        policy: the network.
        config: settings.
        samples: samples a prompt, whose keys and values they share.
        draw: bytes that drawing a token takes for an entry of the vocabulary, beside its logit.
    """
    batch, gathered = config.sampling_batch, config.element * policy.weights if config.stage == 3 else 0
    prompts = math.ceil(batch / samples)
    read, whole = kv_cache(shape, config, prompts, 0), kv_cache(shape, config, prompts, batch)
    prefill = _forward(shape, prompts * config.max_prompt_tokens, config)
    # Ended samples leave layer by layer: room for those that stay, and their keys or their values once more.
    leaving = int(1.5 * STILL_ENOUGH * (whole - read) / shape.layers)
    # Of a layer's attention: scores, the same in fp32, weights in fp32, weights.
    scores = batch * shape.heads * config.longest * (2 * config.element + 8)
    # The logits of the step before are there in both.
    logits = batch * shape.vocabulary * config.element
    step = logits + max(leaving, scores, batch * shape.vocabulary * draw)
    if read + prefill > whole + step:
        return {"whole policy": gathered, "KV cache": read, "prefill": prefill}
    return {"whole policy": gathered, "KV cache": whole, "a token's step": step}


def _scoring(shape: Shape, policy: Network, config: PlanConfig) -> dict[str, int]:
    layers = {"forward pass": _forward(shape, config.micro_batch, config)}
    head = _head(shape, config, backward=False)
    return _larger(layers, head) | _live(policy, config)


def _forward(shape: Shape, tokens: int, config: PlanConfig) -> int:
    """What a forward pass without gradients has in hand at the widest place of a layer."""
    mlp = shape.inner * (3 if shape.gated else 2) * config.element + 2 * shape.hidden * config.element
    attention = (3 * shape.attention + 2 * shape.keys_and_values + 2 * shape.hidden) * config.element
    return tokens * max(mlp, attention, 8 * shape.hidden + 2 * shape.hidden * config.element)


def _head(shape: Shape, config: PlanConfig, *, backward: bool) -> dict[str, int]:
    """The chunked LM head. Its rows are the response tokens of a micro-batch, in which samples share prompts.

    The two fp32 buffers of a chunk are `head_chunk_mib` together. In bf16 a processor's product comes to it, a quarter,
    and backward another copy of that size. The gradient of the head's own weights is summed in fp32; in bf16 a chunk's
    part, and in the end the result, are beside it.
    """
    responses = config.sharing(config.max_prompt_tokens, config.max_new_tokens) * config.max_new_tokens
    rows = config.micro_batch * responses // (config.max_prompt_tokens + responses)
    states = rows * shape.hidden * config.element
    chunk = max(config.head_chunk_mib << 20, 8 * shape.vocabulary)
    if config.precision == "bf16":
        chunk += chunk // 4 * ((config.gpu == "cpu") + backward)
    items = {"LM head's chunk": chunk, "LM head's rows": states * (2 if backward else 1)}
    if backward and not config.lora_rank:
        items["LM head's gradient"] = shape.head * (6 if config.precision == "bf16" else 4)
    return items


def _live(network: Network, config: PlanConfig) -> dict[str, int]:
    """Weights that stage 3 has gathered at a time."""
    return {"gathered weights": config.element * min(network.weights, LIVE) if config.stage == 3 else 0}


def _bucket(network: Network, config: PlanConfig) -> int:
    # A processor's memory is taken when it is written to, a GPU's when it is asked for.
    return config.element * (min(BUCKET, network.trained) if config.gpu == "cpu" else BUCKET)


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return one if sum(one.values()) >= sum(other.values()) else other


def _share(size: int, config: PlanConfig) -> int:
    """One rank's part."""
    return -(-size // config.nproc_per_node)
