"""LoRA: what is frozen stays, the model without its adapters is the reference, and stages go on where they ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stepcoder.errors import DataError
from stepcoder.model import adapters
from stepcoder.model.batch import pack
from stepcoder.model.critic import load_critic, save_critic
from stepcoder.model.load import load_policy, load_tokenizer, save_policy
from stepcoder.model.policy import Policy
from stepcoder.platform import engine
from stepcoder.ppo import train as train_ppo
from stepcoder.sft import SftConfig
from stepcoder.sft import train as train_sft
from tests.training.architectures import made
from tests.training.trainings import SMALL, lines, ppo_config

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"lora_rank": 3, "lora_alpha": 6, "validation_problems": 0}
SEQUENCE = pack([([5, 6, 7], [[8, 9, 10, 1], [2], [6, 7]]), ([9], [[4, 4]])], CPU)


@pytest.fixture(autouse=True)
def _own_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


def log_probs(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = Policy(model)(SEQUENCE, 0.8)[0]
    return found


def adapted(folder: Path, base: Path) -> Any:
    """The base with the adapters of a policy's folder beside it, not merged."""
    model = load_policy(str(base))
    adapters.load(model, folder / adapters.FOLDER, LORA["lora_rank"], LORA["lora_alpha"])
    return model


def frozen(model: Any) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.named_parameters() if "lora_" not in name}


def steps_of(model: Any, count: int, stage: int = 0) -> None:
    """A few optimiser steps that make some sequence more likely."""
    engine.start()
    running = engine.Engine(
        Policy(model), learning_rate=0.05, schedule=lambda _: 1.0, epsilon=1e-8, zero_stage=stage, precision="fp32",
        max_gradient_norm=1.0,
    )  # fmt: skip
    for _ in range(count):
        running.step([lambda: -running(SEQUENCE, 0.8)[0].sum()])


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_only_adapters_learn_and_the_model_without_them_is_the_first_one_bit_by_bit(name: str, stage: int) -> None:
    model = made(name)
    before, reference = frozen(model), log_probs(made(name))
    adapters.add(model, 3, 6, seed=1)
    torch.testing.assert_close(log_probs(model), reference, rtol=0, atol=1e-5)  # They change nothing as yet.
    steps_of(model, 3, stage)
    assert (log_probs(model) - reference).abs().max() > 0.1
    with adapters.off(model):
        assert torch.equal(log_probs(model), reference)
    assert (log_probs(model) - reference).abs().max() > 0.1  # They are on again, and still learn.
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name] == []
    assert any(weight.requires_grad for weight in model.parameters())
    for key, weight in frozen(model).items():
        assert torch.equal(weight, before[key.replace(".base_layer", "")]), key


def test_the_merged_checkpoint_has_the_log_probs_of_the_adapted_model(base_model: Path, tmp_path: Path) -> None:
    model, tokenizer = load_policy(str(base_model)), load_tokenizer(str(base_model))
    adapters.add(model, 3, 6, seed=1)
    steps_of(model, 3)
    save_policy(model, tokenizer, tmp_path / "policy", {}, adapter_base=str(base_model))
    expected = log_probs(model)
    torch.testing.assert_close(log_probs(load_policy(str(tmp_path / "policy"))), expected, rtol=0, atol=1e-4)
    assert torch.equal(log_probs(adapted(tmp_path / "policy", base_model)), expected)
    base, merged = (load_file(place / "model.safetensors") for place in (base_model, tmp_path / "policy"))
    assert base.keys() == merged.keys()  # A plain checkpoint.
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if name.endswith("proj.weight")}


def test_a_critics_head_learns_beside_its_adapters_and_both_are_saved(base_model: Path, tmp_path: Path) -> None:
    critic = load_critic(str(base_model))
    adapters.add(critic.backbone, 3, 6, seed=1)
    engine.start()
    running = engine.Engine(
        critic, learning_rate=0.05, schedule=lambda _: 1.0, epsilon=1e-8, zero_stage=0, precision="fp32",
        max_gradient_norm=1.0,
    )  # fmt: skip
    before = frozen(critic)
    for _ in range(2):
        running.step([lambda: (running(SEQUENCE) - 1).square().sum()])
    changed = [name for name, weight in frozen(critic).items() if not torch.equal(weight, before[name])]
    assert changed == ["value_head.weight"]
    assert all(weight.abs().sum() > 0 for name, weight in critic.named_parameters() if "lora_B" in name)
    save_critic(critic, load_tokenizer(str(base_model)), tmp_path / "critic", {}, adapter_base=str(base_model))
    with torch.no_grad():
        expected, merged = critic(SEQUENCE), load_critic(str(tmp_path / "critic"))(SEQUENCE)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4)


def test_two_stages_go_on_with_the_same_adapters_beside_the_same_weights(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    one = ppo_config(dataset, policy, tmp_path / "one", stages=2, steps=2, **LORA)
    train_ppo(one)
    first = lines(tmp_path / "one" / "policy" / "metrics.jsonl")
    assert abs(next(line["kl"] for line in first if "kl" in line)) < 1e-6
    assert all(line["ratio_deviation"] < 1e-4 for line in first if "kl" in line)
    stage_one = tmp_path / "one" / "policy"
    expected = log_probs(adapted(stage_one, policy))
    torch.testing.assert_close(log_probs(load_policy(str(stage_one))), expected, rtol=0, atol=1e-3)

    # Stage 2 with a learning rate of nearly nothing is stage 1's policy, and the KL is still that from the SFT policy.
    places = {"critic": str(tmp_path / "one" / "critic"), "curriculum": str(tmp_path / "one" / "curriculum")}
    two = ppo_config(
        dataset, stage_one, tmp_path / "two", stage=2, stages=2, steps=1, learning_rate=1e-12, **places, **LORA
    )
    train_ppo(two.model_copy(update={"reference": str(policy)}))
    before, after = (
        load_file(tmp_path / n / "policy" / "adapter" / "adapter_model.safetensors") for n in ("one", "two")
    )
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-9)
    (told,) = (line for line in lines(tmp_path / "two" / "policy" / "metrics.jsonl") if "kl" in line)
    assert told["kl_k3"] > 1e-6
    assert told["ratio_deviation"] < 1e-4

    other = ppo_config(dataset, policy, tmp_path / "three", **LORA)
    card = json.loads((stage_one / "stepcoder.json").read_text())
    for settings in (
        {"reference": str(stage_one), "policy": str(policy)},
        {"policy": str(tmp_path / "two" / "policy")},
    ):
        if settings["policy"] != str(policy):  # Adapters that were trained on another model.
            (tmp_path / "two" / "policy" / "stepcoder.json").write_text(json.dumps({**card, "adapter_base": "?"}))
        with pytest.raises(DataError, match=r"policy=.*it has to be the reference, or a policy with adapters"):
            train_ppo(other.model_copy(update=settings))


def test_sft_with_adapters_lowers_the_loss_and_leaves_the_base_as_it_was(
    dataset: Path, base_model: Path, tmp_path: Path
) -> None:
    before = load_file(base_model / "model.safetensors")
    settings = {**SMALL, **LORA, "epochs": 6, "learning_rate": 2e-2, "batch_size": 4}
    train_sft(SftConfig(dataset=str(dataset), base_model=str(base_model), out=str(tmp_path / "sft"), **settings))
    losses = [line["loss"] for line in lines(tmp_path / "sft" / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    after = load_file(tmp_path / "sft" / "model.safetensors")
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    merged, beside = load_policy(str(tmp_path / "sft")), adapted(tmp_path / "sft", base_model)
    torch.testing.assert_close(log_probs(merged), log_probs(beside), rtol=0, atol=1e-3)


def test_adapters_that_do_not_fit_are_named(base_model: Path, tmp_path: Path) -> None:
    model = load_policy(str(base_model))
    adapters.add(model, 3, 6, seed=1)
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for folder in (tmp_path / "adapter", tmp_path / "nothing"):
        with pytest.raises(DataError, match=rf"{folder}: these adapters cannot be used"):
            adapters.load(load_policy(str(base_model)), folder, 3, 6)


def test_adapters_of_another_rank_than_the_settings_are_refused(base_model: Path, tmp_path: Path) -> None:
    model = load_policy(str(base_model))
    adapters.add(model, 3, 6, seed=1)
    model.save_pretrained(tmp_path)
    adapters.load(load_policy(str(base_model)), tmp_path, 3, 6)
    for rank, alpha in ((4, 6), (3, 8)):
        with pytest.raises(DataError, match=rf"lora_rank=3 and lora_alpha=6, and the settings {rank} and {alpha}"):
            adapters.load(load_policy(str(base_model)), tmp_path, rank, alpha)


def test_adapters_begin_alike_for_the_same_seed_and_leave_other_draws_alone() -> None:
    found: list[Sequence[Tensor]] = []
    for seed in (1, 1, 2):
        model = made("llama")
        state = torch.get_rng_state()
        adapters.add(model, 3, 6, seed)
        assert torch.equal(state, torch.get_rng_state())
        found.append([weight for name, weight in model.named_parameters() if "lora_A" in name])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))
