"""One process that trains a small policy and critic for a step on the CPU and prints how far its memory grew, in bytes.

`VmHWM`, the peak of resident memory, is reset before the networks are loaded: the imports of a training do not count.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stepcoder.model import attention
from stepcoder.model.batch import pack
from stepcoder.model.critic import Critic
from stepcoder.model.load import PRECISION, without_dropout
from stepcoder.model.policy import Policy
from stepcoder.platform import engine


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def trained(network: torch.nn.Module, stage: int, precision: str) -> engine.Engine:
    return engine.Engine(
        network,
        learning_rate=1e-3,
        schedule=lambda step: 1.0,
        epsilon=1e-8,
        zero_stage=stage,
        precision=precision,  # type: ignore[arg-type]
        max_gradient_norm=1.0,
        gradient_checkpointing=True,
    )


def step(config: object, stage: int, precision: str, tokens: int) -> tuple[object, ...]:
    dtype = PRECISION[precision]
    language_model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    reference = Policy(AutoModelForCausalLM.from_config(config, dtype=dtype), 1)
    backbone = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.NAME).base_model
    critic = Critic(backbone, config.hidden_size).to(dtype)  # type: ignore[attr-defined]
    policy = Policy(language_model, 1)
    for network in (policy, critic):
        without_dropout(network)
    policy_engine, critic_engine = trained(policy, stage, precision), trained(critic, stage, precision)
    half = list(range(tokens // 2))
    packed = pack([(half, [half])], torch.device("cpu"))
    for _ in range(2):
        policy_engine.step([lambda: -policy_engine(packed)[0].mean()] * 2)
        critic_engine.step([lambda: critic_engine(packed).square().mean()] * 2)
    return policy_engine, critic_engine, reference


def main(folder: str, stage: int, precision: str, tokens: int) -> None:
    torch.set_num_threads(1)
    engine.start()
    config = AutoConfig.from_pretrained(folder)
    small = AutoConfig.from_pretrained(folder, hidden_size=64, intermediate_size=64, num_hidden_layers=1, head_dim=8)
    kept = step(small, stage, precision, 16)  # what is imported and allocated at the first step is not the networks'
    del kept
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = step(config, stage, precision, tokens)
    print("GROWTH", status("VmHWM") - before, "of", len(kept), "networks")


main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
