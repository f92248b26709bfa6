"""What a run needs, checked before anything is spent on it, and named by digests.

Later steps take the digests as parameters, so that a changed file at an unchanged address misses Kubeflow's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from stepcoder.errors import DataError
from stepcoder.platform import storage, tracking
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.platform.tracking import model_registry
from stepcoder.platform.tracking.model_registry import DIGEST_TAG, Alias, ModelName
from stepcoder.prerequisites import models, stores
from stepcoder.prerequisites.checks import SECONDS, Check, in_kubeflow, named, raise_all, run_all
from stepcoder.problems import Format

log = get_logger("resolve-inputs")

_MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class ResolveConfig(StepConfig):
    """The inputs of a run."""

    problems: str
    """File of problem records: a path or an `s3://` address."""
    problem_format: str
    """Format of the records: `apps_plus`, `leetcode`, `humaneval` or `mbpp`."""
    base_model: str
    """The model to start from: a Hugging Face id (`ID@COMMIT` for one commit), a checkpoint folder, or an `s3://`
    address of one."""
    model_name: ModelName = "stepcoder"
    """Name in the MLflow model registry."""
    champion_alias: Alias = "champion"
    """Alias of the registered version that is the best so far."""
    companions: tuple[str, ...] = ()
    """Further files that change what becomes of the problems, such as corrections; part of the problems' digest."""
    checkpoints: str = ""
    """Where trainings keep checkpoints: a folder or an `s3://` address; empty for none."""
    measurements: str = ""
    """Where evaluations keep measurements: a folder or an `s3://` address; empty for none."""
    warm_start: bool = False
    """Whether training starts from the champion, where there is one, instead of the base model."""


@dataclass(frozen=True)
class Resolved:
    """The inputs' digests, where the champion's weights are, and what training starts from."""

    problems_digest: str
    base_model_uri: str
    """Where the base model is; of a Hugging Face id with the commit, so that all steps load the same one."""
    base_model_digest: str
    champion_uri: str
    """Empty when no version carries the alias."""
    champion_digest: str
    """Empty when no version carries the alias, or its weights have no recorded digest."""
    start_model: str
    """What SFT starts from: the base model, or with a warm start the champion."""
    start_model_digest: str


Further = Callable[[dict[str, Any]], Sequence[Check]]
"""Makes checks that depend on what the inputs' checks found, by their names."""


def resolve(config: ResolveConfig, further: Further | None = None) -> Resolved:
    """Checks every input, tries every service that the run needs for them, and turns inputs into digests.

    Args:
        config: the inputs.
        further: makes more checks, whose faults come in the same message.

    Raises:
        DataError: lists everything that is wrong, at least one input among it.
        StepCoderError: lists everything that is wrong; all of it may be well again later.
    """
    _import_clients()
    found, faults = run_all(_checks(config))
    if found.get("registry") and found["registry"][0]:
        # Evaluation measures the champion after all the training: its weights have to be there now.
        uri = found["registry"][0]
        champions, more = run_all([_model_check("champion", uri)])
        found |= champions
        faults += more
    if further is not None:
        results, more = run_all(further(found))
        found |= results
        faults += more
    raise_all(faults)
    champion_uri, champion_digest = found["registry"]
    base: models.BaseModel = found["base_model"]
    warm = config.warm_start and bool(champion_uri)
    problems = "+".join([found["problems"], *(found[f"verification: {address}"] for address in config.companions)])
    resolved = Resolved(
        problems_digest=problems,
        base_model_uri=base.address,
        base_model_digest=base.digest,
        champion_uri=champion_uri,
        champion_digest=champion_digest,
        start_model=champion_uri if warm else base.address,
        start_model_digest=(champion_digest or found["champion"].digest) if warm else base.digest,
    )
    log.info(
        "inputs resolved",
        problems=problems[:12],
        base_model=base.digest[:12],
        champion=champion_uri or "none",
        starts_from="champion" if warm else "base_model",
    )
    return resolved


def problems_digest(problems: str, companions: Sequence[str] = ()) -> str:
    """The digest of problem records and of the files that change what becomes of them, as `resolve` gives it.

    Raises:
        DataError: a file is missing.
        StepCoderError: an object store does not answer.
    """
    return "+".join(_file_digest(address) for address in (problems, *companions))


def champion(model_name: str, alias: str) -> tuple[str, str]:
    """Source address and digest of the registered version that carries the alias; empty texts when none does.

    Raises:
        StepCoderError: the registry cannot be reached.
    """
    # Training without knowing the champion would end in a gate that has nothing to compare with.
    with model_registry.reporting():
        version = model_registry.holder(tracking.client(), model_name, alias)
    return ("", "") if version is None else (str(version.source), str(version.tags.get(DIGEST_TAG, "")))


def _import_clients() -> None:
    """Imports here what the checks use: an import that is left behind in a thread leaves half a module to others."""
    import boto3  # noqa: F401
    import mlflow.tracking  # noqa: F401


def _checks(config: ResolveConfig) -> list[Check]:
    checks = [
        Check("problem_format", lambda: _check_format(config.problem_format)),
        _store_check("problems", config.problems, _file_digest),
        *(_store_check(f"verification: {address}", address, _file_digest) for address in config.companions),
        _model_check("base_model", config.base_model),
    ]
    written = {"checkpoints": config.checkpoints, "measurements": config.measurements}
    checks += [_store_check(what, address, stores.check_writable) for what, address in written.items() if address]
    # A database file may first have to be made, which takes its time and asks nobody.
    seconds = SECONDS if tracking.tracking_uri().startswith("http") else None
    checks.append(Check("registry", partial(_ask_registry, config), seconds, mend=named(*_MLFLOW)))
    return checks


def _ask_registry(config: ResolveConfig) -> tuple[str, str]:
    if in_kubeflow() and not tracking.tracking_uri().startswith("http"):
        raise DataError(
            f"what is on no MLflow server ends with the pod; set {named('MLFLOW_TRACKING_URI')} to a server's address"
        )
    return champion(config.model_name, config.champion_alias)


def _store_check(what: str, address: str, run: Callable[[str], Any]) -> Check:
    def work() -> Any:
        if not address:
            raise DataError("is empty")
        stores.check_credentials(address)
        return run(address)

    if "://" not in address:
        return Check(what, work, seconds=None)
    return Check(what, work, SECONDS, stores.mend())


def _model_check(what: str, address: str) -> Check:
    return _store_check(what, address, models.find)


def _check_format(name: str) -> None:
    if name not in get_args(Format):
        raise DataError(f"{name!r} is not a known format; give one of {', '.join(get_args(Format))}")


def _file_digest(address: str) -> str:
    if not storage.is_remote(address) and Path(address).is_dir():
        raise DataError(f"{address}: is a folder; give the file of problem records")
    return storage.address_digest(address)
