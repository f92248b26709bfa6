"""SFT and PPO on real problems with a tiny model: they learn, they mask, they resume bit by bit."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stepcoder import curriculum as cccs
from stepcoder.errors import DataError
from stepcoder.ppo import PpoConfig
from stepcoder.ppo import train as train_ppo
from stepcoder.ppo.artifacts import identity
from stepcoder.problems import dump_problems, load_problems
from stepcoder.sft import SftConfig
from stepcoder.sft import train as train_sft
from stepcoder.validation import open_dataset
from tests.training.trainings import SMALL, lines, ppo_config, wait_for, without_times


@pytest.fixture(autouse=True)
def _own_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # Nobody listens: training goes on without MLflow.
    monkeypatch.delenv("STEPCODER_RUN_ID", raising=False)


def test_sft_lowers_the_loss_and_writes_where_the_policy_comes_from(policy: Path, base_model: Path) -> None:
    losses = [line["loss"] for line in lines(policy / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert all(line["gradient_norm"] > 0 for line in lines(policy / "metrics.jsonl") if "loss" in line)
    summary = json.loads((policy / "summary.json").read_text())
    assert summary["validation"]["after"]["problems"] == 4
    card = json.loads((policy / "stepcoder.json").read_text())
    assert card["parents"] == [str(base_model)]
    assert card["config"]["epochs"] == 10


def test_a_stage_trains_policy_and_critic_and_hands_its_curriculum_on(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    train_ppo(ppo_config(dataset, policy, tmp_path / "one", stages=2))
    before, after = (load_file(folder / "model.safetensors") for folder in (policy, tmp_path / "one" / "policy"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    head = load_file(tmp_path / "one" / "critic" / "value_head.safetensors")["weight"]
    assert head.abs().sum() > 0
    levels = json.loads((tmp_path / "one" / "curriculum" / "curriculum.json").read_text())
    assert max(row["level"] for row in levels.values()) > 0

    config = ppo_config(
        dataset,
        tmp_path / "one" / "policy",
        tmp_path / "two",
        stage=2,
        stages=2,
        critic=str(tmp_path / "one" / "critic"),
        curriculum=str(tmp_path / "one" / "curriculum"),
    )
    train_ppo(config.model_copy(update={"reference": str(policy)}))
    last = json.loads((tmp_path / "two" / "curriculum" / "curriculum.json").read_text())
    assert {row["level"] for row in last.values()} == {0}  # The last stage is from scratch for all.
    summaries = [json.loads((tmp_path / name / "policy" / "summary.json").read_text()) for name in ("one", "two")]
    assert summaries[1]["validation"]["before"] == summaries[0]["validation"]["after"]


def test_the_first_mini_batch_has_ratio_one_and_unexecuted_code_is_masked(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    train_ppo(ppo_config(dataset, policy, tmp_path, steps=2))
    steps = [line for line in lines(tmp_path / "policy" / "metrics.jsonl") if "reward" in line]
    assert len(steps) == 2
    assert all(line["ratio_deviation"] < 1e-4 for line in steps)
    assert all(0 < line["executed_fraction"] <= 1 for line in steps)
    assert all(-1 <= line["reward"] <= 1 for line in steps)
    # At the first step the policy is the reference.
    assert abs(steps[0]["kl"]) < 1e-5


def test_the_split_into_micro_batches_does_not_change_the_result(dataset: Path, policy: Path, tmp_path: Path) -> None:
    split, whole = (tmp_path / str(budget) for budget in (600, 100_000))
    for out in (split, whole):
        train_ppo(ppo_config(dataset, policy, out, steps=1, micro_batch_tokens=int(out.name)))
    expected = load_file(whole / "policy" / "model.safetensors")
    for name, weight in load_file(split / "policy" / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=2e-5)


def test_a_checkpoint_belongs_to_the_content_of_its_inputs_and_not_to_where_they_lie(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    shutil.copytree(policy, tmp_path / "moved")
    for name, level in (("a", 1), ("b", 1), ("c", 0)):
        (tmp_path / name).mkdir()
        cccs.save({"p": cccs.Progress(level)}, tmp_path / name / "curriculum.json")

    def of(policy: Path, curriculum: str, **more: Any) -> dict[str, Any]:
        config = ppo_config(dataset, policy, tmp_path / curriculum, curriculum=str(tmp_path / curriculum), **more)
        return identity(config, open_dataset(str(dataset)))

    first = of(policy, "a")
    assert of(tmp_path / "moved", "b") == first
    assert of(policy, "c") != first
    assert of(policy, "a", temperature=0.7) != first
    # What changes a training by rounding at most: a run that ran out of memory goes on with less at a time.
    assert of(policy, "a", micro_batch_tokens=99, gradient_checkpointing=True, checkpoint_every=7) == first


@pytest.mark.slow
@pytest.mark.parametrize("step", ["sft", "ppo"])
def test_a_killed_run_started_again_gives_the_same_parameters_bit_by_bit(
    step: str, dataset: Path, base_model: Path, policy: Path, tmp_path: Path
) -> None:
    def command(name: str) -> list[str]:
        out = tmp_path / name
        if step == "ppo":
            config: Any = ppo_config(dataset, policy, out, checkpoints=str(tmp_path / f"{name}-checkpoints"), steps=6)
        else:
            config = SftConfig(
                dataset=str(dataset),
                base_model=str(base_model),
                out=str(out / "policy"),
                checkpoints=str(tmp_path / f"{name}-checkpoints"),
                **{**SMALL, "epochs": 6, "learning_rate": 5e-3, "batch_size": 4, "checkpoint_every": 4},
            )
        flags = [
            f"--{key.replace('_', '-')}={value}"
            for key, value in config.model_dump(mode="json", exclude={"conditional_kinds"}).items()
            if value is not None
        ]
        return [sys.executable, "-m", "stepcoder.cli", step, *flags]

    subprocess.run(command("whole"), check=True, capture_output=True, timeout=200)
    # Killed while a checkpoint is being written, and at two moments of a later step.
    folder = tmp_path / "killed-checkpoints"
    moments = ((False, 0.0), (True, 0.05), (True, 0.25)) if step == "ppo" else ((True, 0.0),)
    for later, delay in moments:
        whole = newest(folder)
        killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if later:
            wait_for(lambda whole=whole: newest(folder) > whole, 0.01)
        else:
            wait_for(lambda: any(path.is_file() for path in folder.rglob("*")), 0.001)
        time.sleep(delay)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert not (tmp_path / "killed" / "policy").exists()

    again = subprocess.run(command("killed"), check=True, capture_output=True, text=True, timeout=200)
    assert "resumed" in again.stderr
    names = ["policy/model.safetensors"]
    if step == "ppo":
        names += ["critic/model.safetensors", "critic/value_head.safetensors", "curriculum/curriculum.json"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    curves = [without_times(lines(tmp_path / run / "policy" / "metrics.jsonl")) for run in ("whole", "killed")]
    assert curves[0] == curves[1]


def newest(checkpoints: Path) -> int:
    """Step of the newest whole checkpoint; 0 if there is none."""
    return max((int(path.parent.name[5:]) for path in checkpoints.glob("*/step-*/complete.json")), default=0)


def test_a_dataset_without_training_problems_is_refused(tmp_path: Path, base_model: Path) -> None:
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(DataError, match=r"train\.jsonl holds no problem"):
        train_sft(SftConfig(dataset=str(tmp_path), base_model=str(base_model), out=str(tmp_path / "out"), **SMALL))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, base_model: Path) -> None:
    with pytest.raises(DataError, match=r"stepcoder verify.*card\.json"):
        train_sft(SftConfig(dataset=str(tmp_path), base_model=str(base_model), out=str(tmp_path / "out"), **SMALL))


def test_a_stage_above_the_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 4 of 3"):
        ppo_config(Path("d"), Path("p"), Path("o"), stage=4, stages=3)


def test_settings_with_which_an_adaptive_kl_weight_would_become_0_for_good_are_refused() -> None:
    def config(**more: Any) -> PpoConfig:
        samples = {"problems_per_step": 50, "samples_per_problem": 20}
        return ppo_config(Path("d"), Path("p"), Path("o"), **samples, **more)

    # A step of five horizons with a KL below the target takes 0.2 * 5 of the weight, which is all of it.
    for kl_horizon in (1, 199, 200):
        with pytest.raises(ValueError, match=r"kl_horizon.*more than 200"):
            config(kl_target=0.1, kl_horizon=kl_horizon)
        config(kl_horizon=kl_horizon)
    config(kl_target=0.1, kl_horizon=201)
    with pytest.raises(ValueError, match="kl_beta"):
        config(kl_target=0.1, kl_beta=0)
    config(kl_beta=0)


def test_a_problem_that_does_not_fit_is_left_out_and_ends_no_training(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    shutil.copytree(dataset, few)
    first, second = load_problems(dataset / "train.jsonl")[:2]
    starter = first.starter + "    # a long hint\n" * 200
    dump_problems([first.model_copy(update={"starter": starter}), second], few / "train.jsonl")
    # More problems a step than there are, and then one a step: a step without any problem is passed over.
    for wanted, left_out in ((8, {1}), (1, {0, 1})):
        out = tmp_path / str(wanted)
        more = {"use_curriculum": False, "problems_per_step": wanted, "steps": 2, "samples_per_problem": 1}
        train_ppo(ppo_config(few, policy, out, **more, checkpoints=str(out / "checkpoints"), validation_problems=0))
        steps = [line for line in lines(out / "policy" / "metrics.jsonl") if "left_out_prompts" in line]
        assert {line["left_out_prompts"] for line in steps} == left_out
        assert len(steps) == 2

    with pytest.raises(DataError, match=r"no training problem fits max_prompt_tokens=30"):
        train_ppo(ppo_config(few, policy, tmp_path / "none", max_prompt_tokens=30))


def test_an_output_inside_another_is_refused_because_it_would_be_lost(
    dataset: Path, policy: Path, tmp_path: Path
) -> None:
    config = ppo_config(dataset, policy, tmp_path)
    for place in ("policy", "policy/critic", "policy/", "other/../policy"):
        with pytest.raises(DataError, match=r"out_critic=.*lies in out="):
            train_ppo(config.model_copy(update={"out_critic": str(tmp_path / place)}))


def test_an_output_that_would_replace_an_input_or_the_checkpoints_is_refused(
    base_model: Path, dataset: Path, policy: Path, tmp_path: Path
) -> None:
    config = ppo_config(dataset, policy, tmp_path)
    for name in ("policy", "reference", "dataset", "checkpoints"):
        with pytest.raises(DataError, match=rf"{name}=.*lies in out="):
            train_ppo(config.model_copy(update={name: f"{config.out}/inside", "out_critic": "s3://bucket/critic"}))
    with pytest.raises(DataError, match=r"dataset=s3://bucket/one lies in out_critic=s3://bucket/one"):
        train_ppo(config.model_copy(update={"out_critic": "s3://bucket/one", "dataset": "s3://bucket/one/"}))
    with pytest.raises(DataError, match=r"base_model=.*lies in out="):
        train_sft(SftConfig(dataset=str(dataset), base_model=str(base_model), out=str(base_model)))
    new = str(tmp_path / "new")
    with pytest.raises(DataError, match=r"checkpoints=.*lies in out="):
        train_sft(
            SftConfig(dataset=str(dataset), base_model=str(base_model), out=new, checkpoints=f"{new}/checkpoints")
        )


def test_log_probs_of_the_sampling_train_as_recomputed_ones_do(dataset: Path, policy: Path, tmp_path: Path) -> None:
    for choice in ("recomputed", "sampled"):
        train_ppo(ppo_config(dataset, policy, tmp_path / choice, steps=2, old_log_probs=choice))
    recomputed, sampled = (
        load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("recomputed", "sampled")
    )
    for name, weight in recomputed.items():
        torch.testing.assert_close(sampled[name], weight, rtol=1e-3, atol=2e-5)
    for line in lines(tmp_path / "sampled" / "policy" / "metrics.jsonl"):
        assert line.get("ratio_deviation", 0) < 1e-4
        assert "sampling_mismatch" not in line  # They would be compared with themselves.
