"""A small HTTP server of our own that answers as the Kubernetes API does; no Kubernetes is behind it.

It holds TrainJobs, pods, logs and events of one namespace, checks a TrainJob against the types that Kubeflow publishes
(`kubeflow-trainer-api`, generated from what the CRD is generated from), knows label selectors,
`fieldValidation=Strict`, `sinceTime`, `tailLines` and Status objects, and does on request what real servers do at
times: errors, silence, cut connections.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

NAMESPACE = "team"
TOKEN = "token-of-the-test"
Object = dict[str, Any]


def unknown_fields(given: Any, known: Any, path: str = "") -> list[str]:
    """Paths of fields that the typed model has dropped."""
    if isinstance(given, dict) and isinstance(known, dict):
        return [
            found
            for name, value in given.items()
            for found in (unknown_fields(value, known[name], f"{path}.{name}") if name in known else [f"{path}.{name}"])
        ]
    if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        return [found for one, other in zip(given, known, strict=True) for found in unknown_fields(one, other, path)]
    return [] if given == known else [path]


def faults_of(job: Object) -> list[str]:
    """What Kubeflow's types do not allow in a TrainJob."""
    try:
        model = TrainerV1alpha1TrainJob.from_dict(job)
    except ValueError as error:
        return [str(error)]
    assert model is not None
    return [f"unknown field {path[1:]}" for path in unknown_fields(job, json.loads(model.to_json()))]


@dataclass
class Trouble:
    """What happens to the next requests that match, in place of an answer."""

    method: str
    part: str
    """Part of the path."""
    status: int = 0
    """Answer with this status; 0: cut the connection; -1: be silent for a second, then cut it."""
    times: int = 1
    after: bool = False
    """Do what was asked before, so that only the answer is lost."""


@dataclass
class Kubernetes:
    """What is in the namespace."""

    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """By pod, lines with their time before them."""
    events: list[Object] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    script: list[Callable[[Kubernetes, Object], None]] = field(default_factory=list)
    """What happens in the cluster, one entry at each look at a TrainJob that is there."""
    address: str = ""
    created: list[Object] = field(default_factory=list)

    def status(self, job: str, kind: str, reason: str = "", message: str = "") -> None:
        self.jobs[job]["status"] = {
            "conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]
        }

    def pod(self, job: str, number: int, *, state: Object | None = None, **status: Any) -> str:
        """A pod of a TrainJob, made or changed."""
        name = f"{job}-node-0-{number}-abcde"
        meta = {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {"jobset.sigs.k8s.io/jobset-name": job},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(number)},
        }
        containers = [{"name": "node", "state": state}] if state else []
        self.pods[name] = {"metadata": meta, "status": {"containerStatuses": containers, **status}}
        return name

    def count(self, method: str, part: str) -> int:
        return sum(method == verb and part in path for verb, path in self.requests)

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> tuple[int, Any]:
        place, _, name = path.partition("/trainjobs")
        if place.startswith("/apis/"):
            return self._job(method, name.strip("/"), query, body)
        _, _, rest = path.partition(f"/api/v1/namespaces/{NAMESPACE}/")
        kind, _, name = rest.partition("/")
        if kind == "events":
            return 200, {"items": self.events}
        if not name:
            return 200, {"items": self._selected(self.pods, query)}
        name, _, what = name.partition("/")
        if name not in self.pods:
            return 404, _error(404, f'pods "{name}" not found')
        return 200, self._log(name, query) if what == "log" else self.pods[name]

    def _job(self, method: str, name: str, query: dict[str, str], body: Object | None) -> tuple[int, Any]:
        if method == "POST":
            assert body is not None
            name = body["metadata"]["name"]
            if query.get("fieldValidation") == "Strict" and (faults := faults_of(body)):
                return 400, _error(400, "strict decoding error: " + ", ".join(faults))
            if name in self.jobs:
                return 409, _error(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
            self.created.append(body)
            meta = {**body["metadata"], "uid": f"uid-{len(self.created)}", "creationTimestamp": "2026-01-01T00:00:00Z"}
            self.jobs[name] = {**body, "metadata": meta}
            return 201, self.jobs[name]
        if not name:
            return 200, {"items": self._selected(self.jobs, query)}
        if name not in self.jobs:
            return 404, _error(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if method == "DELETE":
            assert body is not None
            assert body["propagationPolicy"] == "Foreground"
            gone = self.jobs.pop(name)
            self.pods = {key: pod for key, pod in self.pods.items() if not key.startswith(f"{name}-")}
            return 200, gone
        if self.script:
            self.script.pop(0)(self, self.jobs[name])
        return (200, self.jobs[name]) if name in self.jobs else (404, _error(404, "not found"))

    def _log(self, name: str, query: dict[str, str]) -> str:
        since = query.get("sinceTime", "")[:19]
        lines = [line for line in self.logs.get(name, []) if line[:19] >= since]
        return "".join(f"{line}\n" for line in lines[-int(query.get("tailLines", "1000000")) :])

    @staticmethod
    def _selected(objects: dict[str, Object], query: dict[str, str]) -> list[Object]:
        wanted = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        return [item for item in objects.values() if wanted.items() <= item["metadata"].get("labels", {}).items()]


def _error(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@contextmanager
def serving(kubernetes: Kubernetes, folder: Path) -> Iterator[Path]:
    """Serves on loopback; yields a kubeconfig for it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            kubernetes.requests.append((self.command, parts.path))
            trouble = next(
                (one for one in kubernetes.troubles if one.method == self.command and one.part in parts.path), None
            )
            if trouble:
                trouble.times -= 1
                if not trouble.times:
                    kubernetes.troubles.remove(trouble)
                if trouble.after:
                    kubernetes.answer(self.command, parts.path, query, body)
                if trouble.status <= 0:
                    time.sleep(-trouble.status)
                    self.close_connection = True
                    self.connection.close()
                    return
                status, answer = trouble.status, _error(trouble.status, "trouble")
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, answer = 401, _error(401, "Unauthorized")
            else:
                status, answer = kubernetes.answer(self.command, parts.path, query, body)
            text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _do

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    kubernetes.address = f"http://127.0.0.1:{server.server_address[1]}"
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
        "clusters": [{"name": "test", "cluster": {"server": kubernetes.address}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(settings))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
