"""A component's README: its contract and its settings, written from the code."""

from __future__ import annotations

import inspect
import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pipelines.pods import PODS
from stepcoder.preflight import SECTIONS

SECTION_OF = {
    "verify-dataset": "verification",
    "sft": "sft",
    "ppo-stage": "ppo",
    "evaluate": "evaluation",
    "promotion-gate": "gate",
}
"""Which section of settings a component's `settings` parameter is."""
_GENERATED = "<!-- Written by `make compile` from component.py and the step's config. Do not edit. -->"


def readme(name: str, component: Any) -> str:
    """The text of a component's README.

    Args:
        name: The component's name, for example `ppo-stage`.
        component: The kfp component.
    """
    spec = component.component_spec
    pod = PODS[name]
    described = _described(component.python_func)
    inputs = [
        (f"`{key}`", kind(value.type), "no" if value.optional else "yes", described.get(key, ""))
        for key, value in (spec.inputs or {}).items()
    ]
    outputs = [(f"`{key}`", kind(value.type), described.get(key, "")) for key, value in (spec.outputs or {}).items()]
    facts = [
        f"Image `{spec.implementation.container.image}`",
        f"{pod.cpu} CPU, {pod.memory}" + (f", GPUs by `{pod.gpus}_gpus`" if pod.gpus else ""),
        "cached" if pod.cached else "never cached",
        f"tried again {pod.retries} times",
    ]
    parts = [f"# {name}", _GENERATED, inspect.cleandoc(spec.description or ""), "; ".join(facts) + "."]
    parts += ["## Inputs", table(("name", "type", "required", "meaning"), inputs)]
    if outputs:
        parts += ["## Outputs", table(("name", "type", "meaning"), outputs)]
    if name in SECTION_OF:
        cls, stand_ins = SECTIONS[SECTION_OF[name]]
        rows = [
            (f"`{key}`", _type(field.annotation), _default(field), " ".join((field.description or "").split()))
            for key, field in cls.model_fields.items()
            if key not in stand_ins
        ]
        parts += ["## Settings", table(("setting", "type", "default", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _described(function: Any) -> dict[str, str]:
    """Descriptions of arguments and results in a Google docstring."""
    found: dict[str, str] = {}
    section = key = ""
    for line in inspect.cleandoc(function.__doc__ or "").splitlines():
        if line in {"Args:", "Returns:"}:
            section = line
        elif section and line.startswith("    ") and not line.startswith("     ") and ": " in line:
            key, _, found[key] = line.strip().partition(": ")
        elif section and line.strip():
            found[key] += " " + line.strip()
    return found


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def kind(name: str) -> str:
    """Kubeflow's name of a type without its version."""
    return name.removeprefix("system.").partition("@")[0]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _type(part) for part in arguments)
    if origin in (tuple, list, frozenset):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} to {_type(arguments[1])}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, frozenset):
        value = sorted(value)
    return "none" if value is None else f"`{json.dumps(value, default=str)}`"
