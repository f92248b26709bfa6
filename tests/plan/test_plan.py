"""Memory by hand for the 6.7B shape, directions of every setting, and what the command prints and refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from stepcoder import cli
from stepcoder.errors import DataError
from stepcoder.model.batch import units
from stepcoder.plan import PlanConfig, estimate
from stepcoder.plan.devices import DEVICES, GIB
from stepcoder.plan.memory import BUCKET
from stepcoder.plan.shape import Shape, shape_of
from stepcoder.plan.step import refusal
from stepcoder.ppo.config import PpoConfig

POLICY, CRITIC = 6_740_512_768, 6_608_392_192 + 4096
"""Parameters of the 6.7B shape, by hand in test_shape.py; the critic has no head of 32256 × 4096 but one of 4096."""


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of("llama-6.7b")


def plan(shape: Shape, **settings: Any) -> Any:
    return estimate(PlanConfig(model="llama-6.7b", **{"gpu": "h100", **settings}), shape)


def states(result: Any, network: str) -> int:
    """Bytes of weights, master weights and moments."""
    names = ("weights", "master weights", "Adam moments")
    return sum(result.memory.resident.get(f"{network}: {name}", 0) for name in names)


def test_every_setting_of_ppo_has_its_name_and_default() -> None:
    own = {"model", "phase", "output", "gpu", "gpu_memory_gib", "gpu_tflops", "gpu_bandwidth", "link_bandwidth"}
    # A plan is for a machine that may not be this one: its GPUs are counted by whoever asks.
    own |= {"mean_prompt_tokens", "mean_response_tokens", "batch_size", "nproc_per_node"}
    for name, field in PlanConfig.model_fields.items():
        if name not in own:
            assert field.default == PpoConfig.model_fields[name].default, name


@pytest.mark.parametrize(
    ("stage", "gpus", "bytes_a_weight"),
    [
        (0, 8, 2 + 12 / 8),  # bf16 weights, fp32 master and two moments: in bf16 the engine uses stage 2 at least
        (1, 8, 2 + 12 / 8),
        (2, 8, 2 + 12 / 8),
        (3, 8, 14 / 8),
        (2, 1, 14),
    ],
)
def test_model_states_in_bf16(shape: Shape, stage: int, gpus: int, bytes_a_weight: float) -> None:
    result = plan(shape, zero_stage=stage, nproc_per_node=gpus)
    assert states(result, "policy") == pytest.approx(bytes_a_weight * POLICY, rel=1e-6)
    assert states(result, "critic") == pytest.approx(bytes_a_weight * CRITIC, rel=1e-6)
    assert result.memory.resident["reference: weights"] == 2 * POLICY


def test_eighteen_bytes_a_weight_over_all_ranks_of_stage_3(shape: Shape) -> None:
    """2 (weights) + 4 (sums of gradients in fp32) + 12 (optimiser): 15.17 GB a rank of 8."""
    result = plan(shape, zero_stage=3, nproc_per_node=8)
    whole = states(result, "policy") + result.memory.resident["policy: gradients"]
    assert whole == pytest.approx(18 * POLICY / 8, rel=1e-6)
    assert whole / 1e9 == pytest.approx(15.17, abs=0.01)


@pytest.mark.parametrize(
    ("precision", "stage", "gradients", "bucket"),
    [
        ("bf16", 0, 4 * POLICY // 8, 2 * BUCKET),
        ("bf16", 2, 4 * POLICY // 8, 2 * BUCKET),
        ("fp32", 0, 4 * POLICY, 0),
        ("fp32", 1, 4 * POLICY, 4 * BUCKET),
        ("fp32", 2, 8 * POLICY // 8, 4 * BUCKET),  # a micro-batch's own, and their sum
    ],
)
def test_gradients_of_the_stages_below_3(shape: Shape, precision: str, stage: int, gradients: int, bucket: int) -> None:
    phases = plan(shape, zero_stage=stage, precision=precision, nproc_per_node=8).memory.phases
    items = phases["update of the policy"]
    assert items["gradients"] == gradients
    assert items.get("gradient bucket", 0) == bucket
    # In bf16 the sums are what AdamW reads.
    assert ("gradients' copy" in phases["optimiser step"]) == (precision == "fp32")


def test_the_head_by_hand(shape: Shape) -> None:
    """A chunk of 64 MiB, a bf16 tensor of a quarter of it; a weight's gradient in fp32 and its bf16 part."""
    settings = {"micro_batch_tokens": 2048, "gradient_checkpointing": False, "nproc_per_node": 8}
    update = plan(shape, **settings).memory.phases["update of the policy"]
    assert update["LM head's chunk"] == 80 * 2**20
    assert update["LM head's rows"] == 2 * 1024 * 4096 * 2
    assert update["LM head's gradient"] == 6 * 32256 * 4096
    assert "LM head's gradient" not in plan(shape, **settings, lora_rank=8).memory.phases["update of the policy"]


def test_memory_of_shared_prompts_by_hand(shape: Shape) -> None:
    """Units of 1024 + 3 × 1024 tokens, two a micro-batch: 6 responses, each with a copy of its prompt's 1024 keys."""
    settings = {"micro_batch_tokens": 8192, "samples_per_problem": 3, "nproc_per_node": 8}
    copies = 6 * 1024 * 2 * 4096 * 2
    update = plan(shape, **settings, gradient_checkpointing=False).memory.phases["update of the policy"]
    assert update["copies of shared prompts"] == 32 * copies
    assert update["LM head's rows"] == 2 * 6 * 1024 * 4096 * 2
    update = plan(shape, **settings).memory.phases["update of the critic"]
    assert update["copies of shared prompts"] == copies
    alone = plan(shape, **{**settings, "samples_per_problem": 1}).memory.phases["update of the critic"]
    assert "copies of shared prompts" not in alone


def test_the_cache_and_the_whole_policy_of_sampling_by_hand(shape: Shape) -> None:
    items = plan(shape, zero_stage=3, nproc_per_node=8).memory.phases["roll-outs"]
    # 4 prompts and 64 samples of 1024 tokens, 32 layers, keys and values of 4096 numbers of two bytes: 34 GiB.
    assert items["KV cache"] == 68 * 1024 * 32 * 2 * 4096 * 2 == 34 * GIB
    assert items["whole policy"] == 2 * POLICY
    # Ended samples leave layer by layer: what stays of one has new room, and is copied on its way, keys before values.
    # The logits of the step before are still there.
    assert items["a token's step"] == 0.75 * 1.5 * GIB + 64 * 32256 * 2
    assert "whole policy" not in plan(shape, zero_stage=2, nproc_per_node=8).memory.phases["roll-outs"]


def test_a_prompt_s_samples_share_its_prefill(shape: Shape) -> None:
    settings = {"max_new_tokens": 1, "max_prompt_tokens": 4000, "nproc_per_node": 8}
    phases = plan(shape, **settings).memory.phases
    # 64 prompts; a token's gate, up and their product of 11008 numbers, two states.
    assert phases["validation"]["prefill"] == 64 * 4000 * 2 * (3 * 11008 + 2 * 4096)
    # Four prompts of 16 samples of 1,024 tokens need less than the cache that these fill.
    assert "prefill" not in plan(shape, **{**settings, "max_new_tokens": 1024}).memory.phases["roll-outs"]
    assert "validation" not in plan(shape, **settings, validation_problems=0).memory.phases


def test_adapters_leave_one_frozen_copy_and_no_reference(shape: Shape) -> None:
    resident = plan(shape, zero_stage=2, lora_rank=16).memory.resident
    adapters = 16 * 32 * (4 * 8192 + 3 * 15104)
    assert resident["policy: weights"] == 2 * (POLICY + adapters)
    assert resident["policy: Adam moments"] == 8 * adapters
    assert resident["critic: Adam moments"] == 8 * (adapters + 4096)
    assert "reference: weights" not in resident


def test_offload_moves_the_optimiser_to_the_host(shape: Shape) -> None:
    on, off = plan(shape, offload=True, nproc_per_node=8), plan(shape, nproc_per_node=8)
    assert states(on, "policy") == 2 * POLICY
    assert on.memory.host["policy: Adam moments"] == POLICY
    assert not off.memory.host
    # Gradients leave the device by a buffer for the largest weight; stage 3 has none.
    assert on.memory.resident["critic: gradient on its way"] == 2 * 4096 * 32256
    third = plan(shape, offload=True, zero_stage=3, nproc_per_node=8).memory
    assert "policy: weights" in third.host
    assert not [name for name in third.resident if "on its way" in name]
    assert plan(shape, offload=True, zero_stage=0).memory.host
    assert not plan(shape, offload=True, gpu="cpu").memory.host


def test_offload_without_zero_is_planned_as_stage_1(shape: Shape) -> None:
    settings = {"precision": "fp32", "offload": True, "nproc_per_node": 8}
    none, first = (plan(shape, **settings, zero_stage=stage) for stage in (0, 1))
    assert (none.memory, none.speed) == (first.memory, first.speed)
    # Two moments, a master copy, and the gradients, their sums and the new weights that offload keeps in the host.
    assert sum(none.memory.host.values()) == (8 + 4 + 12) * (POLICY + CRITIC) / 8


def test_a_refusal_without_zero_proposes_offload_where_it_fits() -> None:
    result = estimate(PlanConfig(model="llama-1b", precision="fp32", zero_stage=0, sampling_batch=4, gpu="a100-40"))
    assert not result.memory.fits
    assert any(line.startswith("would fit: --offload True: ") for line in refusal(result).splitlines())


def test_updates_do_not_add_up_and_the_largest_phase_counts(shape: Shape) -> None:
    memory = plan(shape, nproc_per_node=8, sampling_batch=1).memory
    assert memory.peak == max(memory.total(phase) for phase in memory.phases)
    assert memory.peak < sum(memory.resident.values()) + sum(
        sum(memory.phases[f"update of the {name}"].values()) for name in ("policy", "critic")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_batch": 32},
        {"zero_stage": 3},
        {"nproc_per_node": 16},
        {"offload": True},
        {"lora_rank": 8},
        {"max_new_tokens": 9},
    ],
)
def test_what_saves_memory_saves_memory(shape: Shape, change: dict[str, Any]) -> None:
    settings = {"nproc_per_node": 8, "zero_stage": 2}
    assert plan(shape, **(settings | change)).memory.peak < plan(shape, **settings).memory.peak


def test_sft_has_one_network_and_no_rollouts_in_its_time(shape: Shape) -> None:
    result = plan(shape, phase="sft", nproc_per_node=8)
    assert not [name for name in result.memory.resident if name.startswith(("critic", "reference"))]
    assert set(result.speed.seconds) == {"update", "optimiser", "communication"}
    assert result.speed.sequences == 64


def test_seconds_by_hand(shape: Shape) -> None:
    """Two problems of one sample on one H100, 10 + 30 tokens."""
    settings = {"problems_per_step": 2, "samples_per_problem": 1, "max_prompt_tokens": 10, "max_new_tokens": 30}
    seconds = plan(shape, **settings, minibatches=1).speed.seconds
    body, head, tokens = shape.body, 32256 * 4096, 2 * 40
    attention = 2 * tokens * 40 * 4096 * 32
    forward = 2 * body * tokens + attention
    scoring = (3 * forward + 2 * 2 * head * 60) / (0.5 * 989e12)
    assert seconds["scoring"] == pytest.approx(scoring)
    # Three passes' worth, one more for checkpointing; policy with its head, critic without.
    assert seconds["update"] == pytest.approx(4 * (2 * forward + 2 * head * 60) / (0.4 * 989e12))
    # A token step is bound by the launch of kernels: 32 × 0.6 ms against 13.2 GB over 2 TB/s.
    assert seconds["roll-outs: tokens"] == pytest.approx(30 * 32 * 0.0006)
    assert seconds["communication"] == 0
    assert plan(shape, **settings, gradient_checkpointing=False).speed.seconds["update"] < seconds["update"]


def test_a_pass_has_no_more_optimiser_steps_than_samples(shape: Shape) -> None:
    settings = {"problems_per_step": 3, "samples_per_problem": 1, "ppo_epochs": 2}
    three, eight = (plan(shape, **settings, minibatches=count).speed.seconds for count in (3, 8))
    assert eight["optimiser"] == three["optimiser"]


@pytest.mark.parametrize(
    ("prompt", "response", "budget", "samples", "together"),
    [
        (10, 30, 130, 4, 4),  # 10 + 4 × 30
        (10, 30, 129, 4, 3),
        (10, 30, 1000, 4, 4),  # no more than there are
        (10, 30, 40, 4, 1),
        (10, 30, 20, 4, 1),  # longer than the budget: a unit of its own
    ],
)
def test_as_many_samples_share_a_prompt_as_in_training(
    prompt: int, response: int, budget: int, samples: int, together: int
) -> None:
    settings = {"model": "llama-6.7b", "micro_batch_tokens": budget, "samples_per_problem": samples}
    assert PlanConfig(**settings).sharing(prompt, response) == together
    assert len(units([[0] * prompt] * samples, [response] * samples, budget)[0][0]) == together
    assert PlanConfig(**settings, phase="sft").sharing(prompt, response) == 1


@pytest.mark.parametrize(("old_log_probs", "with_head"), [("recomputed", 2), ("sampled", 1)])
def test_seconds_with_shared_prompts_by_hand(shape: Shape, old_log_probs: str, with_head: int) -> None:
    """Two problems of four samples, 10 + 30 tokens: in a budget of 70 two samples share a prompt, so four units."""
    settings = {"problems_per_step": 2, "samples_per_problem": 4, "micro_batch_tokens": 70, "minibatches": 1}
    lengths = {"max_prompt_tokens": 10, "max_new_tokens": 30, "old_log_probs": old_log_probs}
    result = plan(shape, **settings, **lengths)
    tokens = 8 * 30 + 4 * 10
    pairs = 4 * 10**2 / 2 + 8 * 30 * (10 + 30 / 2)
    forward, head = 2 * shape.body * tokens + 4 * pairs * 4096 * 32, 2 * 32256 * 4096 * 8 * 30
    assert result.speed.seconds["scoring"] == pytest.approx((with_head * (forward + head) + forward) / (0.5 * 989e12))
    assert result.speed.seconds["update"] == pytest.approx(4 * (2 * forward + head) / (0.4 * 989e12))
    # What people read counts each roll-out with its prompt.
    assert result.speed.tokens == 8 * 40


def test_an_example_of_sft_has_its_prompt_to_itself(shape: Shape) -> None:
    """Eight examples, 10 + 30 tokens; three passes' worth and one more for checkpointing."""
    settings = {"batch_size": 8, "max_prompt_tokens": 10, "max_new_tokens": 30}
    seconds = plan(shape, phase="sft", **settings).speed.seconds
    forward = 2 * shape.body * 8 * 40 + 4 * 8 * 40**2 / 2 * 4096 * 32 + 2 * 32256 * 4096 * 8 * 30
    assert seconds["update"] == pytest.approx(4 * forward / (0.4 * 989e12))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bytes_between_ranks_by_hand(shape: Shape, stage: int) -> None:
    """How often all weights or gradients of a network travel in a step of four optimiser steps.

    Each of eight ranks has 128 samples, 15 of them with their prompt a unit of 16384 tokens and a micro-batch: 9 units
    in scoring, and 3 in each of four optimiser steps. In bf16 stage 1 is stage 2: gradients are all-reduced each
    micro-batch, weights gathered each optimiser step. Stage 3 gathers weights twice a micro-batch of the update, once
    for each of scoring, and the policy once for sampling.
    """
    result = plan(shape, nproc_per_node=8, zero_stage=stage)
    policy = {1: 12 * 2 + 4, 2: 12 * 2 + 4, 3: 12 * 3 + 9 + 1}[stage]
    critic = policy - (stage == 3)
    sent = (policy * 2 * POLICY + critic * 2 * CRITIC) * 7 / 8
    assert result.speed.seconds["communication"] == pytest.approx(sent / (450e9 * 0.7))


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 1),
        ({"old_log_probs": "sampled"}, 0),
        ({"lora_rank": 8}, 2),  # the reference is the policy without its adapters
        ({"lora_rank": 8, "old_log_probs": "sampled"}, 1),
    ],
)
def test_stage_3_gathers_the_policy_for_each_pass_of_scoring(
    shape: Shape, settings: dict[str, Any], passes: int
) -> None:
    """Eight problems a rank, each a unit of 1024 + 4 × 1024 tokens, of which three are a micro-batch."""
    smaller = {"problems_per_step": 64, "samples_per_problem": 4, "minibatches": 1, "zero_stage": 3}
    sent = plan(shape, **smaller, **settings, nproc_per_node=8).speed.seconds["communication"] * 450e9 * 0.7 * 8 / 7
    linear = settings.get("lora_rank", 0) * 32 * (4 * 8192 + 3 * 15104)
    weights = 2 * (POLICY + linear), 2 * (CRITIC + linear)
    trained = (2 * linear, 2 * (linear + 4096)) if linear else weights
    update = 3 * (2 * sum(weights) + sum(trained))  # eight units
    assert sent == pytest.approx(update + (3 * passes + 1) * weights[0] + 3 * weights[1])


def test_a_refusal_names_the_largest_items_and_changes_that_fit(shape: Shape) -> None:
    result = plan(shape, nproc_per_node=8)
    lines = refusal(result).splitlines()
    assert not result.memory.fits
    assert lines[0].startswith("llama-6.7b does not fit: a rank needs 122.7 GiB in the phase `validation`")
    assert lines[1].startswith("largest: KV cache 64.0 GiB, ")
    proposals = [line for line in lines if line.startswith("would fit: ")]
    assert proposals
    for line in proposals:
        words = re.findall(r"--([a-z-]+) ([\w.]+)", line)
        changed = {name.replace("-", "_"): json.loads(value.lower()) for name, value in words}
        config = PlanConfig.model_validate({**result.config.model_dump(), **changed})
        assert estimate(config, shape).memory.fits, line


def test_nothing_that_helps_is_said_too(shape: Shape) -> None:
    assert "take a larger device" in refusal(plan(shape, gpu_memory_gib=2.0))


def test_a_longer_sequence_than_the_model_has_positions_is_refused() -> None:
    with pytest.raises(DataError, match="8192 positions"):
        estimate(PlanConfig(model="llama-8b", max_prompt_tokens=8000))


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--model", "llama-1.3b", "--nproc-per-node", "8"]
    assert cli.main(arguments) == 0
    table = capsys.readouterr().out
    assert "1.35 B parameters" in table
    assert "not measured" in table
    assert cli.main([*arguments, "--output", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["fits"]
    assert figures["measured_on_a_gpu"] is False


def test_the_command_ends_with_status_2_and_still_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--model", "llama-6.7b", "--gpu", "4090", "--output", "json"])
    assert end.value.code == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["fits"] is False
    assert "does not fit" in told.err


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("fp32", 1), ("fp32", 2), ("bf16", 2)])
def test_memory_on_this_machine_is_near_the_formula(precision: str, stage: int, tmp_path: Path) -> None:
    """21 million parameters, one rank: peak growth of resident memory against the plan, within a quarter."""
    LlamaConfig(
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=8192,
    ).save_pretrained(tmp_path)
    program = Path(__file__).with_name("measured_memory.py")
    # What glibc keeps of freed memory is no part of the formula: large blocks go back at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(stage), precision, "64"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    found = re.search(r"GROWTH (\d+)", run.stdout)
    assert found, run.stderr[-2000:]
    settings = {"max_prompt_tokens": 32, "max_new_tokens": 32, "micro_batch_tokens": 64, "sampling_batch": 1}
    result = estimate(
        PlanConfig(model=str(tmp_path), gpu="cpu", precision=precision, zero_stage=stage, head_chunk_mib=1, **settings)
    )
    measured, predicted = int(found[1]), result.memory.peak
    print(f"{precision}, stage {stage}: measured {measured / 1e6:.0f} MB, predicted {predicted / 1e6:.0f} MB")
    assert predicted == pytest.approx(measured, rel=0.25)


def test_the_table_of_devices_in_the_docs_is_the_code_s() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    for name, device in DEVICES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.split(" (")[0] for cell in row.strip("| ").split(" | ")[1:]]
        figures = [
            device.memory_gib,
            device.bf16_tflops,
            device.fp32_tflops,
            device.bandwidth,
            device.link,
            device.pcie,
        ]
        skipped = name == "cpu"  # its memory is this machine's
        assert [float(cell) for cell in cells[skipped:]] == figures[skipped:], name
