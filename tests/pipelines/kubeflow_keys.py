"""When Kubeflow's own cache hits, computed from a compiled pipeline: nothing here runs a step.

Written after the backend's sources of release 2.16 (`backend/src/v2/driver/cache.go`, `…/cacheutils/cache.go`,
`…/driver/resolve.go`), for there is no cluster to ask. A key is a digest of
- the values of all inputs of the task, those that only a placeholder of the pod refers to among them;
- for every input artifact, its number in the metadata store: a taken result keeps its number, a new one has a new one;
- names and types of the outputs;
- image and command line as the pipeline file has them, with placeholders still in them.
What is set in the file's second half (environment, placement, labels, mounts, deadlines) is no part of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Kubeflow:
    """A cluster that remembers results; a run of it says which tasks had to run."""

    spec: dict[str, Any]
    """First document of the compiled file."""
    _numbers: Any = field(default_factory=itertools.count)
    _results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ran: list[str] = field(default_factory=list)

    def run(self, parameters: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Runs the pipeline.

        Args:
            parameters: Of the pipeline; defaults are added.
            outputs: By task, the values of its output parameters in this run.

        Returns:
            The tasks that ran, in order; the others' earlier results were taken.
        """
        self._ran = []
        defined = self.spec["root"]["inputDefinitions"]["parameters"]
        unknown = parameters.keys() - defined.keys()
        assert not unknown, f"no parameters of the pipeline: {unknown}"
        values = {name: value["defaultValue"] for name, value in defined.items() if "defaultValue" in value}
        self._dag(self.spec["root"]["dag"], values | dict(parameters), outputs)
        return self._ran

    def _dag(
        self, dag: dict[str, Any], inputs: dict[str, Any], outputs: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        made: dict[str, Any] = {}
        waiting = dict(dag["tasks"])
        while waiting:
            name = next(name for name, task in waiting.items() if not set(task.get("dependentTasks", [])) - made.keys())
            task = waiting.pop(name)
            component = self.spec["components"][task["componentRef"]["name"]]
            values = {
                key: _value(source, inputs, made)
                for key, source in task.get("inputs", {}).get("parameters", {}).items()
            }
            if "dag" in component:
                defaults = component.get("inputDefinitions", {}).get("parameters", {})
                missing = {k: v["defaultValue"] for k, v in defaults.items() if k not in values and "defaultValue" in v}
                made[name] = self._dag(component["dag"], missing | values, outputs)
            else:
                made[name] = self._task(name, task, component, values, made, outputs.get(name, {}))
        return made

    def _task(
        self,
        name: str,
        task: dict[str, Any],
        component: dict[str, Any],
        values: dict[str, Any],
        made: dict[str, Any],
        outputs: Mapping[str, Any],
    ) -> dict[str, Any]:
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        artifacts = {
            key: source["taskOutputArtifact"] for key, source in task.get("inputs", {}).get("artifacts", {}).items()
        }
        produced = component.get("outputDefinitions", {})
        key = {
            "parameters": values,
            "artifacts": {
                key: made[source["producerTask"]][source["outputArtifactKey"]] for key, source in artifacts.items()
            },
            "outputs": produced,
            "image": container["image"],
            "command": [*container["command"], *container["args"]],
        }
        fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        cached = task["cachingOptions"].get("enableCache")
        if cached and fingerprint in self._results:
            return self._results[fingerprint]
        self._ran.append(name)
        result = {key: next(self._numbers) for key in produced.get("artifacts", {})} | {
            key: outputs.get(key, f"{name}.{key}") for key in produced.get("parameters", {})
        }
        if cached:
            self._results[fingerprint] = result
        return result


def _value(source: dict[str, Any], inputs: dict[str, Any], made: dict[str, Any]) -> Any:
    match source:
        case {"componentInputParameter": name}:
            return inputs[name]
        case {"taskOutputParameter": {"producerTask": task, "outputParameterKey": key}}:
            return made[task][key]
        case {"runtimeValue": {"constant": constant}}:
            return constant
        case {"taskFinalStatus": _}:
            return "SUCCEEDED"
    raise AssertionError(source)
