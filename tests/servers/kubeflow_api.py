"""A server that answers as Kubeflow Pipelines does, for tests. It is not Kubeflow: no cluster, nothing is run.

It answers by Kubeflow's published API models (package kfp-server-api): every request's body must read as one of them,
field by field, and every answer is written by one of them. It keeps state, pages its lists, filters them, and gives
errors in Kubeflow's form. Where the models leave open what the real server does (filters, the name of a second
version, cron with five fields), it does what the server's source says.

A test can act on requests: cut the connection before or after one is carried out, answer with an error or a web page,
or kill the client.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_server_api import models

_CLIENT = kfp_server_api.ApiClient(kfp_server_api.Configuration(host="http://localhost"))
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
_IDS = {
    "experiments": "experiment_id",
    "pipelines": "pipeline_id",
    "runs": "run_id",
    "recurringruns": "recurring_run_id",
}
_LISTS = {
    "experiments": models.V2beta1ListExperimentsResponse,
    "pipelines": models.V2beta1ListPipelinesResponse,
    "versions": models.V2beta1ListPipelineVersionsResponse,
    "runs": models.V2beta1ListRunsResponse,
    "recurringruns": models.V2beta1ListRecurringRunsResponse,
}
_FIELDS = {"recurringruns": "recurring_runs", "versions": "pipeline_versions"}


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Request:
    """One request as a test sees it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


@dataclass
class Cut(Exception):
    """Raised by a test's hook: the connection ends, and the client gets no answer."""


@dataclass
class KubeflowApi:
    """The state, and what tests may set."""

    address: str = ""
    multi_user: bool = False
    version: str = "2.16.1"
    token: str | None = None
    page: str | None = None
    """A web page that is the answer to everything, as a login page in front of Kubeflow."""
    before: Callable[[Request], None] = lambda request: None
    """Called before a request is carried out; it may raise `Cut` or `Refused`."""
    after: Callable[[Request], None] = lambda request: None
    """Called when it is carried out and not yet answered."""
    experiments: dict[str, Any] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurringruns: dict[str, Any] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    most_active: int = 0
    """The most recurring runs of one name that ever were active at a time."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _clock: datetime = datetime(2026, 11, 21, tzinfo=UTC)

    def answer(self, request: Request) -> Any:
        """Carries a request out, and gives the JSON of the answer."""
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        path = request.path.removeprefix("/apis/v2beta1/")
        if path == request.path:
            raise Refused(404, "Not Found")
        if path == "healthz":
            store = {"commit_sha": "unknown", "tag_name": self.version, "pipeline_store": "database"}
            return store | {"multi_user": self.multi_user}
        if path == "pipelines/upload_version":
            return self._upload(request)
        with self.lock:
            parts = re.fullmatch(r"(\w+)(?:/([\w-]+))?(?:/(versions)(?:/([\w-]+))?)?(?::(\w+))?", path)
            if parts is None or parts[1] not in _IDS:
                raise Refused(404, "Not Found")
            answer = self._object(request, *parts.groups())
        active: dict[str, int] = {}
        for one in self.recurringruns.values():
            active[one.display_name] = active.get(one.display_name, 0) + (one.mode == "ENABLE")
        self.most_active = max([self.most_active, *active.values()])
        return answer

    def _object(
        self, request: Request, kind: str, key: str | None, sub: str | None, version: str | None, verb: str | None
    ) -> Any:
        store = getattr(self, kind)
        if sub is not None:
            if version is None:
                of_pipeline = [one for one in self.versions.values() if one.pipeline_id == key]
                return self._list("versions", of_pipeline, request.query)
            return _json(_get(self.versions, version))
        if request.method == "GET":
            return (
                _json(_get(store, key)) if key else self._list(kind, self._scoped(kind, request.query), request.query)
            )
        if request.method == "POST" and key is None:
            return _json(getattr(self, f"_create_{kind}")(_read(request.body, kind)))
        one = _get(store, key)
        if request.method == "DELETE" and kind == "recurringruns":
            if request.query.get("propagation_policy") not in {
                None,
                *models.V2beta1DeletePropagationPolicy.allowable_values,
            }:
                raise Refused(400, "parsing field propagation_policy")
            del store[key]
        elif (kind, verb) == ("recurringruns", "enable"):
            one.mode, one.status = "ENABLE", "ENABLED"
        elif (kind, verb) == ("recurringruns", "disable"):
            one.mode, one.status = "DISABLE", "DISABLED"
        else:
            raise Refused(404, "Not Found")
        return {}

    def _scoped(self, kind: str, query: dict[str, str]) -> list[Any]:
        if self.multi_user and not query.get("namespace") and not query.get("experiment_id"):
            raise Refused(400, "Invalid input error: In multi-user mode, namespace must be specified")
        found = list(getattr(self, kind).values())
        if "experiment_id" in query:
            found = [one for one in found if one.experiment_id == query["experiment_id"]]
        if query.get("namespace") and kind in {"experiments", "recurringruns", "pipelines"}:
            found = [one for one in found if one.namespace == query["namespace"]]
        return found

    def _list(self, kind: str, found: list[Any], query: dict[str, str]) -> Any:
        found = sorted(_filtered(found, query.get("filter")), key=lambda one: one.created_at)
        size = int(query.get("page_size") or 20)
        begin = int(base64.b64decode(query.get("page_token") or "MA=="))
        following = begin + size
        token = base64.b64encode(str(following).encode()).decode() if following < len(found) else None
        name = _FIELDS.get(kind, kind)
        page = _LISTS[kind](total_size=len(found), next_page_token=token, **{name: found[begin:following] or None})
        return _json(page)

    def _create_experiments(self, body: Any) -> Any:
        self._in_namespace(body)
        if any(one.display_name == body.display_name for one in self.experiments.values()):
            raise Refused(409, f"Already exist error: experiment {body.display_name}")
        return self._keep(self.experiments, "experiment_id", body)

    def _create_pipelines(self, body: Any) -> Any:
        if not body.name and not body.display_name:
            raise Refused(400, "Invalid input error: pipeline's name cannot be empty")
        if any(one.name == body.name for one in self.pipelines.values()):
            raise Refused(409, f"Already exist error: pipeline {body.name}")
        return self._keep(self.pipelines, "pipeline_id", body)

    def _create_runs(self, body: Any) -> Any:
        if not body.display_name:
            raise Refused(400, "Invalid input error: The run name is empty. Please specify a valid name")
        _get(self.experiments, body.experiment_id)
        self._check_pipeline(body)
        body.state = "PENDING"
        return self._keep(self.runs, "run_id", body)

    def _create_recurringruns(self, body: Any) -> Any:
        body.namespace = _get(self.experiments, body.experiment_id).namespace
        self._check_pipeline(body)
        cron = body.trigger.cron_schedule.cron if body.trigger.cron_schedule else None
        if cron is not None and len(cron.split()) not in {5, 6}:
            raise Refused(400, "Invalid input error: Schedule cron is not a supported format")
        if not 1 <= int(body.max_concurrency or 0) <= 10:
            raise Refused(400, "Invalid input error: max_concurrency must be at least 1 and at most 10")
        body.status = f"{body.mode}D"
        return self._keep(self.recurringruns, "recurring_run_id", body)

    def _check_pipeline(self, body: Any) -> None:
        """The parameters as the server checks them: names, and those that are missing."""
        if body.pipeline_version_reference is not None:
            spec = _get(self.versions, body.pipeline_version_reference.pipeline_version_id).pipeline_spec
        else:
            spec = body.pipeline_spec
        _parsed(spec)
        inputs = spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"]
        given = (body.runtime_config and body.runtime_config.parameters) or {}
        for name, kind in inputs.items():
            if name not in given and not kind.get("isOptional"):
                raise Refused(
                    400,
                    f"Invalid input error: parameter {name} is not optional, and has no value",
                )
        if unknown := given.keys() - inputs.keys():
            raise Refused(
                400, f"Invalid input error: parameter(s) provided are not required by pipeline: {sorted(unknown)}"
            )

    def _upload(self, request: Request) -> Any:
        head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        part = BytesParser().parsebytes(head + request.body).get_payload()[0]
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        text = part.get_payload(decode=True).decode()
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]} if len(documents) > 1 else documents[0]
        _parsed(spec)
        with self.lock:
            pipeline = _get(self.pipelines, request.query["pipelineid"])
            name = request.query["name"]
            if any(one.pipeline_id == pipeline.pipeline_id and one.name == name for one in self.versions.values()):
                raise Refused(409, "Failed to create a pipeline version")
            body = models.V2beta1PipelineVersion(
                pipeline_id=pipeline.pipeline_id,
                name=name,
                display_name=request.query.get("display_name") or name,
                description=request.query.get("description"),
                pipeline_spec=spec,
            )
            return _json(self._keep(self.versions, "pipeline_version_id", body))

    def _keep(self, store: dict[str, Any], key: str, body: Any) -> Any:
        self._clock += timedelta(seconds=1)
        body.created_at = self._clock
        setattr(body, key, str(uuid.uuid4()))
        store[getattr(body, key)] = body
        return body

    def _in_namespace(self, body: Any) -> None:
        if self.multi_user and not body.namespace:
            raise Refused(400, "Invalid input error: namespace is empty")


def _get(store: dict[str, Any], key: str | None) -> Any:
    if key not in store:
        raise Refused(404, f"ResourceNotFoundError: {key} not found.")
    return store[key]


def _parsed(spec: dict[str, Any]) -> None:
    json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(spec.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())


_BODIES = {
    "experiments": models.V2beta1Experiment,
    "pipelines": models.V2beta1Pipeline,
    "runs": models.V2beta1Run,
    "recurringruns": models.V2beta1RecurringRun,
}


def _read(body: bytes, kind: str) -> Any:
    """The body as its model; a field that the model does not have is refused, at any depth."""
    content = json.loads(body)
    _known(content, _BODIES[kind])
    return _CLIENT.deserialize(type("Response", (), {"data": body})(), _BODIES[kind])


def _known(content: Any, model: Any) -> None:
    types = getattr(model, "openapi_types", None)
    if not types:
        if hasattr(model, "allowable_values") and content not in model.allowable_values:
            raise Refused(400, f"{content!r} is no {model.__name__}")
        return
    names = {json_name: types[attribute] for attribute, json_name in model.attribute_map.items()}
    for name, value in content.items():
        if name not in names:
            raise Refused(400, f'proto: unknown field "{name}" in {model.__name__}')
        kind = names[name]
        if hasattr(models, kind) and isinstance(value, dict | str):
            _known(value, getattr(models, kind))
        elif kind in {"str", "bool"} and not isinstance(value, {"str": str, "bool": bool}[kind]):
            raise Refused(400, f"{name} must be a {kind}")


def _json(model: Any) -> Any:
    return _CLIENT.sanitize_for_serialization(model)


def _filtered(found: list[Any], text: str | None) -> list[Any]:
    if not text:
        return found
    # As protobuf reads JSON: names in either style, enumerations also by number.
    content = json.loads(re.sub(r'"(\w+)":', lambda match: f'"{re.sub("([A-Z])", _lower, match[1])}":', text))
    for predicate in content["predicates"]:
        if isinstance(predicate["operation"], int):
            predicate["operation"] = models.V2beta1PredicateOperation.allowable_values[predicate["operation"]]
        _known(predicate, models.V2beta1Predicate)
        if predicate["operation"] == "EQUALS":
            wanted = {predicate["string_value"]}
        elif predicate["operation"] == "IN":
            wanted = set(predicate["string_values"]["values"])
        else:
            raise Refused(400, f"{predicate['operation']}: this server has EQUALS and IN only")
        found = [one for one in found if getattr(one, predicate["key"]) in wanted]
    return found


def _lower(match: re.Match[str]) -> str:
    return f"_{match[0].lower()}"


def _handler(api: KubeflowApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: the second would wait for the client's delay

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _any(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                method=self.command,
                path=parts.path,
                query={name: values[-1] for name, values in parse_qs(parts.query).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(self.headers.get("content-length") or 0)),
            )
            api.requests.append(request)
            try:
                api.before(request)
                if api.page is not None:
                    self._send(200, "text/html; charset=utf-8", api.page)
                    return
                content = json.dumps(api.answer(request))
                api.after(request)
            except Cut:
                self.close_connection = True
                return
            except Refused as error:
                answer = {"error": str(error), "code": _GRPC[error.status], "message": str(error), "details": []}
                self._send(error.status, "application/json", json.dumps(answer))
                return
            self._send(200, "application/json", content)

        do_GET = do_POST = do_DELETE = _any

        def _send(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def serve() -> Iterator[KubeflowApi]:
    """Runs a fresh server on loopback at a free port."""
    api = KubeflowApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    server.daemon_threads = True
    api.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
