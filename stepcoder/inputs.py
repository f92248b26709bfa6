"""What a run needs, checked before anything is spent on it, and named by digests.

Later steps take the digests as parameters, so that a changed file at an unchanged address misses Kubeflow's cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import storage, tracking
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.problems import Format

log = get_logger("resolve-inputs")

DIGEST_TAG = "stepcoder.policy_digest"
"""Tag by which registration names a version's checkpoint by content."""
_TOKENIZER = "tokenizer_config.json"
_WEIGHTS = (".safetensors", ".bin")
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


class ResolveConfig(StepConfig):
    """The inputs of a run."""

    problems: str
    """File of problem records: a path or an `s3://` address."""
    problem_format: str
    """Format of the records: `apps_plus`, `leetcode`, `humaneval` or `mbpp`."""
    base_model: str
    """The model to start from: a Hugging Face id, a checkpoint folder, or an `s3://` address of one."""
    model_name: str = "stepcoder"
    """Name in the MLflow model registry."""
    champion_alias: str = "champion"
    """Alias of the registered version that is the best so far."""
    companions: tuple[str, ...] = ()
    """Further files that change what becomes of the problems, such as corrections; part of the problems' digest."""


@dataclass(frozen=True)
class Resolved:
    """The inputs' digests, and where the champion's weights are."""

    problems_digest: str
    base_model_digest: str
    champion_uri: str
    """Empty when no version carries the alias."""
    champion_digest: str
    """Empty when no version carries the alias, or its weights have no recorded digest."""


def resolve(config: ResolveConfig) -> Resolved:
    """Checks every input and turns it into a digest.

    Raises:
        DataError: lists all inputs that are missing or of the wrong kind.
        StepCoderError: an object store or the model registry cannot be reached.
    """
    faults: list[str] = []

    def attempt(what: str, address: str, find: Callable[[str], str]) -> str:
        if not address:
            faults.append(f"{what}: is empty")
            return ""
        try:
            return find(address)
        except DataError as error:
            faults.extend(f"{what}: {line}" for line in str(error).splitlines())
            return ""

    if config.problem_format not in get_args(Format):
        known = ", ".join(get_args(Format))
        faults.append(f"problem_format: {config.problem_format!r} is not a known format; give one of {known}")
    problems = attempt("problems", config.problems, _file_digest)
    companions = [attempt("verification", address, _file_digest) for address in config.companions]
    base_model = attempt("base_model", config.base_model, _model_digest)
    if faults:
        raise DataError("\n".join(faults))
    champion_uri, champion_digest = champion(config.model_name, config.champion_alias)
    resolved = Resolved("+".join([problems, *companions]), base_model, champion_uri, champion_digest)
    log.info(
        "inputs resolved",
        problems=problems[:12],
        base_model=base_model[:12],
        champion=champion_uri or "none",
    )
    return resolved


def champion(model_name: str, alias: str) -> tuple[str, str]:
    """Source address and digest of the registered version that carries the alias; empty texts when none does.

    Raises:
        StepCoderError: the registry cannot be reached.
    """
    mlflow_client = tracking.client()
    from mlflow.exceptions import MlflowException

    try:
        version = mlflow_client.get_model_version_by_alias(model_name, alias)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return "", ""
        # Training without knowing the champion would end in a gate that has nothing to compare with.
        message = (
            f"MLflow at {tracking.tracking_uri()}: the registry cannot be read: {str(error).splitlines()[0][:300]}"
        )
        raise StepCoderError(message) from error
    return str(version.source), str(version.tags.get(DIGEST_TAG, ""))


def _file_digest(address: str) -> str:
    if not storage.is_remote(address) and Path(address).is_dir():
        raise DataError(f"{address}: is a folder; give the file of problem records")
    return storage.address_digest(address)


def _model_digest(address: str) -> str:
    if storage.is_remote(address):
        names = [item.name for item in storage.list_objects(address)]
        if not names:
            raise DataError(f"{address}: there is nothing at this address")
        _check_checkpoint(address, names)
        return storage.address_digest(address)
    path = Path(address)
    if path.is_dir():
        _check_checkpoint(address, [file.name for file in path.iterdir()])
        return storage.digest(path)
    if path.is_file():
        raise DataError(f"{address}: is a file; give the folder of a Hugging Face checkpoint")
    if not _HUB_ID.fullmatch(address):
        raise DataError(f"{address}: there is no such folder")
    return f"{address}@{_hub_revision(address)}"


def _check_checkpoint(address: str, names: list[str]) -> None:
    faults = []
    if "config.json" not in names:
        faults.append(f"{address}: has no config.json, so it is not a Hugging Face checkpoint")
    if _TOKENIZER not in names:
        faults.append(f"{address}: has no tokenizer ({_TOKENIZER}); save it beside the weights with save_pretrained()")
    if not any(name.endswith(_WEIGHTS) for name in names):
        faults.append(f"{address}: has no weights (looked for *{' and *'.join(_WEIGHTS)})")
    if faults:
        raise DataError("\n".join(faults))


def _hub_revision(name: str) -> str:
    """The commit that a model's id stands for now, or the one in the local cache when the hub cannot be reached."""
    try:
        import huggingface_hub
    except ImportError:
        log.warning("the hub's client is not installed; a new revision of the model will not be noticed", model=name)
        return "main"
    try:
        return str(huggingface_hub.HfApi().model_info(name, timeout=10).sha)
    except Exception as error:  # No network, no such model, no access: the cache may still have it.
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent.name
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        message = f"{name}: is neither a folder here nor a model that the hub gives or its cache holds ({reason})"
        raise DataError(message) from error
