"""Parameters of a run: read from a declared file, and checked against what a compiled pipeline takes.

Kubeflow looks at the inputs of a pipeline only once the run is made, and into its dictionaries of settings never.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.platform.trainjob import Machines
from stepcoder.preflight import SECTIONS, check_settings

_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "STRING": ("a text", (str,)),
    "NUMBER_INTEGER": ("a whole number", (int,)),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", (bool,)),
    "LIST": ("a list", (list,)),
    "STRUCT": ("settings by name", (dict,)),
}
"""By Kubeflow's name of a type: what a person calls it, and what it is in Python."""
_EXACT = 2**53
"""Kubeflow carries all numbers as floating point, which holds whole ones exactly up to here."""


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline."""

    path: Path
    spec: dict[str, Any]
    platform: dict[str, Any]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])

    @functools.cached_property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """By name, each input's `parameterType`, and its `defaultValue` if it has one."""
        inputs: dict[str, dict[str, Any]] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return inputs

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the content; comments and order do not count."""
        return storage.text_digest(json.dumps([self.spec, self.platform], sort_keys=True))

    def body(self, *, cache: bool = True) -> dict[str, Any]:
        """The pipeline as a run's request carries it.

        Args:
            cache: False turns the cache off for every task. Kubeflow's own client does so for the outermost tasks
                only, and all steps of this pipeline lie deeper.
        """
        spec: dict[str, Any] = json.loads(json.dumps(self.spec))
        if not cache:
            for part in [spec["root"], *spec["components"].values()]:
                for task in part.get("dag", {}).get("tasks", {}).values():
                    task["cachingOptions"] = {}
        return {"pipeline_spec": spec, "platform_spec": self.platform} if self.platform else spec


def read_compiled(path: Path) -> Compiled:
    """Reads a pipeline as kfp's compiler writes it.

    Raises:
        DataError: the file is missing, or is no compiled pipeline.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        documents = list(yaml.load_all(_text(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        spec, platform = documents[0], documents[1] if len(documents) > 1 else {}
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        compiled = Compiled(path, spec, platform)
        if not compiled.name or not spec["root"]["dag"]["tasks"]:
            raise KeyError("root.dag.tasks")
    except (yaml.YAMLError, json_format.ParseError, KeyError, IndexError, AttributeError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is not a compiled pipeline, such as pipelines/stepcoder.yaml: {why}") from error
    return compiled


def read_declared(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file of names and values.

    Numbers and texts are told apart as JSON does it, so that `1e-5` is a number and `2026-11-21` or `no` are texts.

    Raises:
        DataError: the file is missing or does not read like that; a name that stands twice is a fault.
    """
    try:
        content = yaml.load(_text(path), Loader=_Plain)
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except yaml.YAMLError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: holds what JSON cannot carry, and Kubeflow takes nothing else: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold names and values, such as `problems: s3://bucket/problems.jsonl`")
    return content


def resolve(compiled: Compiled, given: Mapping[str, Any], changes: Sequence[str] = (), *, where: str) -> dict[str, Any]:
    """What a run gets: given values and changes, laid over the pipeline's own defaults where they are settings.

    Args:
        compiled: The pipeline.
        given: Values by name, from a file.
        changes: `NAME=VALUE` or `SECTION.SETTING=VALUE`, each laid over `given`; `null` gives a default back.
        where: What `given` is called in messages.

    Returns:
        Only what is not left to the pipeline's defaults.

    Raises:
        DataError: lists every fault.
    """
    faults: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        _put(compiled, values, [str(name)], value, f"{where}: {name}", faults)
    for change in changes:
        path, equals, text = change.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            faults.append(f"--set {change}: must read NAME=VALUE, for example ppo.learning_rate=1e-5")
            continue
        _put(compiled, values, names, _value(compiled, names, text), f"--set {path}", faults)
    named = {str(name) for name, value in given.items() if value is not None} | values.keys()
    faults += [
        f"{name}: is missing"
        for name, kind in compiled.inputs.items()
        if name not in named and not kind.get("isOptional") and "defaultValue" not in kind
    ]
    faults += _platform_faults(compiled, values)
    try:
        check_settings({name: value for name, value in values.items() if name in SECTIONS and isinstance(value, dict)})
    except DataError as error:
        faults += str(error).splitlines()
    if faults:
        raise DataError("\n".join(faults))
    return values


def _put(
    compiled: Compiled, values: dict[str, Any], names: list[str], value: Any, where: str, faults: list[str]
) -> None:
    """Lays one value over the others, or adds what is wrong with it to the faults."""
    name, *deeper = names
    if name not in compiled.inputs:
        near = difflib.get_close_matches(name, compiled.inputs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(sorted(compiled.inputs))}"
        faults.append(f"{where}: {compiled.name} has no such input; {hint}")
        return
    kind = compiled.inputs[name]
    for part in reversed(deeper):
        value = {part: value}
    if value is None:
        values.pop(name, None)
        return
    shown, types = _KINDS.get(kind["parameterType"], ("", ()))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        hint = "; put it in quotes" if types == (str,) and not isinstance(value, dict | list) else ""
        faults.append(f"{where}: must be {shown or 'left out'}, not {json.dumps(value, default=str)}{hint}")
        return
    if any(abs(number) > _EXACT for number in _whole_numbers(value)):
        faults.append(f"{where}: holds a whole number beyond 2^53, which Kubeflow would round")
        return
    if isinstance(value, dict):
        value = over(values.get(name, kind.get("defaultValue", {})), value)
    values[name] = value


def _whole_numbers(value: Any) -> Iterator[int]:
    """All whole numbers in a value, however deep."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(item)
    elif isinstance(value, int):
        yield value


def _platform_faults(compiled: Compiled, values: Mapping[str, Any]) -> list[str]:
    """What Kubernetes would refuse once the training's turn has come."""
    faults = [
        f'{name}: must be a whole number as a text, such as "8", not {json.dumps(values[name])}'
        for name in ("training_gpus", "evaluation_gpus")
        if name in values and not re.fullmatch("[0-9]{1,4}", values[name])
    ]
    if values.get("nodes"):
        machines = {field.name for field in dataclasses.fields(Machines)} & compiled.inputs.keys()
        try:
            Machines(**{name: values.get(name, compiled.inputs[name].get("defaultValue")) for name in machines})
        except DataError as error:
            faults += str(error).splitlines()
    return faults


def over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others; None takes one away, because Kubeflow has no null inside a dictionary."""
    merged = dict(base)
    for name, value in changes.items():
        below = merged.get(name)
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = over(below if isinstance(below, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def _value(compiled: Compiled, names: list[str], text: str) -> Any:
    """The value of a `--set`: as it stands for an input that is a text, else JSON where it reads like that."""
    if len(names) == 1 and compiled.inputs.get(names[0], {}).get("parameterType") == "STRING":
        return None if text == "null" else text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _Plain(yaml.SafeLoader):
    """YAML in which only what JSON writes without quotes is no text, and no name stands twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dictionary.

        Raises:
            YAMLError: a name stands twice; YAML would take the last one and say nothing.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name must be a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern in {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "null": r"~|null|Null|NULL|",
    "int": r"-?(0|[1-9][0-9]*)",
    "float": r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?",
}.items():
    _Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)
