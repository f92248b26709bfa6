"""Everything that can be known to be wrong before a run starts: settings of all steps, and inputs, in one message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from stepcoder.errors import DataError
from stepcoder.evaluation.config import EvaluationConfig
from stepcoder.inputs import ResolveConfig, Resolved, resolve
from stepcoder.platform import pipeline_run
from stepcoder.platform.config import StepConfig, parse
from stepcoder.platform.logs import get_logger
from stepcoder.ppo.config import PpoConfig
from stepcoder.registry import GateConfig
from stepcoder.sft.config import SftConfig
from stepcoder.verification import VerifyConfig

log = get_logger("resolve-inputs")

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


def preflight(inputs: Mapping[str, Any], settings: Settings) -> Resolved:
    """Checks all settings and inputs of a run, then resolves the inputs.

    Args:
        inputs: Fields of `ResolveConfig`; files that the verification settings name are added to them.
        settings: By section, the settings of the steps.

    Raises:
        DataError: lists every fault, of settings and inputs alike.
        StepCoderError: an object store or the model registry cannot be reached.
    """
    faults: list[str] = []
    companions: tuple[str, ...] = ()
    try:
        companions = companions_of(check_settings(settings)["verification"])
    except DataError as error:
        faults += str(error).splitlines()
    try:
        resolved = resolve(parse(ResolveConfig, {}, where="inputs", companions=companions, **inputs))
    except DataError as error:
        faults += str(error).splitlines()
    if faults:
        raise DataError("\n".join(faults))
    try:
        pipeline_run.describe({**inputs, **dataclasses.asdict(resolved), **settings})
    except Exception as error:  # Whatever MLflow raises; the run does not need it.
        log.warning("the run's parameters are not in MLflow", error=str(error).splitlines()[0])
    return resolved
