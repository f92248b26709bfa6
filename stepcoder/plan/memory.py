"""Bytes on one rank, by phase and item. The formulas' sources are in docs/performance.md.

Weights, optimiser state and what DeepSpeed keeps stay through all phases (`resident`). Phases come one after the other,
and so do the updates of policy and critic: their activations and gradients do not add up, and the largest phase counts.
"""

from __future__ import annotations

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
HEAD_BUFFERS = 3
"""Assumed: logits of a chunk, their softmax, their gradient."""
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
        states = model_states(network, config)
        for name, size in states.items():
            in_host = config.offload and (name != "weights" or config.zero_stage == 3)
            (host if in_host else resident)[f"{network.name}: {name}"] = size
        if config.offload:
            # The gradients that the optimiser reads are fp32 and stay there, beside the buffer that travels.
            host[f"{network.name}: gradients"] = (4 + config.element) * _share(network.trained, config)
        if config.zero_stage == 3:
            resident[f"{network.name}: gradient bucket"] = _bucket(network, config)
            if not config.offload:
                resident[f"{network.name}: gradients"] = config.element * _share(network.trained, config)
    if config.phase == "ppo" and not config.lora_rank:
        resident["reference: weights"] = config.element * shape.parameters
    phases = {"roll-outs": _rollouts(shape, trained[0], config)}
    if config.phase == "ppo":
        phases["scoring"] = _forward(shape, config.micro_batch, config) | _head(config) | _live(trained[0], config)
    for network in trained:
        phases[f"update of the {network.name}"] = _update(shape, network, config)
    phases["optimiser step"] = _optimiser_step(shape, max(trained, key=lambda network: network.trained), config)
    used = {name: {item: size for item, size in items.items() if size} for name, items in phases.items()}
    capacity = device.memory_gib * GIB * (1 - FRAGMENTED)
    if device.name != "cpu":
        resident["CUDA, NCCL"] = int(RUNTIME_GIB * GIB)
    return Memory(resident, used, host, int(capacity))


def model_states(network: Network, config: PlanConfig) -> dict[str, int]:
    """Bytes of weights, fp32 master weights and Adam's two moments of a network on one rank.

    Stage 3 partitions all weights, frozen ones too. From stage 1 on the optimiser's state is partitioned, and there is
    a master copy even where the weights are fp32 themselves.
    """
    weights = network.weights if config.zero_stage < 3 else -(-network.weights // config.gpus)
    has_master = config.precision == "bf16" or config.zero_stage > 0
    owned = _share(network.trained, config) if config.zero_stage else network.trained
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
    mlp = (4 if shape.gated else 5) * shape.inner
    norms = 2 * 4 * shape.hidden + config.element * 4 * shape.hidden
    layer = norms + config.element * (2 * shape.attention + shape.keys_and_values + mlp)
    if not config.gradient_checkpointing:
        return tokens * shape.layers * layer
    return tokens * (shape.layers * config.element * shape.hidden + layer)


def kv_cache(shape: Shape, config: PlanConfig) -> int:
    """Bytes of keys and values of all sequences that are generated together, at full length."""
    return config.sampling_batch * config.longest * shape.layers * shape.keys_and_values * config.element


def _update(shape: Shape, network: Network, config: PlanConfig) -> dict[str, int]:
    tokens = config.micro_batch
    backward = config.element * (shape.inner * (3 if shape.gated else 2) + 2 * shape.hidden)
    items = {
        "activations": activations(shape, tokens, config),
        "gradients of activations": tokens * backward,
        **_live(network, config),
    }
    if config.zero_stage < 3:
        # Stage 1 keeps all gradients until the optimiser's step; stage 2 only its own, and with offload none.
        whole = config.zero_stage < 2
        owned = 0 if config.offload and not whole else _share(network.trained, config)
        items["gradients"] = config.element * (network.trained if whole else owned)
        items["gradient bucket"] = _bucket(network, config) if config.zero_stage else 0
    return items | (_head(config) if network.name == "policy" else {})


def _optimiser_step(shape: Shape, network: Network, config: PlanConfig) -> dict[str, int]:
    """The fp32 copy of the gradients, and AdamW's temporary, beside the gradients themselves.

    On a GPU torch's AdamW goes over all tensors at once and holds one copy; on a processor two, tensor by tensor, and
    ZeRO makes one tensor of all.
    """
    if config.offload:
        return {}
    size = _share(network.trained, config) if config.zero_stage else network.trained
    copied = min(size, SUB_GROUP) if config.zero_stage == 3 else size
    has_copy = config.precision == "bf16" or config.zero_stage > 0
    kept = config.element * network.trained if config.zero_stage == 0 else 0  # ZeRO lets go of them first
    temporary = 4 * copied
    if config.gpu == "cpu":
        temporary = 8 * (copied if config.zero_stage else min(copied, shape.embedding))
    return {"gradients": kept, "fp32 gradients": 4 * copied * has_copy, "AdamW's temporary": temporary}


def _rollouts(shape: Shape, policy: Network, config: PlanConfig) -> dict[str, int]:
    """Sampling. All prompts of a batch are read at once, and under ZeRO 3 the policy is gathered whole."""
    gathered = config.element * policy.weights if config.zero_stage == 3 else 0
    prefill = sum(_forward(shape, config.sampling_batch * config.max_prompt_tokens, config).values())
    # The cache grows by a copy of one layer's keys or values at a time; probabilities are made of logits in fp32.
    copy = kv_cache(shape, config) // shape.layers // 2
    logits = 3 * 4 * config.sampling_batch * shape.vocabulary
    return {"whole policy": gathered, "KV cache": kv_cache(shape, config), "sampling": max(prefill, copy + logits)}


def _forward(shape: Shape, tokens: int, config: PlanConfig) -> dict[str, int]:
    """What a forward pass without gradients has in hand at the widest place of a layer."""
    mlp = shape.inner * (3 if shape.gated else 2) * config.element + 2 * shape.hidden * config.element
    attention = (3 * shape.attention + 2 * shape.keys_and_values + 2 * shape.hidden) * config.element
    return {"forward pass": tokens * max(mlp, attention, 8 * shape.hidden + 2 * shape.hidden * config.element)}


def _head(config: PlanConfig) -> dict[str, int]:
    return {"LM head's chunks": HEAD_BUFFERS * config.head_chunk_mib << 20}


def _live(network: Network, config: PlanConfig) -> dict[str, int]:
    """Weights that stage 3 has gathered at a time."""
    return {"gathered weights": config.element * min(network.weights, LIVE) if config.zero_stage == 3 else 0}


def _bucket(network: Network, config: PlanConfig) -> int:
    # A processor's memory is taken when it is written to, a GPU's when it is asked for.
    return config.element * (min(BUCKET, network.trained) if config.gpu == "cpu" else BUCKET)


def _share(size: int, config: PlanConfig) -> int:
    """One rank's part."""
    return -(-size // config.gpus)
