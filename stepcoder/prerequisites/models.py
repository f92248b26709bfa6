"""The base model, as far as its small files tell: configuration, tokenizer, context length; no weights, no torch."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import hub, storage
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import first_line
from stepcoder.prerequisites.checks import named

log = get_logger("resolve-inputs")

CONFIG: Final = "config.json"
INDEX: Final = ".index.json"
TOKENIZER: Final = "tokenizer_config.json"
HUB_SECONDS: Final = 10.0
_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
"""Where `transformers` looks for weights, in its order: the file, or the files that its `.index.json` lists."""
_HUB_ID: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@\w[\w./-]*)?")
_CAUSAL: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of architectures end that can write text."""
_NOT_PACKED: Final = {
    "bloom": "ALiBi",
    "diffllama": "two attentions a layer",
    "falcon": "attention of its own",
    "gpt_oss": "attention sinks",
    "mamba": "no attention",
}
"""Model types that cannot read packed sequences, of those that were tried, and why."""
_CAPS: Final = ("attn_logit_softcapping", "final_logit_softcapping")


@dataclass(frozen=True)
class BaseModel:
    """What is known of a model before its weights are loaded."""

    address: str
    """Where it is; a Hugging Face id with its commit."""
    digest: str
    """SHA-256 of the checkpoint, or of the store's listing; of a Hugging Face id the id and its commit."""
    config: dict[str, Any] = field(default_factory=dict)
    """Content of `config.json`."""

    @property
    def positions(self) -> int | None:
        """Longest sequence; None when the configuration does not tell."""
        text = _text_config(self.config)
        found = text.get("max_position_embeddings") or text.get("n_positions")
        return found if isinstance(found, int) else None


def find(address: str) -> BaseModel:
    """Looks at a model's small files, wherever it is, and refuses what training would refuse later.

    Raises:
        DataError: there is no such model, it lacks files, or it is known not to be trainable here; lists all faults.
        StepCoderError: the object store or the hub does not answer.
    """
    if not storage.is_remote(address) and not Path(address).is_dir():
        if Path(address).is_file():
            raise DataError(f"{address}: is a file; give the folder of a Hugging Face checkpoint")
        if not _HUB_ID.fullmatch(address):
            raise DataError(f"{address}: there is no such folder")
        return _find_on_hub(address)
    check_files(address)
    config = _small_file(address, CONFIG)
    _check_content(address, config, _small_file(address, TOKENIZER))
    return BaseModel(address, storage.address_digest(address), config)


def check_files(address: str) -> None:
    """Checks that a whole checkpoint lies in a folder or under an address: configuration, tokenizer, all weights.

    Raises:
        DataError: it does not; lists all that is missing.
        StepCoderError: the object store does not answer.
    """
    if storage.is_remote(address):
        names = [item.name for item in storage.list_objects(address)]
    else:
        names = [file.name for file in Path(address).iterdir()] if Path(address).is_dir() else []
    if not names:
        raise DataError(f"{address}: there is nothing at this address")
    faults = []
    if CONFIG not in names:
        faults.append(f"has no {CONFIG}, so it is not a Hugging Face checkpoint")
    if TOKENIZER not in names:
        faults.append(f"has no tokenizer ({TOKENIZER}); save it beside the weights with save_pretrained()")
    faults += _lacking_weights(names, partial(_small_file, address))
    if faults:
        raise DataError("\n".join(f"{address}: {fault}" for fault in faults))


def check_room(model: BaseModel, longest: Mapping[str, int]) -> None:
    """Checks that the model can read the longest sequence of each step.

    Args:
        model: what `find` gave.
        longest: by section of settings, `max_prompt_tokens` and `max_new_tokens` together.

    Raises:
        DataError: a step's sequences can be longer than the model's context; lists all such steps.
    """
    if model.positions is None:
        return
    faults = [
        f"{section}: max_prompt_tokens and max_new_tokens together are {tokens}, and {model.address} has "
        f"{model.positions} positions; lower them"
        for section, tokens in longest.items()
        if tokens > model.positions
    ]
    if faults:
        raise DataError("\n".join(faults))


def _find_on_hub(address: str) -> BaseModel:
    """The model behind an id as the hub has it now, or as the local cache has it when the hub cannot be reached."""
    import huggingface_hub
    from huggingface_hub import errors

    name, revision = hub.split(address)
    endpoint = os.environ.get("HF_ENDPOINT") or None
    place = (endpoint or "https://huggingface.co").rstrip("/")
    try:
        info = huggingface_hub.HfApi(endpoint=endpoint).model_info(name, revision=revision, timeout=HUB_SECONDS)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        with tempfile.TemporaryDirectory(prefix="stepcoder-") as scratch:

            def read(file: str) -> dict[str, Any]:
                path = huggingface_hub.hf_hub_download(
                    name, file, revision=info.sha, endpoint=endpoint, cache_dir=scratch, etag_timeout=HUB_SECONDS
                )
                return _read(path, name)

            config = read(CONFIG)
            tokenizer = read(TOKENIZER) if TOKENIZER in names else {}
            lacking = _lacking_weights(names, read)
    except errors.GatedRepoError as error:
        raise DataError(
            f"{name}: is a gated model; accept its conditions at {place}/{name} and set {named('HF_TOKEN')} to a token "
            "of the account that did"
        ) from error
    except errors.EntryNotFoundError as error:
        raise DataError(f"{name}: has no {CONFIG}, so it is not a Hugging Face checkpoint") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{address}: {name} at {place} has no revision {revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{name}: is neither a folder here nor a model at {place} that may be seen; mend the name, or for a "
            f"private model set {named('HF_TOKEN')}"
        ) from error
    except StepCoderError:
        raise
    except Exception as error:  # Offline, no network, a server that fails: each has its own, by the hub's HTTP library.
        return _find_in_cache(address, place, error)
    if lacking:
        raise DataError("\n".join(f"{name}: {fault}" for fault in lacking))
    _check_content(name, config, tokenizer)
    return _at_commit(name, str(info.sha), config)


def _find_in_cache(address: str, place: str, error: Exception) -> BaseModel:
    import huggingface_hub

    name, revision = hub.split(address)
    cached = huggingface_hub.try_to_load_from_cache(name, CONFIG, revision=revision)
    if not isinstance(cached, str):
        raise DataError(
            f"{address}: is neither a folder here nor in the local cache, and {place} cannot be asked "
            f"({first_line(error)}); mend {named('HF_ENDPOINT', 'HF_HUB_OFFLINE')}, or give a folder or an s3:// "
            "address"
        ) from error
    log.warning("the hub cannot be asked; the model in the local cache is taken", model=name)
    folder = Path(cached).parent
    config = _read(cached, name)
    _check_content(name, config, _read(folder / TOKENIZER, name) if (folder / TOKENIZER).is_file() else {})
    return _at_commit(name, folder.name, config)


def _at_commit(name: str, commit: str, config: dict[str, Any]) -> BaseModel:
    return BaseModel(f"{name}@{commit}", f"{name}@{commit}", config)


def _lacking_weights(names: Collection[str], read: Callable[[str], dict[str, Any]]) -> list[str]:
    """What is wrong with the weights, by the names of the files and the content of the small ones."""
    own = CONFIG in names and read(CONFIG).get("transformers_weights")
    for whole in (str(own).removesuffix(INDEX),) if own else _WEIGHTS:
        if whole in names:
            return []
        if (index := whole + INDEX) in names:
            parts = read(index).get("weight_map")
            if not isinstance(parts, dict):
                return [f"{index} has no weight_map"]
            listed = {str(part) for part in parts.values()}
            absent = sorted(listed - set(names))
            few = f"{', '.join(absent[:3])}{' …' if len(absent) > 3 else ''}"
            return [f"lacks {len(absent)} of {len(listed)} files that {index} lists: {few}"] if absent else []
    return [f"has no weights (looked for {' and '.join(_WEIGHTS)}, and {INDEX} of each)"]


def _small_file(address: str, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="stepcoder-") as scratch:
        return _read(storage.fetch(f"{address.rstrip('/')}/{name}", Path(scratch)), address)


def _read(path: str | Path, address: str) -> dict[str, Any]:
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StepCoderError(f"{address}: {path.name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{address}: {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{address}: {path.name} holds no JSON object")
    return content


def _check_content(address: str, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """What training refuses after it has loaded the model, where the small files tell already."""
    text = _text_config(config)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    names = [str(name) for name in config.get("architectures") or ()]
    refused = []
    if not kind:
        refused.append(f"{CONFIG} names no model_type")
    if config.get("is_encoder_decoder") or (names and not any(name.endswith(_CAUSAL) for name in names)):
        refused.append(f"is not a causal language model ({', '.join(names) or kind})")
    if kind in _NOT_PACKED:
        refused.append(f"{kind} models cannot read packed sequences ({_NOT_PACKED[kind]})")
    if caps := [name for name in _CAPS if text.get(name)]:
        refused.append(f"caps its scores ({', '.join(caps)}), which packed sequences do not allow")
    if text.get("logits_scaling", 1) != 1:
        refused.append("scales its logits (logits_scaling), which packed sequences do not allow")
    if config.get("quantization_config"):
        refused.append("has quantized weights, which cannot be trained")
    faults = [f"{address}: {reason}; use another base model" for reason in refused]
    if "eos_token" in tokenizer and tokenizer["eos_token"] is None:
        faults.append(f"{address}: the tokenizer has no end-of-text token; set eos_token in {TOKENIZER}")
    if faults:
        raise DataError("\n".join(faults))


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a configuration that has several."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config
