"""Registration in MLflow: always a version with its lineage, the champion's alias only on a win.

The weights stay where they are: a version holds their address.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import stepcoder
from stepcoder.errors import DataError
from stepcoder.platform import storage, tracking
from stepcoder.platform.config import StepConfig, write_resolved
from stepcoder.platform.logs import get_logger
from stepcoder.platform.tracking import model_registry, pipeline_run
from stepcoder.platform.tracking.model_registry import DIGEST_TAG, PARENTS_TAG, PROBLEMS_TAG, TAG, Alias, ModelName
from stepcoder.registry import champions
from stepcoder.registry.gate import DECISION_NAME, Decision
from stepcoder.registry.measured import read_evaluation

log = get_logger("register-model")

REGISTRATION_NAME: Final = "registration.json"


class RegisterConfig(StepConfig):
    """What to register, where it comes from, and whether it is the champion now."""

    policy: str
    """Address of the candidate's checkpoint, which is recorded and not read: a path or an `s3://` address."""
    model_name: ModelName = "stepcoder"
    """Name in the MLflow model registry."""
    champion_alias: Alias = "champion"
    """Alias of the best version so far."""
    promote: bool | None = None
    """Whether the alias moves to this version. Empty: as `decision` says."""
    why: str = ""
    """The reason for promoting or not. Empty: as `decision` says."""
    decision: str | None = None
    """Folder with the gate's `decision.json`: a path or an `s3://` address."""
    evaluation: str | None = None
    """Folder with the evaluation's `metrics.json`, for digests and pass@1: a path or an `s3://` address."""
    champion: str | None = None
    """Address of the champion that the candidate was measured against: the alias moves only while it is still the
    champion. Empty: as `decision` or `evaluation` says, or not checked without either."""
    policy_digest: str | None = Field(None, pattern=r"^[\w.:@/+-]+$")
    """Digest of the checkpoint. Empty: as `decision` or `evaluation` says, else computed from a folder's files or from
    the object store's listing."""
    dataset_digest: str | None = None
    """Digest of the dataset that the models were measured on. Empty: as `decision` or `evaluation` says."""
    parents: tuple[str, ...] = ()
    """What the policy was made from, each `name=digest`, for example `base_model=3f2a…`. check-new-data compares with
    the last `problems=…`."""
    run_id: str | None = None
    """Run of the pipeline that made the policy. Empty: `$STEPCODER_RUN_ID`."""
    out: str | None = None
    """Where `registration.json` goes: a folder or an `s3://` address. Empty: it is not written."""

    @field_validator(
        "decision", "evaluation", "champion", "policy_digest", "dataset_digest", "run_id", "out", mode="before"
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # Kubeflow has no optional text: an absent one arrives empty.
        return None if value == "" else value

    @model_validator(mode="after")
    def _decided(self) -> Self:
        if self.promote is None and self.decision is None:
            raise ValueError("give `promote` or the gate's `decision`")
        return self


class Registration(BaseModel):
    """A registered version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model_name: str
    version: str
    created: bool
    """False when this checkpoint was registered before."""
    promoted: bool
    """Whether the alias stands at this version now because of this call."""
    why: str
    source: str
    """Address of the weights."""
    previous_champion: str | None = None
    """Version that carried the alias before this call; None when none did."""


def register(config: RegisterConfig) -> Registration:
    """Registers the candidate, whatever the gate said, and moves the alias if it is promoted.

    One checkpoint, by its digest, has one version: a step that is run again, or a cached policy that comes back in a
    later run, finds its version and only brings the decision up to date. The alias stays where it is when the
    champion is no longer the one that the candidate was measured against.

    Raises:
        DataError: the decision or the evaluation cannot be read, or contradicts the settings.
        StepCoderError: MLflow or an object store cannot be reached, or refuses.
    """
    source = _source(config.policy)
    facts = _facts(config)
    with model_registry.reporting():
        client = tracking.client()
        _ensure_model(client, config.model_name)
        version, created = _version(client, config, facts, source)
        current = model_registry.holder(client, config.model_name, config.champion_alias)
        promote, why = _still_holds(config, facts, current, version)
        if promote and (current is None or current.version != version.version):
            champions.move(
                client,
                config.model_name,
                config.champion_alias,
                version,
                before=None if current is None else str(current.version),
                by=_run_of(config) or champions.person(),
                why=why,
            )
            promote, why = _kept(client, config, version, why)
        # A champion that comes back by a cached run and does not beat itself keeps the record of its win.
        if promote or current is None or current.version != version.version:
            for key, value in ((f"{TAG}promoted", str(promote).lower()), (f"{TAG}why", why[:5000])):
                model_registry.set_tag(client, config.model_name, version.version, key, value)
        # Last: what was not registered whole has to count as new data.
        if problems := dict(item.partition("=")[::2] for item in config.parents).get("problems"):
            model_registry.set_model_tag(client, config.model_name, PROBLEMS_TAG, problems)
    registration = Registration(
        model_name=config.model_name,
        version=str(version.version),
        created=created,
        promoted=promote,
        why=why,
        source=str(version.source),
        previous_champion=None if current is None else str(current.version),
    )
    if config.out is not None:
        with storage.staged(config.out) as folder:
            storage.write_text(folder / REGISTRATION_NAME, registration.model_dump_json(indent=2) + "\n")
            write_resolved(config, folder)
    with model_registry.reporting():
        _tell(registration, facts.pass_at_1)
    log.info(
        "registered",
        model=config.model_name,
        version=registration.version,
        new=created,
        promoted=promote,
        why=why,
    )
    return registration


class _Facts(BaseModel):
    """What is known of the candidate, from the settings, the decision and the evaluation, in this order."""

    policy_digest: str
    dataset_digest: str | None
    promote: bool
    why: str
    checked_against: bool
    """Whether it is known which champion, or that none, was measured."""
    champion: str | None
    pass_at_1: float | None


def _facts(config: RegisterConfig) -> _Facts:
    decision = _read_decision(config.decision) if config.decision is not None else None
    evaluation = read_evaluation(config.evaluation) if config.evaluation is not None else None
    if decision is not None and config.promote is not None and config.promote != decision.promote:
        raise DataError(
            f"promote: is {config.promote}, but {config.decision} says {decision.promote}; give one of them"
        )
    measured = evaluation.models if evaluation is not None else {}
    digests = [
        config.policy_digest,
        decision.candidate_digest if decision is not None else None,
        measured["candidate"].digest if measured else None,
    ]
    stated = {digest for digest in digests if digest is not None}
    if len(stated) > 1:
        raise DataError(
            f"policy_digest: decision, evaluation and settings are of different checkpoints: {sorted(stated)}"
        )
    known_champion = config.champion
    if known_champion is None and decision is not None:
        known_champion = decision.champion_address
    if known_champion is None and "champion" in measured:
        known_champion = measured["champion"].address
    return _Facts(
        policy_digest=stated.pop() if stated else storage.address_digest(config.policy),
        dataset_digest=config.dataset_digest
        or (decision.dataset_digest if decision is not None else None)
        or (evaluation.dataset.digest if evaluation is not None else None),
        promote=decision.promote if decision is not None else bool(config.promote),
        why=config.why or (decision.why if decision is not None else ""),
        checked_against=decision is not None or evaluation is not None or config.champion is not None,
        champion=known_champion,
        pass_at_1=measured["candidate"].pass_at_1 if measured else decision.candidate_pass_at_1 if decision else None,
    )


def _tell(registration: Registration, pass_at_1: float | None) -> None:
    """For the notification at the end of the pipeline's run."""
    figure = {} if pass_at_1 is None else {"pass_at_1": f"{100 * pass_at_1:.1f} %"}
    decided = "promoted" if registration.promoted else "not promoted"
    pipeline_run.report_outcome(
        version=f"{registration.model_name} {registration.version}", gate=f"{decided}: {registration.why}", **figure
    )


def _source(policy: str) -> str:
    """The address as it is recorded: a path must mean the same from every working folder."""
    if "://" in policy:
        return policy
    if not Path(policy).exists():
        raise DataError(f"{policy}: there is no such checkpoint folder")
    if tracking.tracking_uri().startswith("http"):
        raise DataError(
            f"{policy}: an MLflow server takes no paths of this machine; put the checkpoint into an object store and "
            "give its s3:// address, or unset MLFLOW_TRACKING_URI to use a registry on this machine"
        )
    return str(Path(policy).absolute())


def _read_decision(address: str) -> Decision:
    where = f"{address.rstrip('/')}/{DECISION_NAME}"
    path: Path = storage.fetch(where)
    try:
        return Decision.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError) as error:
        raise DataError(f"{where}: is not a decision of the gate: {error}; run the gate again") from error


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Policies that StepCoder trained; the alias names the best.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(client: Any, config: RegisterConfig, facts: _Facts, source: str) -> tuple[Any, bool]:
    """The checkpoint's version, and whether it is new."""
    from mlflow.exceptions import MlflowException

    if found := _versions(client, config, facts):
        if found[0].source != source:
            log.info("registered before at another address", version=found[0].version, source=found[0].source)
        return found[0], False
    tags = {
        DIGEST_TAG: facts.policy_digest,
        f"{TAG}dataset_digest": facts.dataset_digest,
        PARENTS_TAG: ", ".join(config.parents),
        f"{TAG}run_id": _run_of(config),
        f"{TAG}code_version": stepcoder.__version__,
        f"{TAG}evaluation": config.evaluation,
        f"{TAG}pass_at_1": None if facts.pass_at_1 is None else f"{facts.pass_at_1:.6f}",
    }
    version = client.create_model_version(
        config.model_name,
        source=source,
        run_id=_mlflow_run(client),
        tags={name: value for name, value in tags.items() if value},
        description=facts.why or None,
    )
    # Two registrations of one checkpoint may both have found none; the older version counts for both.
    found = _versions(client, config, facts)
    if found and found[0].version != version.version:
        # Only for order: an account that may edit need not be one that may delete.
        with suppress(MlflowException):
            client.delete_model_version(config.model_name, version.version)
        return found[0], False
    return version, True


def _versions(client: Any, config: RegisterConfig, facts: _Facts) -> list[Any]:
    """Versions of the checkpoint, the oldest first."""
    wanted = f"name = '{config.model_name}' and tag.`{DIGEST_TAG}` = '{facts.policy_digest}'"
    return sorted(client.search_model_versions(wanted), key=lambda version: int(version.version))


def _run_of(config: RegisterConfig) -> str | None:
    return config.run_id or os.environ.get(tracking.RUN_ID) or None


def _mlflow_run(client: Any) -> str | None:
    """The pipeline's MLflow run, so that a version links to it; None outside a pipeline."""
    if not os.environ.get(tracking.RUN_ID):
        return None
    return tracking.parent_run(client, tracking.experiment_id(client))


def _still_holds(config: RegisterConfig, facts: _Facts, current: Any, version: Any) -> tuple[bool, str]:
    """The decision, unless another champion has come between measuring and registering, or a person said no."""
    if not facts.promote:
        return False, facts.why
    if current is not None and current.version == version.version:
        return True, facts.why
    if champions.rolled_back(version, config.champion_alias):
        why = (
            f"not promoted: version {version.version} was taken back by hand; `stepcoder rollback --model-name "
            f"{config.model_name} --to {version.version}` makes it champion again"
        )
        log.warning("a version that was rolled back is not promoted by itself", version=version.version)
        return False, why
    if not facts.checked_against:
        return True, facts.why
    now = None if current is None else str(current.source)
    if now == facts.champion:
        return True, facts.why
    why = (
        f"not promoted: the champion is {now or 'absent'} now, but the candidate was measured against "
        f"{facts.champion or 'none'}; evaluate it again"
    )
    log.warning("the champion has changed since the evaluation", now=now, measured=facts.champion)
    return False, why


def _kept(client: Any, config: RegisterConfig, version: Any, why: str) -> tuple[bool, str]:
    """Whether the alias is still here: MLflow has no exchange that fails when two registrations meet."""
    now = model_registry.holder(client, config.model_name, config.champion_alias)
    if now is not None and now.version == version.version:
        return True, why
    other = "none" if now is None else now.version
    log.warning("another registration moved the alias at the same moment", version=version.version, now=other)
    return False, f"version {other} became champion at the same moment; evaluate this one against it"
