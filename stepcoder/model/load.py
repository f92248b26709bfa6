"""Loading and saving policies: a Hugging Face id, a folder, or an `s3://` address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stepcoder import __version__
from stepcoder.errors import DataError
from stepcoder.model import adapters
from stepcoder.platform import engine, hub, ranks, storage
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import first_line

log = get_logger("model")

_GPU_DRIVER = Path("/dev/nvidiactl")
"""There where a GPU was given to this machine or container."""

PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16}
CARD = "stepcoder.json"


def local_model(address: str) -> str:
    """The local folder of an address, or the Hugging Face id with its commit.

    Raises:
        DataError: there is no such model, or the folder lacks a configuration or a tokenizer.
    """
    if hub.is_id(address):
        return hub.pinned(address)
    folder = storage.fetch(address)
    for name, what in (("config.json", "a model configuration"), ("tokenizer_config.json", "a tokenizer")):
        if not (folder / name).is_file():
            raise DataError(
                f"{address}: the model folder lacks {what} ({name}); save both with save_pretrained() into one folder"
            )
    return str(folder)


def pretrained(kind: Any, address: str, **settings: Any) -> Any:
    """What `kind.from_pretrained` makes of the model at an address."""
    name, revision = hub.split(local_model(address))
    return kind.from_pretrained(name, revision=revision, **settings)


def model_digest(address: str) -> str:
    """A digest of a model's content; of a Hugging Face id the id and its commit."""
    name = local_model(address)
    return storage.digest(Path(name)) if Path(name).is_dir() else name


def load_tokenizer(address: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model; padding is on the left, and the padding token is the end of text if none is set.

    Raises:
        DataError: there is none, or it has no end-of-text token.
    """
    try:
        tokenizer = pretrained(AutoTokenizer, address)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{address}: its tokenizer cannot be loaded: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise DataError(f"{address}: the tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_policy(address: str, precision: str | None = "fp32") -> PreTrainedModel:
    """Loads a causal language model onto the training device, with dropout off.

    Args:
        address: a Hugging Face id, a folder, or an `s3://` address.
        precision: `fp32`, `bf16`, or None for the number format that it was saved in.

    Raises:
        DataError: it cannot be loaded, or not all of its weights are there.
    """
    dtype = "auto" if precision is None else PRECISION[precision]
    try:
        model, report = pretrained(AutoModelForCausalLM, address, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{address}: the model cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        # They would be drawn at random. A critic's folder, for example, has no LM head.
        raise DataError(f"{address}: not a causal language model: {len(missing)} weights are missing ({missing[0]} …)")
    without_dropout(model)
    return model.to(device()).eval()


def check_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int) -> None:
    """Checks that a model can read its tokenizer's ids, and sequences of a length.

    Raises:
        DataError: it cannot.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if (ids := max(tokenizer.get_vocab().values()) + 1) > rows:
        raise DataError(
            f"{model.name_or_path}: the tokenizer has {ids} ids and the model {rows} embeddings; resize the embeddings"
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise DataError(
            f"{model.name_or_path}: the model has {positions} positions, and max_prompt_tokens and max_new_tokens "
            f"together are {longest}; lower them"
        )


def without_dropout(model: torch.nn.Module) -> None:
    """Switches dropout off for good: log-probs of sampled tokens must be the same in every pass."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        # Some architectures keep the probability in a number of their own: `attention_dropout`, `dropout`, `layerdrop`.
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def device() -> torch.device:
    """The device that this process trains on."""
    return torch.device("cuda", ranks.local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def tell_device() -> None:
    """Logs what this process computes on, and warns of a GPU that torch cannot use."""
    here = device()
    if here.type == "cuda":
        log.info("device", device=str(here), name=torch.cuda.get_device_name(here))
        return
    log.info("device", device="cpu", threads=torch.get_num_threads())
    if _GPU_DRIVER.exists():
        log.warning(
            "there is a GPU, and torch cannot use it: its driver is older than this build of torch needs, or this is a "
            "build for CPUs",
            torch=torch.__version__,
            cuda=torch.version.cuda,
        )


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    card: dict[str, Any],
    *,
    adapter_base: str | None = None,
) -> None:
    """Writes a plain Hugging Face checkpoint and `stepcoder.json` into a folder; all ranks call it, rank 0 writes.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        folder: where to.
        card: what `stepcoder.json` tells.
        adapter_base: address of the model that adapters were trained on. The checkpoint has them merged in, and they
            also lie in `adapter/` by themselves.
    """
    with engine.whole(model):
        if not ranks.is_main():
            return
        if adapter_base is None:
            model.save_pretrained(folder)
        else:
            save_merged(model, adapter_base, AutoModelForCausalLM, folder)
            model.save_pretrained(folder / adapters.FOLDER)
            card = {**card, "adapter_base": model_digest(adapter_base)}
    tokenizer.save_pretrained(folder)
    write_card(folder, card)


def save_merged(model: PreTrainedModel, base: str, kind: Any, folder: Path) -> None:
    """Writes the checkpoint of a model with its adapters merged into the weights that they were trained on."""
    whole = pretrained(kind, base, dtype=model.dtype)
    adapters.merge_into(whole, model)
    whole.save_pretrained(folder)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes `stepcoder.json`: where a model comes from (parents, dataset digest, resolved config, code version)."""
    text = json.dumps({"code_version": __version__, **card}, indent=1, default=str)
    (folder / CARD).write_text(text + "\n")


def read_card(folder: Path) -> dict[str, Any]:
    """Reads `stepcoder.json`; empty where a model was not made by this project."""
    path = folder / CARD
    if not path.is_file():
        return {}
    card: dict[str, Any] = json.loads(path.read_text())
    return card
