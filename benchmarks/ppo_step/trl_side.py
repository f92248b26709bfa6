"""The other side: `trl`'s PPOTrainer, run by the Python of an environment that has it. Imports nothing of ours.

`PPOTrainer.train()` is one loop over all steps and runs unchanged: a callback stops it before each step until the
parent asks for the step. Clocks are read where the trainer calls its own `batch_generation` and `accumulate`.

    python -m benchmarks.ppo_step.trl_side SETTING MODEL_FOLDER CHANGES_AS_JSON
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from benchmarks.ppo_step import settings
from benchmarks.ppo_step.forced import EndsAt
from benchmarks.ppo_step.settings import SETTINGS, Setting
from benchmarks.ppo_step.worker import Pipe, Step, memory

STEPS = 10_000  # more than anybody asks for


class FixedReward(nn.Module):
    """A reward model that costs nothing: the score of a text is its length, with no pass through a network."""

    base_model_prefix = "length"

    def length(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """What stands for the backbone."""
        return SimpleNamespace(hidden_states=[attention_mask.cumsum(1).unsqueeze(-1) / attention_mask.shape[1]])

    def score(self, hidden: Tensor) -> Tensor:
        """What stands for the head."""
        return hidden


class Stops(TrainerCallback):
    """Holds the trainer's loop before each step until the parent asks for it."""

    def __init__(self, pipe: Pipe, setting: Setting) -> None:
        self.pipe, self.setting = pipe, setting
        self.clock: Step | None = None
        self.number, self.idle = -1, 0.0
        self.updating = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Before the first step."""
        versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
        self.pipe.send({"ready": True, **versions})
        self.idle = memory("VmRSS")
        self._wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After each step, and before the next."""
        assert self.clock
        self.clock.ends("update")
        tokens = sum(self.setting.lengths(self.number)) + self.setting.batch * self.setting.prompt_tokens
        self.pipe.send(self.clock.answer(tokens))
        self._wait()

    def begins_update(self) -> None:
        """Called at each micro-batch; the first one ends the scoring."""
        if not self.updating and self.clock:
            self.clock.ends("scoring")
            self.updating = True

    def _wait(self) -> None:
        if self.pipe.receive() is None:
            os._exit(0)
        self.number += 1
        self.updating = False
        self.clock = Step(self.idle)


def config_of(setting: Setting, folder: str) -> PPOConfig:
    """TRL's settings for a comparison."""
    # A whole mini-batch at once needs "the batch" as device batch; smaller micro-batches are accumulated by
    # `accelerate`, which then takes one optimiser step an epoch.
    micro = setting.trl_micro_batch or setting.batch
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=setting.batch // micro,
        num_mini_batches=setting.minibatches,
        num_ppo_epochs=setting.epochs,
        local_rollout_forward_batch_size=setting.trl_rollout_batch,
        total_episodes=STEPS * setting.batch,
        response_length=setting.response_tokens,
        stop_token="eos" if setting.ragged else None,
        temperature=settings.TEMPERATURE,
        learning_rate=settings.LEARNING_RATE,
        lr_scheduler_type="constant",
        kl_coef=settings.KL_BETA,
        cliprange=settings.CLIP,
        cliprange_value=settings.VALUE_CLIP,
        vf_coef=settings.VALUE_LOSS_WEIGHT,
        gamma=settings.GAMMA,
        lam=settings.LAMBDA,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        num_sample_generations=0,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        seed=0,
    )


def main() -> None:
    """Serves the parent's orders from inside the trainer's loop."""
    pipe = Pipe()
    torch.set_num_threads(1)
    setting, folder = dataclasses.replace(SETTINGS[sys.argv[1]], **json.loads(sys.argv[3])), sys.argv[2]
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompts = [ids for ids in setting.prompt_ids() for _ in range(setting.samples)]
    data = Dataset.from_dict({"input_ids": prompts})
    stops = Stops(pipe, setting)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PPOTrainer(
            args=config_of(setting, scratch),
            processing_class=tokenizer,
            model=policy,
            ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_model=FixedReward(),
            value_model=AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32),
            train_dataset=data,
            eval_dataset=data,
            callbacks=[stops],
        )
        trainer.remove_callback(PrinterCallback)
        observe(trainer, stops, setting)
        trainer.train()


def observe(trainer: PPOTrainer, stops: Stops, setting: Setting) -> None:
    """Reads the clock where the trainer goes from one phase to the next, and ends ragged responses."""
    generation, accumulate = ppo_trainer.batch_generation, trainer.accelerator.accumulate

    def batch_generation(*args: Any, **kwargs: Any) -> Any:
        found = generation(*args, **kwargs)
        if stops.clock:
            stops.clock.ends("rollouts")
        return found

    def accumulate_(*args: Any, **kwargs: Any) -> Any:
        stops.begins_update()
        return accumulate(*args, **kwargs)

    ppo_trainer.batch_generation = batch_generation
    trainer.accelerator.accumulate = accumulate_
    if setting.ragged:
        policy = trainer.policy_model
        generate, begun = type(policy).generate, {"step": -1, "row": 0}

        def generate_(**options: Any) -> Any:
            if begun["step"] != stops.number:
                begun.update(step=stops.number, row=0)
            rows = len(options["input_ids"])
            lengths = setting.lengths(stops.number)[begun["row"] :][:rows]
            begun["row"] += rows
            forced = EndsAt(lengths, setting.end, setting.padding)
            return generate(policy, **options, logits_processor=[forced])

        policy.generate = generate_


if __name__ == "__main__":
    main()
