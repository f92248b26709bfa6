"""The base of every step's configuration, and the way from plain settings to it and back to disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, field_serializer

from stepcoder.errors import DataError
from stepcoder.platform.storage import write_text


class StepConfig(BaseModel):
    """A frozen model, closed to unknown settings.

    Each field is followed by its docstring, which the command line and the generated tables show.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_serializer("*", mode="wrap", when_used="json", check_fields=False)
    def _sets_in_order(self, value: Any, serialize: SerializerFunctionWrapHandler) -> Any:
        # A set's order changes from process to process, and hashes of settings name checkpoints.
        plain = serialize(value)
        return sorted(plain) if isinstance(value, set | frozenset) else plain


ConfigT = TypeVar("ConfigT", bound=StepConfig)

RESOLVED_NAME = "config.json"


def parse(cls: type[ConfigT], settings: Mapping[str, Any], *, where: str, **inputs: Any) -> ConfigT:
    """Builds a step's config from its inputs and a dictionary of settings, as the Kubeflow components get them.

    Args:
        cls: The step's config.
        settings: Field name to value. Whole numbers may be floats: Kubeflow passes every number as one.
        where: What the settings are called where the user wrote them, for example `ppo`.
        **inputs: Fields that are parameters of their own and so may not come by `settings`.

    Raises:
        DataError: lists every fault with the field's name, and the valid names where one is unknown.
    """
    faults = [f"{where}.{name}: is an input of its own, not a setting" for name in sorted(settings.keys() & inputs)]
    try:
        config = cls.model_validate({**settings, **inputs})
    except ValidationError as error:
        valid = [name for name in cls.model_fields if name not in inputs]
        faults += [_fault(where, dict(item), valid) for item in error.errors(include_url=False)]
        raise DataError("\n".join(faults)) from error
    if faults:
        raise DataError("\n".join(faults))
    return config


def faults_of(error: ValidationError, where: str, valid: list[str]) -> list[str]:
    """One line a fault: the field's path, what is wrong with it, and what is valid."""
    return [_fault(where, dict(item), valid) for item in error.errors(include_url=False)]


def write_resolved(config: StepConfig, folder: Path) -> Path:
    """Writes every setting's value, defaults included, beside the step's output as `config.json`."""
    path = folder / RESOLVED_NAME
    write_text(path, config.model_dump_json(indent=2) + "\n")
    return path


def _fault(where: str, item: dict[str, Any], valid: list[str]) -> str:
    location = [str(part) for part in item["loc"]]
    path = ".".join([where, *location])
    if item["type"] == "extra_forbidden" and len(location) == 1:
        near = difflib.get_close_matches(location[0], valid, n=1)
        return f"{path}: unknown setting; " + (f"did you mean {near[0]}?" if near else f"valid: {', '.join(valid)}")
    if item["type"] == "missing":
        return f"{path}: is missing"
    message = str(item["msg"])
    return f"{path}: {message[0].lower()}{message[1:]} (got {item['input']!r})"
