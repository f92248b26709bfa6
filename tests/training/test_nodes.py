"""Several machines of one training: here, launchers on loopback with the environment of Kubeflow's torch runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from stepcoder.errors import DataError
from stepcoder.platform.config import StepConfig
from stepcoder.platform.launch import CONFIG
from stepcoder.platform.nodes import Nodes
from tests.servers import free_ports
from tests.training import stage_steps as steps
from tests.training.rank_steps import Config
from tests.training.test_stage_ranks import assert_same


@contextmanager
def machines(step: str, config: StepConfig, scratch: Path, count: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    """The launchers of all machines; killed at the end if they still run."""
    port = str(free_ports(1)[0])
    command = [sys.executable, "-m", "stepcoder.platform.launch", step]
    with ExitStack() as stack:
        processes = []
        for number in range(count):
            place = scratch / f"machine-{number}"
            place.mkdir(parents=True)
            environment = {
                **os.environ,
                CONFIG: config.model_dump_json(),
                "PET_NNODES": str(count),
                "PET_NODE_RANK": str(number),
                "PET_NPROC_PER_NODE": "1",
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
                "STEPCODER_HOME": str(place),
                "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
                "TMPDIR": str(place),  # Machines share no /tmp.
            }
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def ended(processes: list[subprocess.Popen[str]], seconds: float = 60) -> list[tuple[int, str]]:
    found = []
    for process in processes:
        _, log = process.communicate(timeout=seconds)
        found.append((process.returncode, log))
    return found


def step(name: str) -> str:
    return f"tests.training.rank_steps:Config:{name}"


def test_the_place_among_the_machines_comes_from_the_torch_runtime() -> None:
    given = {"PET_NNODES": "4", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29400"}
    assert Nodes.of(given) == Nodes(4, 2, "job-node-0-0.job", 29400)
    assert Nodes.of({}) == Nodes.of({"PET_NNODES": "1", "PET_NODE_RANK": "0"}) == Nodes(count=1)
    with pytest.raises(DataError, match="PET_NODE_RANK='x', PET_MASTER_PORT=''"):
        Nodes.of({"PET_NNODES": "2", "PET_NODE_RANK": "x", "PET_MASTER_ADDR": "a"})
    with pytest.raises(DataError, match="PET_MASTER_ADDR"):
        Nodes.of({"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_PORT": "1"})


def test_the_fault_of_one_machine_ends_all_with_its_error_and_status(tmp_path: Path) -> None:
    with machines(step("fail"), Config(out=str(tmp_path), what="data"), tmp_path) as processes:
        (first, first_log), (second, second_log) = ended(processes, 90)
    assert (first, second) == (2, 2), first_log + second_log
    assert 'event=failed error="node 1: rank 1: problems.jsonl: line 3 is bad" exit_status=2' in first_log
    assert 'event=failed error="rank 1: problems.jsonl: line 3 is bad" exit_status=2' in second_log


def test_the_other_machines_end_when_the_first_is_gone(tmp_path: Path) -> None:
    with machines(step("wait"), Config(out=str(tmp_path)), tmp_path) as processes:
        begin = time.monotonic()
        while not all((tmp_path / f"pid-{rank}").exists() for rank in range(2)):
            assert time.monotonic() < begin + 90
            time.sleep(0.1)
        processes[0].kill()  # Its rank dies with it.
        ((status, log),) = ended(processes[1:], 90)
    assert status == 1, log
    assert "event=failed" in log


@pytest.mark.slow
def test_two_machines_of_two_ranks_give_the_curves_and_weights_of_one_process(
    dataset: Path, policy: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    places = steps.Config(out=str(tmp_path), dataset=str(dataset), policy=str(policy), base_model=str(base_model))
    steps.train(steps.settings_of("ppo-2", places, tmp_path / "one"))
    settings = steps.settings_of("ppo-2", places, tmp_path / "two", nproc_per_node=2)
    with machines("ppo", settings, tmp_path) as processes:
        results = ended(processes, 200)
    assert [status for status, _ in results] == [0, 0], results
    assert_same(tmp_path / "one" / "ppo-2", tmp_path / "two" / "ppo-2")
    assert "MLflow cannot be reached" in results[0][1]
    assert "MLflow" not in results[1][1]
