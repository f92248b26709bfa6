"""Loading, generating and saving: what other people's models bring along, and what must not leak into training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerBase

from stepcoder.errors import StepCoderError
from stepcoder.model.critic import load_critic, save_critic
from stepcoder.model.load import load_policy, save_policy
from stepcoder.model.policy import Policy
from stepcoder.platform import engine


def trained(network: nn.Module, **settings: Any) -> engine.Engine:
    engine.start()
    usual: dict[str, Any] = {"zero_stage": 0, "precision": "fp32", "max_gradient_norm": 1.0, "learning_rate": 1e-3}
    return engine.Engine(network, schedule=lambda _: 1.0, epsilon=1e-8, **{**usual, **settings})


@pytest.mark.parametrize("stage", [0, 3])
def test_weights_are_saved_whole_under_every_zero_stage(
    stage: int, base_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    policy, critic = Policy(load_policy(str(base_model))), load_critic(str(base_model))
    engines = trained(policy, zero_stage=stage), trained(critic, zero_stage=stage)
    assert len(engines) == 2
    save_policy(policy.language_model, tokenizer, tmp_path / "policy", {})
    save_critic(critic, tokenizer, tmp_path / "critic", {})
    before = load_file(base_model / "model.safetensors")
    for name, weight in load_file(tmp_path / "policy" / "model.safetensors").items():
        torch.testing.assert_close(weight, before[name])
    for name, weight in load_file(tmp_path / "critic" / "model.safetensors").items():
        torch.testing.assert_close(weight, before[f"model.{name}"])
    assert load_file(tmp_path / "critic" / "value_head.safetensors")["weight"].shape == (1, 32)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_gradient_that_is_no_number_stops_training(stage: int) -> None:
    network = nn.Linear(4, 1, bias=False)
    running = trained(network, zero_stage=stage)
    assert running.step([lambda: running(torch.ones(1, 4)).sum()]) == pytest.approx(2.0)
    with pytest.raises(StepCoderError, match=r"diverged.*learning rate"):
        running.step([lambda: running(torch.ones(1, 4)).sum() * float("nan")])


def test_dropout_is_off_in_training_wherever_a_model_keeps_it(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, ffn_dim=16, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64, dropout=0.5, attention_dropout=0.5, layerdrop=0.5,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    model = load_policy(str(tmp_path)).train()
    ids = torch.arange(5).unsqueeze(0)
    torch.testing.assert_close(model(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
