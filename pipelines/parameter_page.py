"""`docs/parameters.md`: every parameter of the pipelines and all that each step's pod gets, written from the code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.pods import CONFIG_MAP, ENVIRONMENT, PODS, SMALL, Pod
from pipelines.readme import SECTION_OF, kind, table

_INTRODUCTION = """\
# Parameters

<!-- Written by `make compile` from pipelines/stepcoder.py and pipelines/pods.py. Do not edit. -->

A run is given parameters by a file of `python -m pipelines.submit`, or in Kubeflow's form. All but `problems` and
`base_model` may be left out. The last column names the steps that a changed value starts anew although their earlier
results are still there: Kubeflow takes an earlier result only if all inputs of the step, its image and its command are
the same, and every input artifact must be the same stored object. The same content at another address is another
input. Only runs of a pipeline of the same name, in the same namespace, share results."""

_GPUS = """\
GPU numbers are texts, `"8"` and not `8`: Kubeflow's backend takes a number in this place for nothing, and the pod gets
no GPU. `"0"` asks for none. A training starts one rank for each GPU of its pod; `nproc_per_node` in its settings is
only for another number. Processors and memory are no parameters, so that more memory for one step does not start the
others anew: change `pipelines/pods.py` and compile. `node_selector` and `tolerations` hold for the pods that may have
GPUs, and for the nodes of a TrainJob."""

_IMAGES = """\
## Images of a registry of your own

The committed files name `stepcoder/trainer` and `stepcoder/tools`. For images elsewhere either give `trainer_image` and
`tools_image`, or compile files whose defaults are right:

```sh
STEPCODER_REGISTRY=registry.example.com/team python -m pipelines.compile --out build
```

writes `build/pipelines/*.yaml` and `build/components/*/component.yaml` with `registry.example.com/team/stepcoder/…` and
leaves the committed ones alone. For a registry that asks for a password, put its pull secret into the service accounts
of the run and of the sandbox, `stepcoder-sandbox`. Never a tag that moves: the cache knows an image by its name."""

_PODS = """\
Requests equal limits. `/dev/shm` counts against the memory. An attempt that takes longer than its hours, from the
moment a node has accepted the pod, is ended, and the next one goes on from the last checkpoint. The service account is
given with the run. All pods run as user and group 65534 without capabilities, escalation or
an unconfined system-call filter, and bear the labels `app.kubernetes.io/part-of: stepcoder` and
`app.kubernetes.io/component: STEP`."""

_RESOLVED = {
    "problems": {"problems_digest"},
    "base_model": {"base_model_uri", "base_model_digest", "start_model", "start_model_digest"},
}
"""What resolve-inputs says of what lies at an address, by the parameter that holds the address."""


def page(pipelines: Mapping[str, Any]) -> str:
    """The text of the page.

    Args:
        pipelines: By file name, the compiled pipelines; the first one is shown whole, the others where they differ.
    """
    (first, pipeline), *others = pipelines.items()
    inputs = pipeline.component_spec.inputs
    anew = _run_anew(pipeline)
    rows = [
        (f"`{name}`", kind(spec.type), _default(spec), spec.description or "", ", ".join(anew[name]) or "none")
        for name, spec in inputs.items()
    ]
    parts = [_INTRODUCTION, f"## Of `pipelines/{first}.yaml`"]
    parts += [table(("parameter", "type", "default", "meaning", "runs anew"), rows), _GPUS]
    for file, other in others:
        differing = [
            (f"`{name}`", kind(spec.type), _default(spec), spec.description or "")
            for name, spec in other.component_spec.inputs.items()
            if name not in inputs or _default(spec) != _default(inputs[name])
        ]
        parts += [
            f"## Where `pipelines/{file}.yaml` differs",
            table(("parameter", "type", "default", "meaning"), differing) if differing else "In no parameter.",
        ]
    parts += ["## Settings of the steps", "\n".join(_settings())]
    parts += [_IMAGES, "## What each pod gets", _PODS, _pods(PODS), "In `stepcoder_smoke`:", _pods(SMALL)]
    parts += ["## Environment of the pods", _environment()]
    return "\n\n".join(parts) + "\n"


def _run_anew(pipeline: Any) -> dict[str, list[str]]:
    """By parameter, the cached steps that a changed value starts anew, those after the first one among them."""
    spec = pipeline.component_spec.implementation.graph
    train = next(dag for name, dag in spec.components.items() if name.endswith("-train")).dag.tasks
    cached = {name: task for name, task in train.items() if task.caching_options.enable_cache}
    found: dict[str, list[str]] = {}
    for name in pipeline.component_spec.inputs:
        touched: set[str] = set()
        while more := {task for task, it in cached.items() if task not in touched and _touches(it, name, touched)}:
            touched |= more
        steps = {step for step in PODS for task in touched if task == step or task.startswith(f"{step}-")}
        found[name] = [step for step in PODS if step in steps]
    return found


def _touches(task: Any, parameter: str, touched: set[str]) -> bool:
    resolved = _RESOLVED.get(parameter, set())
    return any(
        value.component_input_parameter == parameter or value.task_output_parameter.output_parameter_key in resolved
        for value in task.inputs.parameters.values()
    ) or any(value.task_output_artifact.producer_task in touched for value in task.inputs.artifacts.values())


def _settings() -> Iterable[str]:
    for step, section in SECTION_OF.items():
        folder = step.replace("-", "_")
        yield f"- `{section}`: [components/{folder}/README.md](../components/{folder}/README.md#settings)"


def _pods(pods: Mapping[str, Pod]) -> str:
    head = ("step", "image", "CPU", "memory", "GPUs", "`/dev/shm`", "hours an attempt", "further attempts", "cached")
    rows = [
        (
            step,
            pod.image,
            pod.cpu,
            pod.memory,
            f"`{pod.gpus}_gpus`" if pod.gpus else "",
            pod.shm,
            f"{pod.hours:g}",
            str(pod.retries),
            "yes" if pod.cached else "",
        )
        for step, pod in pods.items()
    ]
    return table(head, rows)


def _environment() -> str:
    steps: dict[tuple[str, str], set[str]] = {}
    for need, keys in ENVIRONMENT.items():
        given = {step for step, pod in PODS.items() if need in pod.needs}
        for key in keys.config_map:
            steps.setdefault((f"`{key}`", f"config map `{CONFIG_MAP}`"), set()).update(given)
        for key in keys.secret:
            steps.setdefault((f"`{key}`", "the secret named by `secret`"), set()).update(given)
    rows = [(*source, ", ".join(step for step in PODS if step in given)) for source, given in steps.items()]
    return table(("variable, and key", "from", "steps"), rows)


def _default(spec: Any) -> str:
    return f"`{json.dumps(spec.default)}`" if spec.optional else "required"
