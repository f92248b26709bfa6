"""Counts from the meta device against models that are really there, and against counting by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from stepcoder.errors import DataError
from stepcoder.model.critic import Critic
from stepcoder.plan.config import PlanConfig
from stepcoder.plan.memory import activations, networks
from stepcoder.plan.shape import NAMED, shape_of

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 384,
}


def config_of(family: str, tied: bool) -> PretrainedConfig:
    if family == "gpt2":
        return GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=384, n_positions=512, tie_word_embeddings=tied)
    cls = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[family]
    return cls(**SIZES, tie_word_embeddings=tied)


@pytest.fixture(params=[(family, tied) for family in ("llama", "qwen2", "gpt2", "mistral") for tied in (True, False)])
def config(request: pytest.FixtureRequest) -> PretrainedConfig:
    return config_of(*request.param)


def test_counts_are_those_of_the_model_itself(config: PretrainedConfig, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == model.num_parameters()
    critic = Critic(model.base_model, shape.hidden)
    assert shape.critic == sum(weight.numel() for weight in critic.parameters())
    assert shape.embedding == 384 * 64 == shape.head
    assert (shape.layers, shape.heads, shape.head_size) == (3, 4, 16)


def test_adapters_are_those_of_peft(config: PretrainedConfig, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters are counted against peft, which is not installed")
    config.save_pretrained(tmp_path)
    settings = PlanConfig(model=str(tmp_path), lora_rank=8)
    policy, critic = networks(shape_of(settings.model), settings)
    model = AutoModelForCausalLM.from_config(config)
    adapters = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trained, all_weights = peft.get_peft_model(model, adapters).get_nb_trainable_parameters()
    assert (policy.trained, policy.weights) == (trained, all_weights)
    assert critic.trained == trained + 64  # the value head has no adapter and learns itself


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gpt2"])
def test_activations_are_what_autograd_keeps(family: str, precision: str, tmp_path: Path) -> None:
    """Storages that a forward pass saves, without weights, by autograd's hooks: the difference of two layers."""

    def saved(layers: int) -> int:
        config = config_of(family, True)
        config.num_hidden_layers = layers
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, 0.0)
        model = AutoModelForCausalLM.from_config(
            config, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        )
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # The result is held: what is freed could give its address to another storage.
            result = model.base_model(input_ids=torch.arange(tokens).unsqueeze(0), use_cache=False)
        assert result.last_hidden_state.requires_grad
        return sum(storage.nbytes() for storage in storages.values())

    tokens = 256
    config_of(family, True).save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    settings = PlanConfig(model="", precision=precision, gradient_checkpointing=False)
    measured, formula = (saved(3) - saved(1)) / 2, activations(shape, tokens, settings) / shape.layers
    # An MLP without a gate is an upper bound; see `activations`.
    assert 0.98 * measured <= formula <= (1.02 if family != "gpt2" else 1.2) * measured


def test_parameters_of_deepseek_coder_by_hand() -> None:
    """32 layers of four 4096² and three 4096 × 11008, two norms; embedding and head of 32256 rows; a norm."""
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    shape = shape_of("llama-6.7b")
    assert shape.parameters == 32 * layer + 2 * 32256 * 4096 + 4096 == 6_740_512_768
    assert shape.critic == 32 * layer + 32256 * 4096 + 4096 + 4096
    assert shape.body == 32 * layer + 4096
    # Four projections of 4096 + 4096, three of 4096 + 11008.
    assert shape.linear_width == 32 * (4 * 8192 + 3 * 15104)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-1b", 1.24), ("llama-1.3b", 1.35), ("llama-8b", 8.03), ("llama-33b", 33.3)],
)
def test_named_shapes_have_the_published_sizes(name: str, billions: float) -> None:
    assert shape_of(name).parameters / 1e9 == pytest.approx(billions, rel=5e-3)
    assert name in NAMED


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        shape_of(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"lacks a model configuration \(config.json\)"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="neither a folder nor a Hugging Face id"):
        shape_of(str(tmp_path))


LLAMA = {**SIZES, "model_type": "llama"}
MAMBA = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 384}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (MAMBA, r"MambaConfig.*num_attention_heads$"),
        ({**LLAMA, "num_hidden_layers": 0}, r"LlamaConfig.*num_hidden_layers$"),
        ({**LLAMA, "num_hidden_layers": -1, "vocab_size": 0}, r"num_hidden_layers, vocab_size$"),
        ({**LLAMA, "hidden_size": 0}, r"hidden_size$"),
        ({**LLAMA, "hidden_size": "64"}, r"'hidden_size'"),
        ({**LLAMA, "num_attention_heads": 0}, r"config.json can be read"),
        ({**LLAMA, "intermediate_size": -1}, r"no causal language model can be built"),
    ],
)
def test_a_configuration_without_a_size_that_a_plan_needs_is_refused_by_name(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=told) as error:
        shape_of(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}: ")
