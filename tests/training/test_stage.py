"""One PPO stage as a whole: what learns when, which state travels, and what a step tells of itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from stepcoder import curriculum as cccs
from stepcoder.errors import StepCoderError
from stepcoder.model.batch import pack
from stepcoder.model.critic import load_critic
from stepcoder.model.load import load_policy
from stepcoder.ppo import run
from stepcoder.ppo import train as train_ppo
from stepcoder.problems import dump_problems, load_problems
from tests.training.trainings import lines, ppo_config, without_times

QUICK: dict[str, Any] = {"validation_problems": 0, "problems_per_step": 3, "samples_per_problem": 2}


@pytest.fixture(autouse=True)
def _own_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("STEPCODER_RUN_ID", raising=False)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder / "policy" / "metrics.jsonl") if "kl" in line]


def same(one: Path, two: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_critic_learns_for_exactly_the_warm_up_and_only_with_a_new_critic(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    for count in (2, 3):
        out = tmp_path / str(count)
        train_ppo(ppo_config(dataset, policy, out, steps=count, critic_warmup_steps=2, **QUICK))
        assert same(policy, out / "policy") == (count == 2)  # Bit by bit.
        assert load_file(out / "critic" / "value_head.safetensors")["weight"].abs().sum() > 0
        told = steps_of(out)
        assert [step["gradient_norm"] > 0 for step in told] == [False, False, True][:count]
        assert all(step["critic_gradient_norm"] > 0 for step in told)
        assert all(abs(step["kl"]) < 1e-6 for step in told)  # Until then the policy is the reference.
    # The policy's schedule has not begun either: one step of warm-up, then the root of the steps.
    assert [step["learning_rate"] for step in steps_of(tmp_path / "3")][:2] == [1e-3, 1e-3]
    critic = str(tmp_path / "2" / "critic")
    train_ppo(ppo_config(dataset, policy, tmp_path / "next", steps=1, critic_warmup_steps=2, critic=critic, **QUICK))
    assert not same(policy, tmp_path / "next" / "policy")


def test_the_adaptive_kl_weight_follows_its_formula_and_goes_on_in_the_next_stage(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    adaptive = {"kl_target": 0.001, "kl_horizon": 20, **QUICK}
    train_ppo(ppo_config(dataset, policy, tmp_path / "one", steps=3, stages=2, **adaptive))
    beta, samples = 0.05, 6
    for step in steps_of(tmp_path / "one"):
        assert step["kl_beta"] == pytest.approx(beta, rel=1e-12)
        beta *= 1 + max(-0.2, min(0.2, step["kl"] / 0.001 - 1)) * samples / 20
    assert beta != 0.05
    critic = tmp_path / "one" / "critic"
    assert json.loads((critic / "stepcoder.json").read_text())["kl_beta"] == pytest.approx(beta, rel=1e-12)
    for name, more, expected in (("two", adaptive, beta), ("fixed", QUICK, 0.05)):
        config = ppo_config(dataset, policy, tmp_path / name, steps=1, stage=2, stages=2, critic=str(critic), **more)
        train_ppo(config)
        assert steps_of(tmp_path / name)[0]["kl_beta"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "more",
    [
        {"kl_target": 0.001, "kl_horizon": 20, "scale_rewards": True, "ppo_epochs": 2},
        {"lora_rank": 3, "lora_alpha": 6, "learning_rate": 1e-2},
        {"critic_warmup_steps": 3},
    ],
    ids=["adaptive KL and scaled rewards", "adapters", "critic warm-up"],
)
def test_a_stage_that_fell_over_goes_on_as_if_it_had_not(
    more: dict[str, Any], dataset: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> Any:
        places = {"checkpoints": str(tmp_path / f"{name}-checkpoints")}
        return ppo_config(dataset, policy, tmp_path / name, steps=4, **places, **{**QUICK, **more})

    # Rewards that differ, whatever so small a model writes; the n-th sample of the stage gets the n-th.
    samples = QUICK["problems_per_step"] * QUICK["samples_per_problem"]
    rewards: Iterator[float] = iter(())

    def deal(first: int) -> None:
        nonlocal rewards
        rewards = iter([[1.0, -0.3, -0.6, -1.0][n * n % 7 % 4] for n in range(first, 4 * samples)])

    monkeypatch.setattr(run, "reward", lambda outcome: next(rewards))
    deal(0)
    train_ppo(config("whole"))
    update, calls = run.update, 0

    def failing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StepCoderError("the machine fell over")
        return update(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run, "update", failing)
        deal(0)
        with pytest.raises(StepCoderError, match="fell over"):
            train_ppo(config("broken"))
    assert not (tmp_path / "broken" / "policy").exists()
    deal(2 * samples)  # Two steps have a checkpoint.
    train_ppo(config("broken"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    curves = [without_times(lines(place / "policy" / "metrics.jsonl")) for place in (whole, broken)]
    assert curves[0] == curves[1]
    files = [file.relative_to(whole) for file in whole.rglob("*.safetensors")]
    assert len(files) >= 3
    levels = cccs.load(whole / "curriculum" / "curriculum.json").values()
    assert len({(now.level, now.pass_rate) for now in levels}) > 2  # Something that a lost curriculum would change.
    for file in (*files, Path("curriculum") / "curriculum.json"):
        assert (whole / file).read_bytes() == (broken / file).read_bytes(), file


def test_a_step_hands_on_what_it_has_sampled_judged_and_set(
    dataset: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of six samples a step the judge fails on the last; the others get rewards of their own.
    dealt = iter([1.0, -1.0, -0.6, -0.3, 1.0, None] * 2)
    monkeypatch.setattr(run, "reward", lambda outcome: next(dealt))
    assembled: list[tuple[Any, ...]] = []
    kinds: set[Any] = set()
    assemble, opened_code = run.assemble, cccs.opened_code

    def spy(samples: Any, rewards: Any, scores: Any, table: Any, config: Any, *, beta: float) -> Any:
        experience = assemble(samples, rewards, scores, table, config, beta=beta)
        assembled.append((samples, rewards, scores, beta, experience))
        return experience

    def opened(problem: Any, level: int, conditional_kinds: Any) -> str:
        kinds.add(conditional_kinds)
        return opened_code(problem, level, conditional_kinds)

    monkeypatch.setattr(run, "assemble", spy)
    monkeypatch.setattr(run.cccs, "opened_code", opened)
    more = {"scale_rewards": True, "kl_target": 0.001, "kl_horizon": 20, "conditional_kinds": ["if", "while"]}
    config = ppo_config(dataset, policy, tmp_path, steps=2, **more, **QUICK)
    train_ppo(config)
    seen: list[float] = []
    for (samples, rewards, scores, beta, experience), told in zip(assembled, steps_of(tmp_path), strict=True):
        raw = [1.0, -1.0, -0.6, -0.3, 1.0]
        seen += raw
        assert told["reward"] == pytest.approx(sum(raw) / 5)
        assert told["pass_rate"] == pytest.approx(0.4)
        assert told["left_out_samples"] == 1
        assert list(rewards) == pytest.approx([value / np.std(seen) for value in raw])
        assert told["kl_beta"] == beta
        for index, (sample, own) in enumerate(zip(samples, scores, strict=True)):
            kept = experience.response_mask[index]
            assert experience.behaviour_log_probs[index][kept].tolist() == pytest.approx(sample.log_probs)
            assert torch.equal(experience.log_probs[index][kept], own.log_probs)
    assert assembled[0][3] != assembled[1][3]  # The weight adapts.
    assert kinds == {config.conditional_kinds}


def test_each_step_samples_anew(dataset: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One problem, asked in each step, of a policy that does not change meanwhile.
    one = tmp_path / "dataset"
    shutil.copytree(dataset, one)
    dump_problems(load_problems(dataset / "train.jsonl")[:1], one / "train.jsonl")
    drawn: list[Any] = []
    assemble = run.assemble

    def spy(samples: Any, *args: Any, **kwargs: Any) -> Any:
        drawn.append([sample.response_ids for sample in samples])
        return assemble(samples, *args, **kwargs)

    monkeypatch.setattr(run, "assemble", spy)
    train_ppo(ppo_config(one, policy, tmp_path, steps=3, critic_warmup_steps=3, **QUICK))
    assert len(drawn) == 3
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    # Where the policy takes no step there is no ratio to tell.
    assert all("ratio_deviation" not in step for step in steps_of(tmp_path))


def test_a_step_tells_that_sampling_and_training_agree_and_what_it_did(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    train_ppo(ppo_config(dataset, policy, tmp_path, steps=2, ppo_epochs=2, **QUICK))
    for step in steps_of(tmp_path):
        assert 0 <= step["sampling_mismatch"] <= step["sampling_mismatch_max"] < 1e-4
        assert step["ratio_deviation"] < 1e-4
        assert step["entropy"] > 0
        assert step["explained_variance"] <= 1
        assert step["kl_k2"] >= 0 <= step["kl_k3"] + 1e-9
        assert step["skipped_updates"] == 0


@pytest.mark.parametrize("more", [{"when_nothing_ran": "skip", "mask_keeps_tail": False, "mask_value_loss": True}])
def test_a_step_in_which_nothing_may_be_learnt_by_the_policy_still_ends(
    more: dict[str, Any], dataset: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if no program had compiled.
    monkeypatch.setattr("stepcoder.ppo.experience.executed_bytes", lambda program, _: bytearray(len(program)))
    train_ppo(ppo_config(dataset, policy, tmp_path, steps=2, **more, **QUICK))
    assert same(policy, tmp_path / "policy")
    for step in steps_of(tmp_path):
        assert step["executed_fraction"] == step["policy_loss"] == step["gradient_norm"] == 0
        assert step["critic_gradient_norm"] > 0


def test_a_critics_dropout_is_off_in_training_too(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    critic = load_critic(str(tmp_path)).train()
    torch.nn.init.normal_(critic.value_head.weight)
    packed = pack([([1, 2], [[3, 4, 5]])], torch.device("cpu"))
    torch.testing.assert_close(critic(packed), critic(packed), rtol=0, atol=0)
    model = load_policy(str(tmp_path)).train()
    ids = torch.arange(5).unsqueeze(0)
    torch.testing.assert_close(model(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
