"""LoRA by peft: small trained matrices beside frozen weights (Hu et al. 2021).

A model with its adapters switched off is the model it started from, so one set of frozen weights serves as the policy
and as its own reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError
from transformers import PreTrainedModel

from stepcoder.errors import DataError
from stepcoder.platform.redaction import first_line

FOLDER = "adapter"
"""Where a policy's folder keeps the adapters themselves; its weights have them merged in."""
_NAME = "default"


def add(model: PreTrainedModel, rank: int, alpha: int, seed: int) -> None:
    """Freezes a model and adds adapters to all its linear layers but the LM head; they change nothing as yet."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0), _NAME)
    model.enable_input_require_grads()  # Else gradient checkpointing would find nothing to train.


def load(model: PreTrainedModel, folder: Path, rank: int, alpha: int) -> None:
    """Freezes a model and adds the adapters of a folder, to train them on.

    Raises:
        DataError: they cannot be read, do not fit the model, or have another rank or alpha.
    """
    try:
        model.load_adapter(str(folder), _NAME, is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: these adapters cannot be used: {first_line(error)}") from error
    found = model.peft_config[_NAME]
    if (found.r, found.lora_alpha) != (rank, alpha):
        raise DataError(
            f"{folder}: these adapters have lora_rank={found.r} and lora_alpha={found.lora_alpha}, and the settings "
            f"{rank} and {alpha}; a stage goes on with those of the stage before"
        )
    model.enable_input_require_grads()


@contextmanager
def off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is what it was before it had adapters."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


@torch.no_grad()
def merge_into(base: PreTrainedModel, trained: PreTrainedModel) -> None:
    """Adds the adapters of a trained model to the weights of another copy of the model it started from."""
    for name, module in trained.named_modules():
        if isinstance(module, LoraLinear):
            weight = base.get_submodule(name).weight
            delta = module.get_delta_weight(_NAME)
            weight.copy_((weight.float() + delta.to(weight.device).float()).to(weight.dtype))
