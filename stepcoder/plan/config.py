"""Settings of a plan: a model, a device, and those settings of the trainings that memory and time depend on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stepcoder.platform.config import StepConfig
from stepcoder.ppo.config import PpoConfig
from stepcoder.sft.config import SftConfig


def _ppo(name: str) -> Any:
    """The default of PPO's setting, so that a plan cannot drift from it."""
    return PpoConfig.model_fields[name].default


class PlanConfig(StepConfig):
    """Memory of a rank, tokens and time of a step for a model and a GPU, from formulas alone.

    Nothing is started, and of a model only `config.json` is read. What cannot fit ends with status 2, the largest
    items, and changes that help.
    """

    model: str
    """Folder, `s3://` address or Hugging Face id of a model, or a named shape: `llama-1b` (Llama 3.2 1B), `llama-1.3b`,
    `llama-6.7b` and `llama-33b` (DeepSeek-Coder), `llama-8b` (Llama 3 8B)."""
    phase: Literal["ppo", "sft"] = "ppo"
    """Which training."""
    output: Literal["table", "json"] = "table"
    """What goes to standard output: a `table` for people, or `json` for programs."""

    gpu: Literal["h200", "h100", "a100-80", "a100-40", "l40s", "4090", "cpu"] = "h100"
    """Device of a rank. `cpu` is this machine's memory, and a stand-in for the speed of two cores: give your own."""
    nproc_per_node: int = Field(1, ge=1)
    """Ranks, one a GPU, all in one machine."""
    gpu_memory_gib: float | None = Field(None, gt=0)
    """Memory of a device in GiB. Empty: as in the table of devices."""
    gpu_tflops: float | None = Field(None, gt=0)
    """Dense peak in the training precision, in TFLOP/s. Empty: as in the table of devices."""
    gpu_bandwidth: float | None = Field(None, gt=0)
    """Memory bandwidth of a device in GB/s. Empty: as in the table of devices."""
    link_bandwidth: float | None = Field(None, gt=0)
    """Bandwidth between ranks in GB/s, one way, for one rank. Empty: as in the table of devices."""

    steps: int = Field(_ppo("steps"), ge=1)
    """Steps whose hours are told."""
    mean_prompt_tokens: int | None = Field(None, ge=1)
    """Expected prompt in tokens. Empty: the longest, so times are upper bounds. Memory always counts the longest."""
    mean_response_tokens: int | None = Field(None, ge=1)
    """Expected response in tokens. Empty: the longest. Sampling lasts until the longest response all the same."""

    problems_per_step: int = Field(_ppo("problems_per_step"), ge=1)
    """Problems a PPO step, over all ranks."""
    samples_per_problem: int = Field(_ppo("samples_per_problem"), ge=1)
    """Roll-outs a problem in a PPO step."""
    batch_size: int = Field(SftConfig.model_fields["batch_size"].default, ge=1)
    """Problems an optimiser step of SFT, over all ranks."""
    max_prompt_tokens: int = Field(_ppo("max_prompt_tokens"), ge=1)
    """Longest prompt in tokens."""
    max_new_tokens: int = Field(_ppo("max_new_tokens"), ge=1)
    """Longest response in tokens."""
    sampling_batch: int = Field(_ppo("sampling_batch"), ge=1)
    """Sequences that are generated together on a rank."""
    ppo_epochs: int = Field(_ppo("ppo_epochs"), ge=1)
    """Passes over a step's roll-outs."""
    old_log_probs: Literal["recomputed", "sampled"] = _ppo("old_log_probs")
    """What PPO's ratios are measured from: log-probs `recomputed` before the update, or those that were `sampled` with
    the tokens, which saves the policy's forward pass in scoring."""
    minibatches: int = Field(_ppo("minibatches"), ge=1)
    """Optimiser steps a pass."""
    micro_batch_tokens: int = Field(_ppo("micro_batch_tokens"), ge=1)
    """Token budget of one forward and backward pass; nothing is padded."""
    precision: Literal["bf16", "fp32"] = _ppo("precision")
    """Number format of weights and activations in training."""
    zero_stage: Literal[0, 1, 2, 3] = _ppo("zero_stage")
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool = _ppo("gradient_checkpointing")
    """Compute activations again in the backward pass."""
    offload: bool = _ppo("offload")
    """Keep the optimiser's state, and with ZeRO stage 3 the weights, in the machine's memory instead of the GPU's."""
    lora_rank: int = Field(_ppo("lora_rank"), ge=0)
    """Rank of the adapters of all linear layers, which then learn alone; the policy's frozen weights are the reference
    too. 0: all weights learn."""
    head_chunk_mib: int = Field(_ppo("head_chunk_mib"), ge=1)
    """Memory for the logits of one chunk of rows in the LM head, in MiB."""
    validation_problems: int | None = Field(_ppo("validation_problems"), ge=0)
    """Validation problems; here it matters only whether there are any. 0: none."""
    validation_samples: int = Field(_ppo("validation_samples"), ge=1)
    """Samples a validation problem."""

    @property
    def stage(self) -> int:
        """The ZeRO stage that the engine uses: in bf16 at least 2, for sums of gradients in fp32; 1 under offload."""
        return max(self.zero_stage, 2 if self.precision == "bf16" else int(self.offload))

    @property
    def offloads(self) -> bool:
        """Whether `offload` moves anything: on a processor it does not."""
        return self.offload and self.gpu != "cpu"

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.max_prompt_tokens + self.max_new_tokens

    @property
    def element(self) -> int:
        """Bytes of a number in the training precision."""
        return 2 if self.precision == "bf16" else 4

    @property
    def micro_batch(self) -> int:
        """Tokens of the largest micro-batch: a sequence longer than the budget is one of its own."""
        return max(self.micro_batch_tokens, self.longest)

    def sharing(self, prompt: int, response: int) -> int:
        """Samples of a unit: those of a prompt that share its tokens in scoring and update, as `model/batch.py` has it.

        Args:
            prompt: tokens of a prompt.
            response: tokens of each response.
        """
        if self.phase == "sft":  # one response a prompt
            return 1
        return min(self.samples_per_problem, max(1, (self.micro_batch_tokens - prompt) // response))
