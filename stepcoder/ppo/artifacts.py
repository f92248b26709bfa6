"""What a stage of PPO reads and writes: its networks, its curriculum, its outputs, and by what they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepcoder import __version__
from stepcoder import curriculum as cccs
from stepcoder.errors import DataError
from stepcoder.model import adapters
from stepcoder.model.critic import Critic, save_critic
from stepcoder.model.load import load_policy, local_model, model_digest, read_card, save_policy
from stepcoder.model.policy import Policy
from stepcoder.platform import storage
from stepcoder.ppo.config import PpoConfig
from stepcoder.problems import Problem
from stepcoder.validation import Dataset

CURRICULUM_NAME = "curriculum.json"


class Trained(Protocol):
    """What a stage has to show at its end."""

    config: PpoConfig
    dataset: Dataset
    policy: Policy
    critic: Critic
    curriculum: cccs.Curriculum
    beta: float


def identity(config: PpoConfig, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint belongs to: the settings and the content of every input, wherever it lies."""
    places = {"policy", "reference", "critic", "curriculum", "out_critic", "out_curriculum"}
    digests: dict[str, Any] = {"dataset": dataset.digest}
    for name in ("policy", "reference", "critic"):
        digests[name] = model_digest(place) if (place := getattr(config, name)) else None
    digests["curriculum"] = storage.address_digest(config.curriculum) if config.curriculum else None
    settings = {name: value for name, value in config.depends_on.items() if name not in places}
    return {"step": "ppo", "code_version": __version__, **digests, **settings}


def load_networks(config: PpoConfig) -> tuple[PreTrainedModel, Policy | None]:
    """The model that is trained, and the reference; `None` where the model without its adapters is the reference.

    Raises:
        DataError: with adapters, the policy is neither the reference nor adapters on it.
    """
    if not config.lora_rank:
        reference = Policy(load_policy(config.reference, config.precision), config.head_chunk_mib)
        return load_policy(config.policy, config.precision), reference
    model = load_policy(config.reference, config.precision)
    folder, digest = Path(local_model(config.policy)), model_digest(config.reference)
    if (folder / adapters.FOLDER).is_dir() and read_card(folder).get("adapter_base") == digest:
        adapters.load(model, folder / adapters.FOLDER, config.lora_rank, config.lora_alpha)
    elif model_digest(config.policy) == digest:
        adapters.add(model, config.lora_rank, config.lora_alpha, config.seed)
    else:
        raise DataError(
            f"policy={config.policy}: with lora_rank it has to be the reference, or a policy with adapters that were "
            f"trained on it; reference={config.reference} is another model"
        )
    return model, None


def begin_curriculum(config: PpoConfig, problems: Sequence[Problem]) -> cccs.Curriculum:
    """Where every problem stands at the start of the stage."""
    if not config.use_curriculum:
        return {problem.id: cccs.Progress(0) for problem in problems}
    earlier = cccs.load(storage.fetch(config.curriculum) / CURRICULUM_NAME) if config.curriculum else {}
    return cccs.begin_stage(earlier, problems, config.stage, config.stages, config.conditional_kinds)


def inherited_beta(config: PpoConfig) -> float:
    """An adaptive KL weight goes on where the stage before left it; a fixed one is the setting."""
    if config.kl_target is None or config.critic is None:
        return config.kl_beta
    return float(read_card(storage.fetch(config.critic)).get("kl_beta", config.kl_beta))


def save_all(
    stage: Trained, tokenizer: PreTrainedTokenizerBase, folder: Path, critic_folder: Path, curriculum_folder: Path
) -> None:
    """Writes policy, critic and curriculum with where they come from."""
    config = stage.config
    card: Mapping[str, Any] = {
        "parents": [config.policy, config.reference],
        "dataset_digest": stage.dataset.digest,
        "config": config.model_dump(mode="json"),
    }
    adapted = bool(config.lora_rank)
    base, critic_base = config.reference, config.critic or config.reference
    save_policy(stage.policy.language_model, tokenizer, folder, dict(card), adapter_base=base if adapted else None)
    critic_card = {**card, "kl_beta": stage.beta}
    save_critic(stage.critic, tokenizer, critic_folder, critic_card, adapter_base=critic_base if adapted else None)
    cccs.save(stage.curriculum, curriculum_folder / CURRICULUM_NAME)
