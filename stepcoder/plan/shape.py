"""What a plan has to know of a model, from its `config.json` alone: it is built on torch's meta device."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcoder.errors import DataError
from stepcoder.platform import hub, storage
from stepcoder.platform.redaction import first_line


def _llama(
    hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": 16384,
        **more,
    }


NAMED = {
    "llama-1b": _llama(2048, 16, 32, 8, 8192, 128256, tie_word_embeddings=True),
    "llama-1.3b": _llama(2048, 24, 16, 16, 5504, 32256),
    "llama-6.7b": _llama(4096, 32, 32, 32, 11008, 32256),
    "llama-8b": _llama(4096, 32, 32, 8, 14336, 128256, max_position_embeddings=8192),
    "llama-33b": _llama(7168, 62, 56, 8, 19200, 32256),
}
"""Llama shapes by name; the models are named in `PlanConfig.model`."""


_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""What a model must have for a plan, by its name in `transformers`."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a causal language model."""

    architecture: str
    parameters: int
    """All of them; tied embeddings count once."""
    backbone: int
    """Without an LM head of its own: what the critic takes over."""
    embedding: int
    """Weights that are looked up and not multiplied."""
    vocabulary: int
    hidden: int
    inner: int
    """Width inside the MLP."""
    gated: bool
    """Whether the MLP has a gate (SwiGLU)."""
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    positions: int | None
    """Longest sequence; `None` when there is no bound."""
    linear_width: int
    """Inputs and outputs of all linear layers but the LM head, added up: weights of adapters of rank 1."""

    @property
    def critic(self) -> int:
        """Parameters of the critic: the backbone and a value head without bias."""
        return self.backbone + self.hidden

    @property
    def head(self) -> int:
        """Weights that a token's logits are multiplied from, tied or not."""
        return self.vocabulary * self.hidden

    @property
    def body(self) -> int:
        """Weights that every token is multiplied by: the backbone without the embedding."""
        return self.backbone - self.embedding

    @property
    def attention(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def keys_and_values(self) -> int:
        """Numbers that one token leaves in the cache of one layer."""
        return 2 * self.kv_heads * self.head_size


def shape_of(model: str) -> Shape:
    """Reads a model's configuration and counts the weights of its architecture.

    Raises:
        DataError: there is no such model or configuration, or it is not a causal language model with attention.
    """
    import torch
    from transformers import AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = _config(model)
    if lacking := [name for name in _SIZES if (getattr(config.get_text_config(), name, 0) or 0) <= 0]:
        raise DataError(
            f"{model}: memory and time cannot be estimated: its config.json ({type(config).__name__}) has no number "
            f"above 0 for {', '.join(lacking)}"
        )
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # What is raised for sizes that do not go together depends on the architecture.
        raise DataError(
            f"{model}: no causal language model can be built from its config.json: {first_line(error)}"
        ) from error
    return _measured(network)


def _measured(network: Any) -> Shape:
    config = network.config.get_text_config()
    embedding, head = network.get_input_embeddings().weight, network.get_output_embeddings()
    tied = head.weight is embedding
    parameters = sum(weight.numel() for weight in network.parameters())
    hidden, heads = config.hidden_size, config.num_attention_heads
    inner = next(
        (size for name in ("intermediate_size", "n_inner", "ffn_dim") if (size := getattr(config, name, None))),
        4 * hidden,
    )
    names = {name.rpartition(".")[2] for name, _ in network.named_modules()}
    linear = [module for module in network.modules() if module is not head and _is_linear(module)]
    return Shape(
        architecture=type(network).__name__,
        parameters=parameters,
        backbone=parameters if tied else parameters - sum(weight.numel() for weight in head.parameters()),
        embedding=embedding.numel(),
        vocabulary=embedding.shape[0],
        hidden=hidden,
        inner=inner,
        gated=any("gate" in name for name in names),
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or hidden // heads,
        positions=getattr(config, "max_position_embeddings", None),
        linear_width=sum(sum(module.weight.shape) for module in linear),
    )


def _is_linear(module: Any) -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)


def _config(model: str) -> Any:
    from transformers import AutoConfig, LlamaConfig

    if model in NAMED:
        return LlamaConfig(**NAMED[model])
    name = model
    if storage.is_remote(model):
        name = str(storage.fetch(f"{model.rstrip('/')}/config.json"))  # the weights stay where they are
    elif Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise DataError(f"{model}: the model folder lacks a model configuration (config.json)")
    elif model.startswith((".", "/")) and not Path(model).exists():
        raise DataError(f"{model}: there is no such folder")
    try:
        name, revision = hub.split(name)
        return AutoConfig.from_pretrained(name, revision=revision)
    except Exception as error:  # What is raised for a wrong value depends on the architecture.
        raise DataError(
            f"{model}: neither a folder nor a Hugging Face id whose config.json can be read ({first_line(error)}); "
            f"named shapes: {', '.join(NAMED)}"
        ) from error
