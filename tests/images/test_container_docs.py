"""The commands of the section on containers, as printed, in the order of the page, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest
from botocore.config import Config
from docker_runs import ROOT

from stepcoder import images
from stepcoder.sandbox.container import FOLDER_LABEL

PAGE = ROOT / "README.md"
SECTION = "## In containers"
STEPS = {
    "resolve-inputs": images.TOOLS,
    "verify-dataset": images.TOOLS,
    "sft": images.TRAINER,
    "ppo-stage": images.TRAINER,
    "evaluate": images.TRAINER,
    "promotion-gate": images.TOOLS,
    "register-model": images.TOOLS,
    "notify": images.TOOLS,
}
pytestmark = [pytest.mark.docker, pytest.mark.slow]


def section() -> str:
    return PAGE.read_text().split(f"{SECTION}\n", 1)[1].split("\n## ", 1)[0]


def blocks(heading: str) -> list[str]:
    """The commands below a heading of the section; those before the first heading are below an empty one."""
    parts = re.split(r"^### (.*)\n", "### \n" + section(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    return re.findall(r"^```sh\n(.*?)^```", found, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("components", "examples", "pipelines", "stepcoder"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def execute(commands: list[str], folder: Path, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEPCODER_", "MLFLOW_", "AWS_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env=kept | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def versions(folder: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        return database.execute("select name, version from model_versions").fetchall()


def test_no_command_is_left_out_and_the_images_are_those_of_this_version() -> None:
    page = section()
    headings = ["", "Step by step", "Object stores", "The whole pipeline"]
    assert sum(len(blocks(heading)) for heading in headings) == page.count("```sh\n") == 5
    # Whoever runs these tests has done it: they are tests of what it made.
    assert [block.split("#")[0].strip() for block in blocks("")] == ["make images"]
    assert set(re.findall(r"stepcoder/(?:tools|trainer):[\w.]+", page)) == {images.TOOLS, images.TRAINER}


def test_step_by_step(engine: docker.DockerClient, clone: Path) -> None:
    try:
        execute(blocks("Step by step"), clone)
    finally:
        subprocess.run(["docker", "rm", "--force", "stepcoder-sandbox"], capture_output=True, check=False)
    box = clone / "runs" / "box"
    assert json.loads((box / "dataset" / "card.json").read_text())["accepted"] > 200
    metrics = json.loads((box / "evaluation" / "metrics.json").read_text())
    assert metrics["models"].keys() == {"base", "sft", "candidate"}
    assert (box / "policy" / "stepcoder.json").exists()
    assert json.loads((box / "decision" / "decision.json").read_text())["why"]
    assert versions(clone) == [("box", 1)]
    assert {path.stat().st_uid for path in box.rglob("*") if "room" not in path.parts} == {os.getuid()}


OTHER_STEPS = f"""
far() {{ store --user 12345:6789 "$@"; }}
SMALL="--precision fp32 --zero-stage 0 --gradient-checkpointing False --max-new-tokens 32 --validation-problems 0"
far {images.TOOLS} resolve-inputs --problems s3://$BUCKET/problems.jsonl --problem-format apps_plus \
    --base-model s3://$BUCKET/base
far {images.TRAINER} ppo --dataset s3://$BUCKET/dataset --policy s3://$BUCKET/sft --reference s3://$BUCKET/sft \
    --out s3://$BUCKET/policy --out-critic s3://$BUCKET/critic --out-curriculum s3://$BUCKET/curriculum --steps 1 \
    --problems-per-step 2 --samples-per-problem 2 --minibatches 1 --checkpoints s3://$BUCKET/checkpoints $SMALL
far {images.TRAINER} evaluate --dataset s3://$BUCKET/dataset --base s3://$BUCKET/base --sft s3://$BUCKET/sft \
    --candidate s3://$BUCKET/policy --history s3://$BUCKET/sft s3://$BUCKET/policy --problems 2 --samples 1 \
    --max-new-tokens 32 --out s3://$BUCKET/evaluation
far {images.TOOLS} gate --evaluation s3://$BUCKET/evaluation --out s3://$BUCKET/decision
far {images.TOOLS} register --policy s3://$BUCKET/policy --decision s3://$BUCKET/decision --model-name box
far {images.TOOLS} judge --problems s3://$BUCKET/problems.jsonl --format apps_plus \
    --programs s3://$BUCKET/programs.jsonl --out s3://$BUCKET/verdicts.jsonl
"""
"""Steps that the page does not show with an object store, as a user that the images do not know."""


@pytest.mark.s3
def test_object_stores(engine: docker.DockerClient, swift: Any, clone: Path) -> None:
    bucket = swift.bucket()
    store = boto3.client(
        "s3",
        endpoint_url=swift.endpoint,
        aws_access_key_id=swift.access_key,
        aws_secret_access_key=swift.secret_key,
        region_name=swift.region,
        config=Config(s3={"addressing_style": "path"}),
    )
    problems = ROOT / "examples" / "problems.jsonl"
    store.upload_file(str(problems), bucket, "problems.jsonl")
    record = json.loads(problems.read_text().splitlines()[0])
    program = {"id": record["id"], "program": record["canonical_solution"]}
    store.put_object(Bucket=bucket, Key="programs.jsonl", Body=json.dumps(program).encode())
    output = execute([*blocks("Object stores"), OTHER_STEPS], clone, BUCKET=bucket, **swift.environment)
    assert swift.secret_key not in output
    assert re.search(r"event=registered model=box version=1\b", output)
    names = {item["Key"] for item in store.list_objects_v2(Bucket=bucket)["Contents"]}
    outputs = {
        "dataset/card.json",
        "base/config.json",
        "sft/stepcoder.json",
        "policy/model.safetensors",
        "critic/stepcoder.json",
        "curriculum/curriculum.json",
        "evaluation/metrics.json",
        "decision/decision.json",
        "verdicts.jsonl",
    }
    assert outputs <= names
    assert not any(name.startswith("checkpoints/") for name in names)  # both trainings have ended


def test_the_whole_pipeline(engine: docker.DockerClient, clone: Path, own_tmp: Path) -> None:
    # Watched from the start: an engine remembers its last 256 events only.
    watching = ["docker", "events", "--filter", "type=container", "--filter", "event=die"]
    with subprocess.Popen([*watching, "--format", "{{json .Actor.Attributes}}"], stdout=subprocess.PIPE) as watcher:
        try:
            execute(blocks("The whole pipeline"), clone, TMPDIR=str(own_tmp))
        finally:
            watcher.terminate()
        ended = [json.loads(line) for line in watcher.communicate()[0].splitlines()]
    of_run = [event for event in ended if event.get("stepcoder.run", "").startswith("docker-")]
    assert [(event["image"], event["exitCode"]) for event in of_run] == [(image, "0") for image in STEPS.values()]
    sandboxes = [event for event in ended if event.get(FOLDER_LABEL, "").startswith(str(own_tmp))]
    assert [event["image"] for event in sandboxes] == [images.TOOLS]
    run = next((clone / "runs" / "docker" / "artifacts").iterdir())
    assert {path.parent.name for path in run.rglob("executor_output.json")} == STEPS.keys()
    metrics = json.loads(next(run.rglob("evaluation/metrics.json")).read_text())
    assert metrics["models"].keys() == {"base", "sft", "candidate"}
    programs = [json.loads(line) for line in next(run.rglob("evaluation/samples.jsonl")).read_text().splitlines()]
    assert programs
    settings = json.loads(next(run.rglob("evaluation/config.json")).read_text())
    assert settings["sandbox"] == "http+unix:///run/stepcoder/sandbox.sock"
    assert versions(clone) == [("stepcoder", 1)]
