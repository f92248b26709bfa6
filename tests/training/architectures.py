"""Small models of several architectures, with weights large enough that attention matters."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import nn

SIZE = 40
"""Vocabulary."""

_LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3, "vocab_size": SIZE,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = {**_LLAMA, "num_key_value_heads": 2}
_GPT: dict[str, Any] = {
    "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3, "vocab_size": SIZE,
    "bos_token_id": None, "eos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
_GEMMA = {**_GROUPED, "head_dim": 4, "sliding_window": 4}

READ = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, _GROUPED),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, _GROUPED),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, _GPT),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, {**_GROUPED, "sliding_window": 4}),
    "gpt_neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {**_LLAMA, "hidden_dropout": 0.0}),
    "starcoder2": (hf.Starcoder2ForCausalLM, hf.Starcoder2Config, {**_GROUPED, "sliding_window": None}),
    "opt": (
        hf.OPTForCausalLM,
        hf.OPTConfig,
        {**_LLAMA, "ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.3, "dropout": 0.0},
    ),
    "gemma3": (
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig,
        {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "deepseek_v3": (
        hf.DeepseekV3ForCausalLM,
        hf.DeepseekV3Config,
        {
            **_LLAMA, "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4, "v_head_dim": 6, "first_k_dense_replace": 2, "n_routed_experts": 2, "n_group": 1,
            "topk_group": 1, "num_experts_per_tok": 1, "moe_intermediate_size": 8,
        },
    ),
}  # fmt: skip
"""Architectures that can be trained on packed sequences."""

REFUSED = {
    "two attentions a layer": (hf.DiffLlamaForCausalLM, hf.DiffLlamaConfig, {**_GROUPED, "attention_dropout": 0.0}),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, _GEMMA),
    "capped logits": (
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        {**_GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": 2.0},
    ),
    "scaled logits": (hf.GraniteForCausalLM, hf.GraniteConfig, {**_GROUPED, "logits_scaling": 8.0}),
    "attention sinks": (
        hf.GptOssForCausalLM,
        hf.GptOssConfig,
        {
            **_GEMMA, "num_local_experts": 2, "num_experts_per_tok": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "alibi": (hf.BloomForCausalLM, hf.BloomConfig, {"vocab_size": SIZE, "hidden_size": 16, "n_layer": 2, "n_head": 4}),
    "recurrent": (
        hf.MambaForCausalLM,
        hf.MambaConfig,
        {"vocab_size": SIZE, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    ),
    "attention of its own": (
        hf.FalconForCausalLM,
        hf.FalconConfig,
        {"vocab_size": SIZE, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
    ),
}  # fmt: skip
"""What cannot be, and what is to become of it: an error, and never a wrong log-prob."""


def made(name: str, **more: Any) -> Any:
    """A model with weights that depend on nothing but its architecture, ready to score."""
    model, config, settings = (READ | REFUSED)[name]
    torch.manual_seed(0)
    return model(config(**{**settings, **more})).eval()


def double(model: Any) -> Any:
    """The model in float64 throughout: the Llama family's norms compute in float32 whatever the weights are."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                whole = nn.RMSNorm(norm.weight.shape, norm.variance_epsilon)
                whole.weight = norm.weight
                setattr(parent, name, whole)
    return model.double()
