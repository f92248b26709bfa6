"""The few requests to the Kubernetes API that a TrainJob needs, with patience for a server that is away.

By the `kubernetes` package, which kfp brings along: inside a cluster with the pod's service account, elsewhere with
`KUBECONFIG`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepcoder.errors import StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.platform.trainjob.manifest import GROUP, VERSION, Object

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PASSING: Final = {401, 408, 429, 500, 502, 503, 504}
"""Answers after which the same request may succeed: a token is renewed, a server or a webhook is restarted."""

log = get_logger("trainjob")


@dataclass(frozen=True)
class Pace:
    """How often the cluster is asked; all in seconds."""

    poll: float = 5.0
    """Between two looks at the TrainJob and its log."""
    retry: float = 1.0
    """Before a failed request is made again; doubled each time, up to `longest_retry`."""
    longest_retry: float = 30.0
    patience: float = 900.0
    """How long a server that does not answer is asked: upgrades of a control plane take minutes."""
    tell: float = 300.0
    """Between two lines that say what the TrainJob waits for, while it is the same."""
    request: tuple[float, float] = (10.0, 30.0)
    """Limits of one request: to connect, and between two pieces of the answer."""


DEFAULT_PACE: Final = Pace()


class Cluster:
    """The namespace in which the step's pod runs."""

    def __init__(self, client: Any, namespace: str, pace: Pace) -> None:
        self._client = client
        self.namespace = namespace
        self.pace = pace

    @classmethod
    def here(cls, pace: Pace) -> Cluster:
        """The cluster that this pod runs in, or that of `KUBECONFIG`.

        Raises:
            StepCoderError: there is none.
        """
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise StepCoderError("TrainJobs need the package `kubernetes`, which the trainer image has") from error
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config()
                namespace = (_ACCOUNT / "namespace").read_text().strip()
            else:
                given = os.environ.get("KUBECONFIG")
                config.load_kube_config(config_file=given)
                _, context = config.list_kube_config_contexts(config_file=given)
                namespace = context["context"].get("namespace") or "default"
        except (config.ConfigException, OSError) as error:
            raise StepCoderError(
                f"nodes > 0 hands the training to a Kubernetes cluster, and there is none here: {error}; "
                "with nodes=0 it runs in this process"
            ) from error
        untyped: Any = client
        settings = untyped.Configuration.get_default_copy()
        settings.retries = False  # What may be tried again, and for how long, is known here.
        return cls(untyped.ApiClient(settings), namespace, pace)

    def own_pod(self) -> Object:
        """This pod, whose name Kubeflow puts into `KFP_POD_NAME`."""
        name = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
        pod = self._get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        if pod is None:
            raise StepCoderError(f"there is no pod {name} in namespace {self.namespace}; is KFP_POD_NAME this pod's?")
        return pod

    def create(self, job: Object) -> bool:
        """Creates a TrainJob; False if there is one of that name."""
        # Strict: another release of Kubeflow Trainer would drop fields that it does not know.
        query = {"fieldValidation": "Strict"}
        return self._patiently(lambda: self._request("POST", self._jobs, query, job), missing=409) is not None

    def job(self, name: str) -> Object | None:
        """A TrainJob; None if there is none of that name."""
        return self._get(f"{self._jobs}/{name}")

    def jobs(self, selector: str) -> list[Object]:
        """TrainJobs by labels."""
        return self._items(self._jobs, {"labelSelector": selector})

    def delete(self, name: str, *, at_once: bool = False) -> None:
        """Deletes a TrainJob, which stays until its pods are gone; `at_once`: without a second try."""
        # In the foreground: a new one of the same name must not find jobs of the old one.
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}

        def call() -> Any:
            return self._request("DELETE", f"{self._jobs}/{name}", {}, options)

        if at_once:
            call()
        else:
            self._patiently(call, missing=404)

    def pods(self, job: str) -> list[Object]:
        """The pods of a TrainJob."""
        selector = {"labelSelector": f"jobset.sigs.k8s.io/jobset-name={job}"}
        return self._items(f"/api/v1/namespaces/{self.namespace}/pods", selector)

    def warnings(self, job: str) -> list[str]:
        """What the cluster complains about of a TrainJob and what belongs to it, oldest first; none if it is silent."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        try:
            answer = self._patiently(lambda: self._request("GET", path, {"fieldSelector": "type=Warning"}), None, 0)
        except StepCoderError as error:
            log.debug("events cannot be read", error=str(error))
            return []
        events = answer["items"]
        own = [event for event in events if f"{event['involvedObject'].get('name', '')}-".startswith(f"{job}-")]
        own.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [f"{event.get('reason')}: {event.get('message')}" for event in own]

    def log(self, pod: str, *, since: str | None = None, tail: int | None = None, patience: float) -> list[str]:
        """Lines of a pod's log, each with its time before it; none where the log cannot be read.

        Args:
            pod: name of the pod.
            since: RFC 3339 time in whole seconds; earlier lines are left out.
            tail: how many lines from the end.
            patience: seconds for which it is tried; the training goes on while its log cannot be read.
        """
        query = {"timestamps": "true", "sinceTime": since, "tailLines": None if tail is None else str(tail)}
        given = {name: value for name, value in query.items() if value is not None}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        try:
            text = self._patiently(lambda: self._request("GET", path, given, kind="str"), 404, patience)
        except StepCoderError as error:
            (log.warning if patience else log.debug)("the log cannot be read", pod=pod, error=str(error))
            text = None
        return (text or "").splitlines()

    @property
    def _jobs(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/trainjobs"

    def _get(self, path: str) -> Object | None:
        found: Object | None = self._patiently(lambda: self._request("GET", path, {}), missing=404)
        return found

    def _items(self, path: str, query: dict[str, str]) -> list[Object]:
        answer = self._patiently(lambda: self._request("GET", path, query))
        return list(answer["items"])

    def _request(
        self, method: str, path: str, query: dict[str, str], body: Object | None = None, kind: str = "object"
    ) -> Any:
        return self._client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            response_type=kind,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=self.pace.request,
        )

    def _patiently(self, call: Callable[[], Any], missing: int | None = None, patience: float | None = None) -> Any:
        """What a request gives, made again while the server is away; None where it answers `missing`.

        Args:
            call: makes the request.
            missing: status that is no fault.
            patience: seconds for which it is made again; default that of the pace.

        Raises:
            StepCoderError: the server refuses, or is away for longer than the pace allows.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        begin, pause, told = time.monotonic(), self.pace.retry, False
        patience = self.pace.patience if patience is None else patience
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status == missing:
                    return None
                reason = _reason(error)
                if error.status not in _PASSING:
                    raise StepCoderError(f"the Kubernetes API refuses: {reason}{_hint(error.status)}") from error
            except (HTTPError, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
            waited = time.monotonic() - begin
            if waited + pause > patience:
                raise StepCoderError(f"the Kubernetes API has not answered for {waited:.0f} s: {reason}")
            (log.debug if told else log.warning)("the Kubernetes API does not answer; it is asked again", error=reason)
            told = True
            time.sleep(pause)
            pause = min(2 * pause, self.pace.longest_retry)


def _reason(error: Any) -> str:
    """The message in the server's answer, else its status line."""
    try:
        return f"{error.status}: {json.loads(error.body)['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _hint(status: int) -> str:
    match status:
        case 403:
            return "; the run's service account needs the role of manifests/"
        case 404:
            return "; TrainJobs need Kubeflow Trainer 2.2 or newer in the cluster"
        case 400:
            return "; fields that it does not know mean a Kubeflow Trainer older than 2.2"
    return ""
