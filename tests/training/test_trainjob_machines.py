"""The machines of a TrainJob for real: the processes that its object describes, and a real object store between them.

Kubeflow Trainer itself is a stand-in here: it starts the command of each machine with the environment that the object
and the torch runtime give it, on loopback, and tells how they end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.sft.component import sft
from stepcoder.platform import storage
from stepcoder.platform.trainjob import follow
from tests.platform.trainjob.kubernetes_api import Kubernetes, serving
from tests.platform.trainjob.work import OWN_POD, QUICK, Object, reference
from tests.servers import free_ports
from tests.servers.swift import Swift
from tests.training import stage_steps as steps
from tests.training.test_stage_ranks import assert_same

pytestmark = [pytest.mark.slow, pytest.mark.s3]


class Trainer:
    """Starts the machines of a TrainJob at the first look at it, and tells at each one how far they are."""

    def __init__(self, folder: Path, secrets: dict[str, str]) -> None:
        self.folder, self.secrets = folder, secrets
        self.machines: list[subprocess.Popen[str]] = []
        self.stack = ExitStack()

    def log(self, number: int) -> str:
        return (self.folder / f"log-{number}").read_text()

    def __call__(self, kubernetes: Kubernetes, job: Object) -> None:
        trainer, name = job["spec"]["trainer"], job["metadata"]["name"]
        self.machines = self.machines or self._started(trainer)
        states = [machine.poll() for machine in self.machines]
        for number, status in enumerate(states):
            ended = {"terminated": {"exitCode": status, "finishedAt": f"2026-01-01T00:00:0{number}Z"}}
            pod = kubernetes.pod(name, number, state={"running": {}} if status is None else ended)
            lines = enumerate(self.log(number).splitlines())
            kubernetes.logs[pod] = [f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z {line}" for at, line in lines]
        if None in states:
            kubernetes.script.append(self)
        else:
            kubernetes.status(name, "Failed" if any(states) else "Complete")

    def _secret(self, variable: Object) -> str:
        return self.secrets[variable["valueFrom"]["secretKeyRef"]["key"]] if "valueFrom" in variable else ""

    def _started(self, trainer: Object) -> list[subprocess.Popen[str]]:
        port = str(free_ports(1)[0])
        interpreter, *arguments = trainer["command"]
        assert interpreter == "python"
        machines = []
        for number in range(trainer["numNodes"]):
            place = self.folder / f"machine-{number}"
            place.mkdir()
            given = {item["name"]: item.get("value") or self._secret(item) for item in trainer["env"]}
            own = {
                **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ},
                **given,
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NODE_RANK": str(number),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
                # Machines share no /tmp.
                "HOME": str(place),
                "TMPDIR": str(place),
            }
            log = self.stack.enter_context((self.folder / f"log-{number}").open("w"))
            command = [sys.executable, *arguments]
            process = subprocess.Popen(command, env=own, stderr=log, stdout=log, text=True, cwd=os.getcwd())
            self.stack.callback(process.kill)
            machines.append(process)
        return machines


@pytest.fixture
def trainer(swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """A cluster in which this process is a pod of a pipeline run; the store is known by the usual variables."""
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    own: Any = {**OWN_POD, "spec": {**OWN_POD["spec"], "containers": [{**OWN_POD["spec"]["containers"][1]}]}}
    own["spec"]["containers"][0]["env"] = [
        {"name": "MLFLOW_TRACKING_URI", "value": "http://127.0.0.1:9"},
        {"name": "STEPCODER_MLFLOW_WAIT", "value": "0"},
        *(reference("secret", "stepcoder", name) for name in swift.environment),
    ]
    kubernetes = Kubernetes(pods={own["metadata"]["name"]: own})
    made = Trainer(tmp_path, dict(swift.environment))
    kubernetes.script = [made]
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KFP_POD_NAME", own["metadata"]["name"])
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    monkeypatch.setenv("STEPCODER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(follow.train, "__defaults__", (QUICK,))
    with serving(kubernetes, tmp_path) as kubeconfig, made.stack:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield made


def test_the_component_gets_from_two_machines_what_one_process_trains(
    trainer: Trainer, swift: Swift, dataset: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = steps.Config(out=str(tmp_path), dataset=str(dataset), policy="", base_model=str(base_model))
    steps.train(steps.settings_of("sft-0", places, tmp_path / "one"))
    bucket = f"s3://{swift.bucket()}"
    storage.publish(dataset, f"{bucket}/dataset")
    storage.publish(base_model, f"{bucket}/base")
    capsys.readouterr()

    def artifact(name: str) -> dsl.Artifact:
        made = dsl.Artifact(uri=f"{bucket}/{name}")
        made.custom_path = str(tmp_path / "pod" / name)
        return made

    names = {name: artifact(name) for name in ("dataset", "policy", "history")}
    sft.python_func(
        base_model=f"{bucket}/base", base_model_digest="abc", settings={**steps.SFT, "zero_stage": 0}, checkpoints="",
        nodes=2, gpus_per_node=0, **names,
    )  # fmt: skip
    assert_same(tmp_path / "one" / "sft-0", storage.fetch(f"{bucket}/policy").parent)
    assert (tmp_path / "pod" / "history" / "0" / "summary.json").is_file()
    # The first machine's log is this pod's too, and it alone tells MLflow.
    told = capsys.readouterr().err
    assert "MLflow cannot be reached" in trainer.log(0)
    assert all(line in told for line in trainer.log(0).splitlines())
    assert "MLflow" not in trainer.log(1)
    assert not any(secret in told for name, secret in trainer.secrets.items() if "SECRET" in name)
