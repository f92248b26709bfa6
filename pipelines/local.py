"""Runs the pipeline on this machine: `python -m pipelines.local`.

It is the very pipeline that a cluster runs, under kfp.local: each step is a process of this Python, or a container of
its image. What is written lies under one folder a run; the same command again goes on at the step that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipelines.parameters import over
from pipelines.presets import PRESETS, STAGES
from pipelines.summary import show_summary
from pipelines.watch import CacheHits, Watch
from stepcoder.errors import DataError, StepCoderError
from stepcoder.notify import NotifyConfig, notify
from stepcoder.platform import logs, storage, tracking
from stepcoder.platform.config import parse
from stepcoder.platform.entry import spare_the_collector
from stepcoder.preflight import SECTIONS, check_settings, companions_of, preflight

DEMO_PROBLEMS = Path(__file__).resolve().parent.parent / "examples" / "problems.jsonl"
_SET_HELP = "one setting of one step, as components/*/README.md list them; null for its default; repeatable"
_RUNNER_HELP = "each step as a process of this Python, or in a container of its image (default: process)"
RUNNERS = ("process", "docker")
INIT = "init"
"""Section of settings for the base model that is made when none is given."""


@dataclass(frozen=True)
class Run:
    """One run as the command line describes it."""

    problems: str
    problem_format: str
    base_model: str | None
    model_name: str
    stages: int
    folder: Path
    runner: str
    settings: dict[str, dict[str, Any]]
    retrain: bool = False
    """Whether it is the retraining pipeline: only on new data, from the champion."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 for a fault at run time, 2 for bad input, 130 when interrupted."""
    console = Console(file=sys.stdout)
    spare_the_collector()
    try:
        run = read_arguments(arguments)
        return execute(run, console)
    except StepCoderError as error:
        for line in str(error).splitlines():
            console.print(f"[red]error:[/red] {escape(line)}", highlight=False, soft_wrap=True)
        return error.exit_status
    except OSError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on where it stopped", highlight=False)
        return 130


def read_arguments(arguments: Sequence[str] | None = None) -> Run:
    """Turns the command line into a run.

    Raises:
        DataError: lists what is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.local", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), help="settings for all steps that belong together")
    parser.add_argument("--problems", help="problem records, a path or s3:// address (default: the shipped ones)")
    parser.add_argument("--format", default="apps_plus", help="format of the records (default: apps_plus)")
    parser.add_argument("--base-model", help="Hugging Face id, folder or s3:// address (with a preset: made anew)")
    parser.add_argument("--model-name", default="stepcoder", help="name in the model registry")
    parser.add_argument("--stages", type=int, help="number of PPO stages (default: the preset's, else 3)")
    parser.add_argument("--retrain", action="store_true", help="train only on new data, and start from the champion")
    parser.add_argument("--set", action="append", default=[], metavar="STEP.SETTING=VALUE", help=_SET_HELP)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/<preset>)")
    parser.add_argument("--runner", choices=RUNNERS, default=RUNNERS[0], help=_RUNNER_HELP)
    given = parser.parse_args(arguments)
    faults = []
    if given.preset is None and given.problems is None:
        faults.append("--problems is missing (only a preset brings problems of its own)")
    if given.preset is None and given.base_model is None:
        faults.append("--base-model is missing (only a preset makes one)")
    stages = given.stages if given.stages is not None else STAGES.get(given.preset, 3)
    if stages < 1:
        faults.append(f"--stages: must be at least 1, not {stages}")
    settings = {section: dict(values) for section, values in PRESETS.get(given.preset, {}).items()}
    for text in given.set:
        try:
            apply(settings, text)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return Run(
        problems=_absolute(given.problems or str(DEMO_PROBLEMS)),
        problem_format=given.format,
        base_model=given.base_model and _absolute(given.base_model),
        model_name=given.model_name,
        stages=stages,
        folder=(given.out or tracking.home() / (given.preset or "local")).absolute(),
        runner=given.runner,
        settings=settings,
        retrain=given.retrain,
    )


def apply(settings: dict[str, dict[str, Any]], text: str) -> None:
    """Puts one `step.setting=value` into the settings; the value is JSON, or else a text.

    `null` takes a preset's value away, so that the default counts: Kubeflow has no null inside a dictionary.

    Raises:
        DataError: it does not read like that, or the step is unknown.
    """
    path, equals, value = text.partition("=")
    section, *names = path.split(".")
    valid = [INIT, *SECTIONS]
    if not equals or not names or not all(names):
        raise DataError(f"--set {text}: must read STEP.SETTING=VALUE, for example ppo.learning_rate=1e-5")
    if section not in valid:
        raise DataError(f"--set {text}: unknown step {section!r}; valid: {', '.join(valid)}")
    try:
        change = json.loads(value)
    except (ValueError, RecursionError):
        change = value
    for name in reversed(names):
        change = {name: change}
    settings[section] = over(settings.get(section, {}), change)


def execute(run: Run, console: Console) -> int:
    """Checks the run, makes the base model if none is given, runs the pipeline and shows what came of it.

    Raises:
        StepCoderError: the run cannot start.
    """
    began = time.monotonic()
    run.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking.tracking_uri())
    # Threads that wait give their core away: spinning ones make every step many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["STEPCODER_RUN_ID"] = f"{run.folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    os.environ.setdefault("STEPCODER_PROGRESS_SECONDS", "1" if console.is_terminal else "10")
    logs.configure("warning")
    settings = {section: values for section, values in run.settings.items() if section != INIT}
    inputs = {"problems": run.problems, "problem_format": run.problem_format, "model_name": run.model_name}
    base_model = run.base_model
    if base_model is None:
        check_settings(settings)
        with console.status("making a base model"):
            base_model = str(make_base_model(run))
    places = {name: str(run.folder / name) for name in ("checkpoints", "measurements")}
    checked = inputs | places | {"base_model": base_model, "warm_start": run.retrain}
    preflight(checked, settings, sandboxes=run.runner == "process")
    watch = run_pipeline(run, inputs | {"base_model": base_model}, settings, console)
    if watch.failed is not None or not watch.steps:
        return explain_failure(watch, run, console)
    if run.retrain and not any(step.name == "resolve-inputs" for step in watch.steps):
        console.print("Nothing was trained: no new data since the newest registered version.", highlight=False)
        return 0
    show_summary(run.folder, watch.steps, time.monotonic() - began, console)
    return 0


def make_base_model(run: Run) -> Path:
    """A small model with random weights, made once for the same settings and problems.

    Raises:
        DataError: the settings or the problems are wrong.
    """
    from stepcoder.model.init import InitModelConfig, init_model

    shared = {
        name: value
        for name, value in run.settings.get("verification", {}).items()
        if name in {"validation", "test", "max_chars"}
    }
    inputs = {"problems": run.problems, "format": run.problem_format, "out": "-"}
    config = parse(InitModelConfig, shared | run.settings.get(INIT, {}), where=INIT, **inputs)
    mark = f"{config.model_dump_json()}{storage.address_digest(run.problems)}"
    out = run.folder / "base-models" / storage.text_digest(mark)[:16]
    if not out.exists():
        # The libraries below draw bars and warn of the missing GPU; none of it concerns a person who waits here.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            init_model(config.model_copy(update={"out": str(out)}))
    return out


def run_pipeline(run: Run, inputs: dict[str, Any], settings: dict[str, dict[str, Any]], console: Console) -> Watch:
    """Runs the pipeline under kfp.local, with step results kept under the run's folder."""
    warnings.filterwarnings("ignore", module="kfp")
    from kfp import local

    from pipelines.retraining import build_retraining
    from pipelines.stepcoder import build

    watch = Watch(run.folder / "logs", console)
    hits = CacheHits(watch)
    root = logging.getLogger()
    level = root.level
    root.addHandler(hits)
    root.setLevel(logging.INFO)
    try:
        with runner_of(run, inputs, settings) as (runner, version, settings):
            local.init(
                runner,
                pipeline_root=str(run.folder / "artifacts"),
                workspace_root=str(run.folder / "workspace"),
                enable_caching=True,
                # Kubeflow tells versions of the code by the image's name; here what it holds may change.
                cache_root=str(run.folder / "cache" / version[:16]),
            )
            with contextlib.redirect_stdout(watch):
                made = build_retraining if run.retrain else build
                made(run.stages, cluster=False)(
                    **inputs,
                    **settings,
                    checkpoints=str(run.folder / "checkpoints"),
                    measurements=str(run.folder / "measurements"),
                )
    except KeyboardInterrupt:
        # Nothing else runs the pipeline's last step then.
        notify(NotifyConfig(status="CANCELLED", run=os.environ["STEPCODER_RUN_ID"]))
        raise
    except Exception:
        # Kubeflow's way to say that a step failed; which one and why is in what it printed.
        watch.judge(run.folder / "artifacts")
        if watch.failed is None:
            raise
    finally:
        watch.finish()
        # A step that was killed outright could not clear away what it had begun.
        for partial in (run.folder / "artifacts").rglob(".*.partial"):
            storage.remove(str(partial))
        root.removeHandler(hits)
        root.setLevel(level)
    watch.judge(run.folder / "artifacts")
    return watch


@contextlib.contextmanager
def runner_of(
    run: Run, inputs: dict[str, Any], settings: dict[str, dict[str, Any]]
) -> Iterator[tuple[Any, str, dict[str, dict[str, Any]]]]:
    """The run's runner, a digest of the code that it runs, and the settings with which it does."""
    if run.runner == "process":
        from kfp import local

        yield local.SubprocessRunner(use_venv=False), code_digest(), settings
        return
    from pipelines import containers

    version = containers.image_digest()
    verification = check_settings(settings)["verification"]
    addresses = [inputs["problems"], inputs["base_model"], *companions_of(verification)]
    judging = {
        section: {"sandbox": containers.SANDBOX} | settings.get(section, {})
        for section in ("verification", "sft", "ppo", "evaluation")
    }
    others = {values["sandbox"] for values in judging.values()} - {containers.SANDBOX}
    with containers.docker_runner(run.folder, addresses, others) as runner:
        yield runner, version, settings | judging


def explain_failure(watch: Watch, run: Run, console: Console) -> int:
    """Says which step failed and why, and gives the exit status."""
    step = watch.failed
    if step is None:
        console.print("[red]error:[/red] no step has run")
        return 1
    console.print(f"\n[red]{step.name} failed[/red]")
    for line in step.errors or step.tail:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    console.print(
        f"The whole log: {run.folder / 'logs' / (step.name + '.log')}\nThe same command again goes on at this step.",
        highlight=False,
        soft_wrap=True,
    )
    return step.exit_status


def code_digest() -> str:
    """A digest of the library's source: an edited reward or mask must not meet results of the old one."""
    import stepcoder

    package = Path(stepcoder.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return storage.text_digest("\n".join(f"{path.relative_to(package)} {storage.digest(path)}" for path in files))


def _absolute(address: str) -> str:
    """Steps run in the same folder as this command, but cached results must not depend on it."""
    path = Path(address)
    return str(path.absolute()) if not storage.is_remote(address) and path.exists() else address


if __name__ == "__main__":
    sys.exit(main())
