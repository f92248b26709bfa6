"""What both trainings do around their loop: open the dataset and the sandbox, measure validation problems, sum up."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepcoder.errors import DataError
from stepcoder.model.generation import TransformersGenerator
from stepcoder.model.load import check_room
from stepcoder.model.prompt import Template
from stepcoder.model.settings import TrainingConfig
from stepcoder.model.tokens import token_bytes
from stepcoder.platform import ranks, storage
from stepcoder.platform.history import SUMMARY_NAME
from stepcoder.platform.logs import get_logger
from stepcoder.problems import Problem, load_problems
from stepcoder.rollouts import PassRate, Sampler, pass_rate
from stepcoder.sandbox import Limits, open_sandbox

log = get_logger("validation")


@dataclass(frozen=True)
class Dataset:
    """A dataset folder as verify writes it."""

    folder: Path

    @cached_property
    def digest(self) -> str:
        """Digest of the whole folder."""
        return storage.digest(self.folder)

    @cached_property
    def train(self) -> list[Problem]:
        """Problems to train on."""
        return load_problems(self.folder / "train.jsonl")

    @cached_property
    def validation(self) -> list[Problem]:
        """Problems to watch training on, sorted by id."""
        return sorted(load_problems(self.folder / "validation.jsonl"), key=lambda problem: problem.id)


def open_dataset(address: str) -> Dataset:
    """Opens a dataset.

    Raises:
        DataError: it is not a dataset folder, or it has no training problem.
    """
    folder = storage.fetch(address)
    missing = [name for name in ("train.jsonl", "validation.jsonl", "card.json") if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{address}: not a dataset as `stepcoder verify` writes it: {', '.join(missing)} is missing")
    dataset = Dataset(folder)
    if not dataset.train:
        raise DataError(f"{address}: train.jsonl holds no problem; see rejected.jsonl there")
    return dataset


def check_places(config: TrainingConfig, inputs: Sequence[str], outputs: Sequence[str] = ("out",)) -> None:
    """Raises `DataError` where an output, which is published as a whole, would replace another place of the training.

    Args:
        config: settings.
        inputs: names of the settings that name what is read, besides the dataset.
        outputs: names of the settings that name what is written, besides checkpoints.
    """
    names = dict.fromkeys((*outputs, "checkpoints", "dataset", *inputs))
    places = {name: _whole(place) for name in names if (place := getattr(config, name))}
    for outer in outputs:
        for inner, place in places.items():
            if inner != outer and f"{place}/".startswith(f"{places[outer]}/"):
                raise DataError(
                    f"{inner}={place} lies in {outer}={places[outer]}, which is written as a whole; give each its own "
                    "folder"
                )


def _whole(address: str) -> str:
    return address.rstrip("/") if storage.is_remote(address) else os.path.abspath(address)


@contextmanager
def output(address: str) -> Iterator[Path]:
    """A folder that is published at an address on success; what ranks but the first write vanishes."""
    if ranks.is_main():
        with storage.staged(address) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="stepcoder-rank-") as scratch:
        yield Path(scratch)


@contextmanager
def open_sampler(
    config: TrainingConfig, language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Sampler]:
    """Opens the sandbox, and yields a sampler that follows the model while it is trained.

    Raises:
        DataError: prompts and responses can be longer than the model's context.
    """
    check_room(language_model, tokenizer, config.max_prompt_tokens + config.max_new_tokens)
    slots = config.sandbox_slots
    if slots is None and ranks.count() > 1:
        slots = max(1, (os.cpu_count() or 1) // ranks.local_count())
    with open_sandbox(config.sandbox, slots) as sandbox:
        yield Sampler(
            TransformersGenerator(language_model, tokenizer, config.sampling_batch),
            Template.of(tokenizer),
            sandbox,
            Limits(cpu_seconds=config.cpu_seconds, memory_mib=config.memory_mib),
            token_bytes(tokenizer),
        )


def measured_already(policy: Path, config: TrainingConfig, dataset: Dataset) -> PassRate | None:
    """What the step that made a policy measured after training, if it measured the same in the same way."""
    path = policy / SUMMARY_NAME
    if not path.is_file():
        return None
    summary = json.loads(path.read_text())["validation"]
    return PassRate(**summary["after"]) if summary["settings"] == _settings(config, dataset) else None


def validate(sampler: Sampler, config: TrainingConfig, dataset: Dataset) -> PassRate:
    """Measures pass@1 on the validation problems."""
    rate = pass_rate(
        sampler,
        dataset.validation[: config.validation_problems],
        n=config.validation_samples,
        sampling=config.validation_sampling,
        longest_prompt=config.max_prompt_tokens,
        seed=config.seed,
    )
    if rate.pass_at_1 is not None:
        log.info("pass@1", value=f"{rate.pass_at_1:.4f}", problems=rate.problems, samples=rate.samples)
    return rate


def write_summary(
    folder: Path,
    step: str,
    stage: int,
    before: PassRate,
    after: PassRate,
    config: TrainingConfig,
    dataset: Dataset,
    **more: Any,
) -> None:
    """Writes `summary.json`: validation results before and after a training step."""
    summary = {
        "step_name": step,
        "stage": stage,
        "validation": {"before": asdict(before), "after": asdict(after), "settings": _settings(config, dataset)},
        **more,
    }
    (folder / SUMMARY_NAME).write_text(json.dumps(summary, indent=1) + "\n")


def _settings(config: TrainingConfig, dataset: Dataset) -> dict[str, Any]:
    """What a validation result depends on besides the policy."""
    fields = {"max_prompt_tokens", "max_new_tokens", "seed", "cpu_seconds", "memory_mib"}
    fields |= {name for name in type(config).model_fields if name.startswith("validation_")}
    return {"dataset_digest": dataset.digest, **config.model_dump(include=fields)}
