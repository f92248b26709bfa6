"""Starts a compiled pipeline on Kubeflow: `python -m pipelines.submit PIPELINE.yaml --parameters run.yaml`.

Parameters are checked before anything is sent. With `--wait` the run is followed to its end.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipelines.follow import BAD, command, follow
from pipelines.kubeflow import ENVIRONMENT, Kubeflow, UnansweredError, connect, equals, say
from pipelines.parameters import Compiled, read_compiled, read_declared, resolve
from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import storage

SERVICE_ACCOUNT = "stepcoder-pipeline"
EXPERIMENT = "stepcoder"
_NAME_HELP = "name of the run; a run of this name and content that has not failed is taken, not started twice"
_SET_HELP = "one input, or one setting of a step as ppo.learning_rate=1e-5; null for its default; repeatable"


@dataclass(frozen=True)
class Submission:
    """One run as the command line describes it."""

    compiled: Compiled
    parameters: dict[str, Any]
    name: str
    experiment: str
    service_account: str
    cache: bool

    @property
    def mark(self) -> str:
        """What a run's description holds, so that a run can be told from another one of the same name."""
        content = [self.compiled.digest, self.parameters, self.name, self.service_account, self.cache]
        return f"pipelines.submit {storage.text_digest(json.dumps(content, sort_keys=True))[:16]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        The exit status: 0; 1 for a fault at run time, or with `--wait` a run that did not succeed; 2 for bad input;
        130 when interrupted.
    """
    given = _parser().parse_args(arguments)
    run_id, submission = given.follow, None
    try:
        if not run_id:
            submission = read_submission(given)
            if given.dry_run:
                _show_dry_run(submission, given.output)
                return 0
        kubeflow = connect(given.host, given.namespace)
        if submission is not None:
            run_id, fresh = start(kubeflow, submission)
            _show(kubeflow, run_id, submission.name, fresh, given.output)
        if not given.wait and not given.follow:
            return 0
        state = follow(kubeflow, run_id, every=given.every)
        if given.output == "json":
            print(json.dumps({"run_id": run_id, "state": state}), flush=True)
        return 1 if state in BAD else 0
    except StepCoderError as error:
        for line in str(error).splitlines():
            say(f"error: {line}")
        return error.exit_status
    except KeyboardInterrupt:
        if run_id:
            say(f"\ninterrupted; the run goes on: {command(run_id, given.namespace)}")
        else:
            say(f"\ninterrupted{'; ' + _unknown(submission) if submission else ''}")
        return 130


def read_submission(given: argparse.Namespace) -> Submission:
    """Reads and checks all that the command line names.

    Raises:
        DataError: lists every fault.
    """
    if given.pipeline is None:
        raise DataError("PIPELINE.yaml is missing, for example pipelines/stepcoder.yaml")
    compiled = read_compiled(given.pipeline)
    declared = read_declared(given.parameters) if given.parameters else {}
    parameters = resolve(compiled, declared, given.set, where=str(given.parameters or ""))
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    return Submission(
        compiled=compiled,
        parameters=parameters,
        name=given.name or f"{compiled.name} {now} {uuid.uuid4().hex[:6]}",
        experiment=given.experiment,
        service_account=given.service_account,
        cache=not given.no_cache,
    )


def start(kubeflow: Kubeflow, submission: Submission) -> tuple[str, bool]:
    """Starts a run, once even if the server's answer gets lost.

    Returns:
        The run's id, and whether it was started now: a run of this name and content that has not failed is taken.

    Raises:
        StepCoderError: refused, or it is not known whether it was started.
    """
    models = kubeflow.client.api_models
    experiment = kubeflow.experiment(submission.experiment)
    scope = {"experiment_id": experiment, "filter": equals(display_name=submission.name)}
    body = models.V2beta1Run(
        experiment_id=experiment,
        display_name=submission.name,
        description=submission.mark,
        pipeline_spec=submission.compiled.body(cache=submission.cache),
        runtime_config=models.V2beta1RuntimeConfig(parameters=submission.parameters),
        service_account=submission.service_account,
    )
    fresh = False

    def same() -> list[Any]:
        runs = kubeflow.pages(kubeflow.client.runs.run_service_list_runs, "runs", **scope)
        return sorted((run for run in runs if run.description == submission.mark), key=lambda run: str(run.created_at))

    failed = {run.run_id for run in same() if run.state in BAD}

    def look() -> str | None:
        return next((str(run.run_id) for run in same() if run.run_id not in failed), None)

    def make() -> str:
        nonlocal fresh
        fresh = True
        return str(kubeflow.call(kubeflow.client.runs.run_service_create_run, body).run_id)

    try:
        return str(kubeflow.once(look, make)), fresh
    except UnansweredError as error:
        raise StepCoderError(f"{error}\n{_unknown(submission)}" if fresh else str(error)) from error


def _unknown(submission: Submission) -> str:
    return (
        "it is not known whether the run was started: the same command with "
        f"--name '{submission.name}' takes it if it was, and else starts it"
    )


def _show(kubeflow: Kubeflow, run_id: str, name: str, fresh: bool, output: str) -> None:
    link = kubeflow.link(f"runs/details/{run_id}")
    if output == "json":
        print(json.dumps({"run_id": run_id, "name": name, "link": link, "started": fresh}), flush=True)
        return
    if not fresh:
        say("a run of this name and content is there already; it was not started again")
    print(f"run {run_id}: {name}\n{link}", flush=True)


def _show_dry_run(submission: Submission, output: str) -> None:
    content = {
        "pipeline": submission.compiled.name,
        "name": submission.name,
        "experiment": submission.experiment,
        "service_account": submission.service_account,
        "cache": submission.cache,
        "parameters": submission.parameters,
    }
    if output == "json":
        print(json.dumps(content))
    else:
        print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")
        say("nothing was sent")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 3600, not {text}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.submit",
        description=(__doc__ or "").splitlines()[0],
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", nargs="?", type=Path, metavar="PIPELINE.yaml", help="the compiled pipeline")
    parser.add_argument("--parameters", type=Path, metavar="FILE", help="YAML or JSON: the pipeline's inputs by name")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=_SET_HELP)
    parser.add_argument("--experiment", default=EXPERIMENT, help=f"made if there is none (default: {EXPERIMENT})")
    parser.add_argument("--name", help=_NAME_HELP)
    parser.add_argument("--service-account", default=SERVICE_ACCOUNT, help=f"of the pods (default: {SERVICE_ACCOUNT})")
    parser.add_argument("--no-cache", action="store_true", help="run every step anew")
    parser.add_argument("--host", help="address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT)")
    parser.add_argument("--namespace", help="your profile's, where Kubeflow has many users")
    parser.add_argument("--wait", action="store_true", help="follow the run; exit status 1 if it does not succeed")
    parser.add_argument("--follow", metavar="RUN_ID", help="start nothing, follow this run")
    parser.add_argument(
        "--every", type=_seconds, default=10.0, metavar="SECONDS", help="between two looks (default: 10)"
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="json: one object a line")
    parser.add_argument("--dry-run", action="store_true", help="check everything, show it, send nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
