"""The SFT loop: reference solutions from the end of their signature on, loss on the target alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from stepcoder import __version__
from stepcoder.errors import DataError
from stepcoder.model import adapters
from stepcoder.model.batch import pack, shared_out
from stepcoder.model.load import device, load_policy, load_tokenizer, model_digest, save_policy, tell_device
from stepcoder.model.policy import Policy
from stepcoder.model.prompt import Template, split_at_signature
from stepcoder.model.seeds import permutation
from stepcoder.platform import engine, ranks
from stepcoder.platform.checkpoints import Checkpoints
from stepcoder.platform.logs import Progress, get_logger
from stepcoder.platform.tracking import METRICS_NAME, Tracker
from stepcoder.problems import Problem
from stepcoder.sft.config import SftConfig
from stepcoder.validation import check_places, open_dataset, open_sampler, output, validate, write_summary

log = get_logger("sft")

Example = tuple[list[int], list[int]]
"""Prompt ids, target ids."""


def train(config: SftConfig) -> None:
    """Trains a policy from a base model and publishes it to `config.out`.

    Raises:
        DataError: the dataset or the base model cannot be used.
        StepCoderError: a fault at run time, such as a full disk.
    """
    check_places(config, ("base_model",))
    engine.start(config.rank_timeout_seconds)
    tell_device()
    dataset = open_dataset(config.dataset)
    tokenizer = load_tokenizer(config.base_model)
    language_model = load_policy(config.base_model, config.precision)
    if config.lora_rank:
        adapters.add(language_model, config.lora_rank, config.lora_alpha, config.seed)
    examples = training_examples(dataset.train, Template.of(tokenizer), config)
    inputs = {"dataset": dataset.digest, "base_model": model_digest(config.base_model)}
    settings = {name: value for name, value in config.depends_on.items() if name != "base_model"}
    checkpoints = Checkpoints(
        config.checkpoints,
        {"step": "sft", "code_version": __version__, **inputs, **settings},
        keep=config.keep_checkpoints,
    )
    with output(config.out) as folder, Tracker.start("sft", folder, checkpoints.place) as tracker:
        tracker.params(config.model_dump(mode="json"))
        with open_sampler(config, language_model, tokenizer) as sampler:
            before = validate(sampler, config, dataset)
            policy = Policy(language_model, config.head_chunk_mib)
            trained, steps = _optimise(config, policy, examples, tracker, checkpoints)
            ranks.at("validation")
            with trained.generating():
                after = validate(sampler, config, dataset)
        if after.pass_at_1 is not None:
            tracker.metrics({"validation_pass_at_1": after.pass_at_1}, step=steps)
        card = {
            "parents": [config.base_model],
            "dataset_digest": dataset.digest,
            "config": config.model_dump(mode="json"),
        }
        save_policy(
            language_model, tokenizer, folder, card, adapter_base=config.base_model if config.lora_rank else None
        )
        write_summary(folder, "sft", 0, before, after, config, dataset)
    checkpoints.finish(config.out)


def training_examples(problems: Sequence[Problem], template: Template, config: SftConfig) -> list[Example]:
    """Prompt and target ids of every problem that fits into the context; what does not is counted in the log.

    Raises:
        DataError: none fits.
    """
    examples = []
    for problem in problems:
        opened, target = split_at_signature(problem)
        prompt = template.prompt(problem, opened, config.max_prompt_tokens)
        ids = template.target(target)
        if prompt is not None and len(ids) <= config.max_new_tokens:
            examples.append((prompt, ids))
    if not examples:
        raise DataError(
            f"{config.dataset}: none of {len(problems)} training problems fits max_prompt_tokens="
            f"{config.max_prompt_tokens} and max_new_tokens={config.max_new_tokens}; raise them"
        )
    log.info("examples", used=len(examples), too_long=len(problems) - len(examples))
    return examples


def _optimise(
    config: SftConfig, policy: Policy, examples: Sequence[Example], tracker: Tracker, checkpoints: Checkpoints
) -> tuple[engine.Engine, int]:
    """All optimiser steps; returns the engine and their number."""
    batch_size = min(config.batch_size, len(examples))
    steps_an_epoch = math.ceil(len(examples) / batch_size)
    total = max(1, round(config.epochs * steps_an_epoch))
    trained = engine.Engine(
        policy,
        learning_rate=config.learning_rate,
        schedule=engine.warm_up_then_linear(round(config.warmup_epochs * steps_an_epoch), total),
        epsilon=1e-6,
        zero_stage=config.zero_stage,
        precision=config.precision,
        max_gradient_norm=config.max_gradient_norm,
        weight_decay=config.weight_decay,
        gradient_checkpointing=config.gradient_checkpointing,
        offload=config.offload,
    )
    done = 0
    if found := checkpoints.newest():
        done, place = found
        trained.load(place, "policy")
        if ranks.is_main():
            tracker.resume(place / METRICS_NAME)

    def checkpoint(folder: Path) -> None:
        trained.save(folder, "policy")
        if ranks.is_main():
            shutil.copyfile(tracker.folder / METRICS_NAME, folder / METRICS_NAME)

    with Progress(range(total), "sft") as bar:
        bar.advance(done)
        for step in range(done, total):
            epoch, place_in_epoch = divmod(step, steps_an_epoch)
            order = permutation(len(examples), "sft", config.seed, epoch)
            chosen = [examples[index] for index in order[place_in_epoch * batch_size :][:batch_size]]
            ranks.at(f"optimiser step {step + 1}")
            metrics = _step(trained, chosen, config)
            tracker.metrics(metrics, step=step + 1)
            bar.advance(loss=f"{metrics['loss']:.4f}")
            if (step + 1) % config.checkpoint_every == 0 and step + 1 < total:
                checkpoints.save(step + 1, checkpoint)
    return trained, total


def _step(trained: engine.Engine, examples: Sequence[Example], config: SftConfig) -> dict[str, float]:
    """One optimiser step over a batch: mean loss a target token, gradient norm, learning rate."""
    tokens = sum(len(target) for _, target in examples)
    total = 0.0

    def share(group: Sequence[int]) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            nonlocal total
            # A rank without a share takes part with one example that counts nothing.
            chosen = [examples[index] for index in group] or examples[:1]
            log_probs, _ = trained(pack([(prompt, [target]) for prompt, target in chosen], device()))
            value: Tensor = -log_probs.sum() * bool(group) / tokens
            total += value.item()
            return value

        return loss

    rate = trained.learning_rate
    lengths = [len(prompt) + len(target) for prompt, target in examples]
    groups = shared_out(lengths, config.micro_batch_tokens, ranks.count())[ranks.rank()]
    taken = trained.step([share(group) for group in groups])
    return {
        "loss": sum(ranks.gathered(total)),
        "gradient_norm": taken.norm,
        "learning_rate": rate,
        "skipped_updates": float(taken.skipped),
    }
