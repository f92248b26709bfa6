"""Settings that sft, ppo and the evaluation share. Imports no torch, so settings can be checked anywhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stepcoder.platform.config import StepConfig
from stepcoder.sandbox.address import default_address


class Sampling(StepConfig):
    """How programs are sampled from a policy."""

    temperature: float = Field(0.2, gt=0)
    """Softmax temperature."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus: sample from the smallest set of tokens with at least this probability."""
    max_new_tokens: int = Field(1024, ge=1)
    """Longest response, in tokens."""


class TrainingConfig(StepConfig):
    """What both trainings set in the same way."""

    dataset: str
    """Dataset folder or `s3://` address, as verify writes it."""
    out: str
    """Folder or `s3://` address of the trained policy."""
    checkpoints: str | None = None
    """Folder or `s3://` address for checkpoints; the same run started again resumes from there. Empty: none."""
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps (sft) or PPO steps (ppo) from one checkpoint to the next."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept; an older one serves when the newest is broken."""

    max_prompt_tokens: int = Field(1024, ge=1)
    """Longest prompt in tokens, opened code included. Longer statements are cut at their left end."""
    max_new_tokens: int = Field(1024, ge=1)
    """Longest response in tokens."""

    nproc_per_node: int | None = Field(None, ge=1)
    """Ranks on this machine, one a GPU, started by torchrun. Empty: one for each GPU that is there, else one."""
    rank_timeout_seconds: float = Field(1800.0, gt=0)
    """Seconds without progress of a rank before the training is ended with its name."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Number format of weights and activations in training."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, about a third more time."""
    offload: bool = False
    """Keep the optimiser's state, and with ZeRO stage 3 the weights, in the machine's memory instead of the GPU's."""
    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA adapters on all linear layers; the weights themselves stay frozen. 0: train all weights."""
    lora_alpha: int = Field(32, ge=1)
    """LoRA: the adapters' product is multiplied by this over the rank."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""
    micro_batch_tokens: int = Field(16384, ge=1)
    """Token budget of one forward and backward pass; nothing is padded."""
    head_chunk_mib: int = Field(64, ge=1)
    """Memory for the logits of one chunk of rows in the LM head, in MiB."""
    seed: int = 0
    """Seed of shuffling and sampling."""

    validation_problems: int | None = Field(None, ge=0)
    """Validation problems to measure before and after, the first by id. Empty: all. 0: none."""
    validation_samples: int = Field(1, ge=1)
    """Samples a validation problem."""
    validation_temperature: float = Field(0.2, gt=0)
    """Temperature of validation samples."""
    validation_top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of validation samples."""
    sampling_batch: int = Field(64, ge=1)
    """Sequences that are generated together."""

    sandbox: str = Field(default_factory=default_address)
    """Where programs run: `local`; `unsafe`, the same where the kernel cannot isolate; `docker`; or the address of a
    service: `http://HOST:PORT`, `https://HOST`, `http+unix:///PATH/TO/SOCKET`. Not given: `$STEPCODER_SANDBOX`,
    else `local`."""
    sandbox_slots: int | None = Field(None, ge=1)
    """Programs that a rank judges at the same time. Empty: one a core, shared among the ranks."""
    cpu_seconds: float = Field(3.0, gt=0)
    """CPU seconds a test."""
    memory_mib: int = Field(512, ge=16)
    """Address space of a program in MiB."""

    @property
    def depends_on(self) -> dict[str, Any]:
        """The settings that a checkpoint depends on: all but places, and how the work is cut, spread and watched."""
        places = {"dataset", "out", "checkpoints"}
        # Another value of these changes a training by rounding at most.
        cut = {"micro_batch_tokens", "head_chunk_mib", "gradient_checkpointing", "sampling_batch"}
        spread = {"nproc_per_node", "rank_timeout_seconds", "sandbox", "sandbox_slots"}
        kept = {"checkpoint_every", "keep_checkpoints"}
        return self.model_dump(mode="json", exclude=places | cut | spread | kept)

    @property
    def validation_sampling(self) -> Sampling:
        """How validation programs are sampled."""
        return Sampling(
            temperature=self.validation_temperature, top_p=self.validation_top_p, max_new_tokens=self.max_new_tokens
        )
