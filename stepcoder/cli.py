"""The one command line: `stepcoder <step> [settings]`.

Every step is a config and a function that takes it; the Kubeflow components call the same function with the same
config. A step is imported only when it is called: one image has no torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder import __version__
from stepcoder.errors import StepCoderError
from stepcoder.images import TRAINER


class Step(NamedTuple):
    """Where a step lives."""

    module: str
    config: str
    function: str
    help: str


STEPS = {
    "init-model": Step("stepcoder.model.init", "InitModelConfig", "init_model", "make a small base model from nothing"),
    "resolve-inputs": Step("stepcoder.inputs", "ResolveConfig", "resolve", "check inputs, and print their digests"),
    "check-new-data": Step(
        "stepcoder.new_data", "NewDataConfig", "check", "tell whether problems have changed since the last registration"
    ),
    "verify": Step("stepcoder.verification", "VerifyConfig", "verify", "find the records that can be trusted"),
    "judge": Step("stepcoder.sandbox.judge", "JudgeConfig", "judge", "run programs against the tests of problems"),
    "sandbox serve": Step(
        "stepcoder.sandbox.service.serve", "ServeConfig", "serve", "judge programs for others, over HTTP"
    ),
    "plan": Step("stepcoder.plan", "PlanConfig", "plan", "tell memory and time of a training before it is started"),
    "sft": Step("stepcoder.sft", "SftConfig", "train", "fine-tune a base model on the reference solutions"),
    "ppo": Step("stepcoder.ppo", "PpoConfig", "train", "train one PPO stage with curriculum and execution masks"),
    "evaluate": Step("stepcoder.evaluation", "EvaluationConfig", "evaluate", "measure models on the test problems"),
    "gate": Step("stepcoder.registry", "GateConfig", "gate", "decide whether a candidate beats the champion"),
    "register": Step("stepcoder.registry", "RegisterConfig", "register", "register a policy in MLflow with lineage"),
    "rollback": Step("stepcoder.registry", "RollbackConfig", "rollback", "take the champion back"),
    "send-metrics": Step(
        "stepcoder.platform.tracking.unsent", "SendConfig", "send", "complete a step's record in MLflow"
    ),
    "notify": Step("stepcoder.notify", "NotifyConfig", "notify", "tell how a run ended"),
}

TRAINING = {"torch", "transformers", "deepspeed", "accelerate", "peft", "jaxtyping"}
"""Packages that one image leaves out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step.

    Returns:
        0. A fault ends the process: status 2 for usage and data, 1 for a fault at run time.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0 if given else 2
    if name == "--version":
        print(f"stepcoder {__version__}")
        return 0
    if " ".join(given[:2]) in STEPS:  # a step's name may be two words
        name, given = " ".join(given[:2]), given[1:]
    if name not in STEPS:
        print(f"stepcoder: unknown step {name!r}\n\n{_overview()}", file=sys.stderr)
        return 2
    step = STEPS[name]
    import tyro

    from stepcoder.platform.entry import running

    with running(name):
        module = importlib.import_module(step.module)
        config = tyro.cli(
            getattr(module, step.config),
            args=given[1:],
            prog=f"stepcoder {name}",
            config=(tyro.conf.FlagConversionOff,),
        )
        try:
            _print(getattr(module, step.function)(config))
        except ModuleNotFoundError as error:
            if error.name not in TRAINING:
                raise
            raise StepCoderError(
                f"{error.name} is not installed: `{name}` runs in {TRAINER}, or after pip install 'stepcoder[train]'"
            ) from error
    return 0


def _print(result: Any) -> None:
    """A result that other programs may want goes to standard output as JSON."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        print(json.dumps(dataclasses.asdict(result), indent=1, default=str))


def _overview() -> str:
    width = max(map(len, STEPS))
    lines = [f"  {name:<{width}}  {step.help}" for name, step in STEPS.items()]
    end = "`stepcoder <step> --help` lists the settings."
    return "\n".join(["usage: stepcoder <step> [settings]", "", "steps:", *lines, "", end])


if __name__ == "__main__":
    sys.exit(main())
