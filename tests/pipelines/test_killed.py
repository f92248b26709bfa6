"""A run that is killed outright in every one of its steps, and started again each time."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from stepcoder.platform.tracking.model_registry import DIGEST_TAG

ROOT = Path(__file__).resolve().parents[2]
STEPS = [
    "resolve-inputs",
    "verify-dataset",
    "sft",
    "ppo-stage-1",
    "evaluate",
    "promotion-gate",
    "register-model",
    "notify",
]


def begin(home: Path, problems: Path) -> subprocess.Popen[bytes]:
    # The base model of the same seed is the same; "ppo" is long enough for a kill between two checkpoints.
    command = [sys.executable, "-m", "pipelines.local", "--preset", "smoke", "--set", "ppo.steps=4"]
    command += ["--problems", str(problems)]
    clean = {"MLFLOW_TRACKING_URI": "", "STEPCODER_RUN_ID": "", "STEPCODER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def registered(home: Path) -> tuple[int, str]:
    """How many policies are registered, and the digest of the newest one's weights."""
    client = MlflowClient(f"sqlite:///{home}/runs/mlflow.db")
    versions = sorted(client.search_model_versions("name='stepcoder'"), key=lambda version: int(version.version))
    weights = Path(versions[-1].source.removeprefix("file://")) / "model.safetensors"
    return len({version.tags[DIGEST_TAG] for version in versions}), hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_run_killed_in_every_step_ends_with_the_model_of_one_that_was_not(tmp_path: Path, few_problems: Path) -> None:
    for step in STEPS:
        logs = tmp_path / "killed" / "runs" / "smoke" / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        with begin(tmp_path / "killed", few_problems) as process:
            log = logs / f"{step}.log"
            while process.poll() is None and not (log.exists() and log.stat().st_size):
                time.sleep(0.05)
            assert process.poll() is None, f"the run ended before {step}: {process.communicate()[0].decode()}"
            os.killpg(process.pid, signal.SIGKILL)
    for home in ("killed", "whole"):
        with begin(tmp_path / home, few_problems) as process:
            output = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, output
    assert registered(tmp_path / "killed") == registered(tmp_path / "whole")
