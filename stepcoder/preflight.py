"""Everything that can be known to be wrong before a run starts, in one message: settings, inputs, services."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from stepcoder.errors import DataError, StepCoderError
from stepcoder.evaluation.config import EvaluationConfig
from stepcoder.inputs import ResolveConfig, Resolved, resolve
from stepcoder.model.settings import TrainingConfig
from stepcoder.notify import check_url
from stepcoder.platform.config import StepConfig, parse
from stepcoder.platform.logs import get_logger
from stepcoder.platform.redaction import first_line
from stepcoder.platform.tracking import pipeline_run
from stepcoder.ppo.config import PpoConfig
from stepcoder.prerequisites import models
from stepcoder.prerequisites.checks import SECONDS, Check, Fault, in_kubeflow, named, raise_all
from stepcoder.registry import GateConfig
from stepcoder.sandbox.address import LOCAL, SANDBOX_VARIABLE
from stepcoder.sandbox.readiness import check_ready
from stepcoder.sandbox.token import TOKEN_VARIABLE
from stepcoder.sft.config import SftConfig
from stepcoder.verification import VerifyConfig

log = get_logger("resolve-inputs")

SANDBOX_SECONDS: Final = 60.0
"""How long a sandbox service may take to become ready: one of its pods may just be starting."""

Settings = Mapping[str, Mapping[str, Any]]

SECTIONS: Final[dict[str, tuple[type[StepConfig], dict[str, Any]]]] = {
    "verification": (VerifyConfig, {"problems": "-", "format": "apps_plus", "out": "-"}),
    "sft": (SftConfig, {"dataset": "-", "base_model": "-", "out": "-", "checkpoints": None}),
    "ppo": (
        PpoConfig,
        {
            "dataset": "-",
            "policy": "-",
            "reference": "-",
            "critic": None,
            "curriculum": None,
            "stage": 1,
            "stages": 1,
            "out": "-",
            "out_critic": "-",
            "out_curriculum": "-",
            "checkpoints": None,
        },
    ),
    "evaluation": (
        EvaluationConfig,
        {
            "dataset": "-",
            "candidate": "-",
            "out": "-",
            "base": None,
            "sft": None,
            "champion": None,
            "base_digest": None,
            "champion_digest": None,
            "history": (),
            "measured": None,
        },
    ),
    "gate": (GateConfig, {"evaluation": "-", "out": None}),
}
"""By section: the step's config, and a stand-in for each field that is an input of the step and not a setting."""


def check_settings(settings: Settings) -> dict[str, StepConfig]:
    """Validates every section of settings.

    Returns:
        By section, the config with stand-ins for the inputs.

    Raises:
        DataError: lists every fault of every section.
    """
    faults = [
        f"{section}: unknown section of settings; valid: {', '.join(SECTIONS)}"
        for section in settings.keys() - SECTIONS
    ]
    configs: dict[str, StepConfig] = {}
    for section, (cls, inputs) in SECTIONS.items():
        try:
            configs[section] = parse(cls, settings.get(section, {}), where=section, **inputs)
        except DataError as error:
            faults += str(error).splitlines()
    if faults:
        raise DataError("\n".join(faults))
    return configs


def companions_of(verification: StepConfig) -> tuple[str, ...]:
    """Addresses of the files that the verification settings name: their content decides on the dataset too."""
    assert isinstance(verification, VerifyConfig)
    sets = [item.partition("=")[2] for item in verification.evaluation_sets]
    return tuple(([verification.corrections] if verification.corrections else []) + sets)


def preflight(inputs: Mapping[str, Any], settings: Settings, *, sandboxes: bool = True) -> Resolved:
    """Checks all settings, all inputs and all services of a run, then resolves the inputs.

    Args:
        inputs: Fields of `ResolveConfig`; files that the verification settings name are added to them.
        settings: By section, the settings of the steps.
        sandboxes: Whether to try the sandboxes; not where the steps run in other surroundings than this check.

    Raises:
        DataError: lists every fault, of settings, inputs and services alike.
        StepCoderError: no setting and no input is at fault, but a service is; lists all that do not answer.
    """
    faults: list[Fault] = []
    configs: dict[str, StepConfig] = {}
    companions: tuple[str, ...] = ()
    try:
        configs = check_settings(settings)
        companions = companions_of(configs["verification"])
    except DataError as error:
        faults += [Fault(line, bad_input=True) for line in str(error).splitlines()]
    resolved = None
    try:
        config = parse(ResolveConfig, {}, where="inputs", companions=companions, **inputs)
        resolved = resolve(config, lambda found: _checks(configs, found, config, sandboxes))
    except StepCoderError as error:
        faults += [Fault(line, isinstance(error, DataError)) for line in str(error).splitlines()]
    raise_all(faults)
    assert resolved is not None
    try:
        pipeline_run.describe({**inputs, **dataclasses.asdict(resolved), **settings})
    except Exception as error:  # Whatever MLflow raises; the run does not need it.
        log.warning("the run's parameters are not in MLflow", error=first_line(error))
    return resolved


def _checks(
    configs: Mapping[str, StepConfig], found: Mapping[str, Any], inputs: ResolveConfig, sandboxes: bool
) -> list[Check]:
    """What depends on settings: that they fit together and the model, the sandboxes, who is told of the end."""
    checks = [Check("notify", check_url)]
    if not configs:
        return checks
    checks.append(Check("verification", lambda: _check_test_split(configs["verification"])))
    start = "champion" if inputs.warm_start and "champion" in found else "base_model"
    for name in {"base_model", start} & found.keys():
        longest = {section: tokens for section, tokens in _longest(configs) if name == start or section == "evaluation"}
        checks.append(Check("settings", partial(models.check_room, found[name], longest)))
    for address, sections in _sandboxes(configs).items() if sandboxes else ():
        checks.append(
            Check(
                f"sandbox of {', '.join(sections)}",
                partial(_check_sandbox, address),
                seconds=SANDBOX_SECONDS + SECONDS,
                mend=f"the setting `sandbox` of {', '.join(sections)}, or {named(SANDBOX_VARIABLE, TOKEN_VARIABLE)}",
            )
        )
    return checks


def _check_test_split(verification: StepConfig) -> None:
    assert isinstance(verification, VerifyConfig)
    if not verification.test:
        raise DataError("test: is 0, so evaluate would have nothing to measure on; give a share of the problems")


def _longest(configs: Mapping[str, StepConfig]) -> Iterator[tuple[str, int]]:
    for section in ("sft", "ppo", "evaluation"):
        config = configs[section]
        assert isinstance(config, TrainingConfig | EvaluationConfig)
        yield section, config.max_prompt_tokens + config.max_new_tokens


def _sandboxes(configs: Mapping[str, StepConfig]) -> dict[str, list[str]]:
    """By address, the sections that use it."""
    addresses: dict[str, list[str]] = {}
    for section, config in configs.items():
        if isinstance(config, VerifyConfig | TrainingConfig | EvaluationConfig):
            addresses.setdefault(config.sandbox, []).append(section)
    return addresses


def _check_sandbox(address: str) -> None:
    if address in LOCAL and in_kubeflow():
        raise DataError(
            f"{address!r} would run programs in the pod that holds weights and keys; set {named(SANDBOX_VARIABLE)} to "
            "the address of a sandbox service, and leave the setting `sandbox` out"
        )
    if lacking := check_ready(address, SANDBOX_SECONDS):
        log.warning("the sandbox's machine lacks layers of isolation", sandbox=address, lacks=", ".join(lacking))
