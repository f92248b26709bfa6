"""The way to a Kubeflow Pipelines server: address, login, and what its answers mean to a person.

kfp's client finds the login and knows the API. Its own convenience functions print links, wait without a time limit
and show tracebacks; so requests go through the generated API beneath it, which it exposes.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcoder.errors import DataError, StepCoderError

if TYPE_CHECKING:
    import kfp

OLDEST = (2, 16)
"""The oldest server that this project is meant for."""
PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each further try of a request, and before each look for what an unanswered request has made."""
_TIMEOUT = (10, 60)
"""Seconds to connect, and to wait for an answer."""
_PAGE = 100
_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ENVIRONMENT = """\
environment:
  KF_PIPELINES_ENDPOINT       address of Kubeflow Pipelines; in a pod its service is the default
  KF_PIPELINES_UI_ENDPOINT    address for links, where it is another one
  KF_PIPELINES_TOKEN          bearer token; else the one that Kubernetes puts into a pod is taken:
  KF_PIPELINES_SA_TOKEN_PATH  its file (default: /var/run/secrets/kubeflow/pipelines/token)
  KF_PIPELINES_COOKIE         session cookie of a login page, for example authservice_session=...
  SSL_CERT_FILE               certificates to trust
"""


class UnansweredError(StepCoderError):
    """No answer came, or none that tells whether the request was carried out."""


class NotFoundError(StepCoderError):
    """There is nothing of that id or address."""


class ConflictError(StepCoderError):
    """Something of that name is there already."""


class Kubeflow:
    """One server, and the namespace in it."""

    def __init__(self, client: kfp.Client, host: str, namespace: str | None) -> None:
        self.client = client
        self.host = host
        health = self._health()
        self.namespace = namespace or (_pod_namespace() if health.get("multi_user") else None)
        if health.get("multi_user") and not self.namespace:
            raise DataError(f"{host} has many users: --namespace is missing (the one of your profile)")
        self.tag = str(health.get("tag_name", ""))
        if self.older_than(OLDEST):
            say(
                f"warning: {host} is Kubeflow Pipelines {self.tag}; this project needs "
                f"{'.'.join(map(str, OLDEST))} or newer"
            )

    def older_than(self, release: tuple[int, int]) -> bool:
        """Whether the server is of an earlier release; one that does not tell its release is not."""
        version = re.match(r"v?(\d+)\.(\d+)", self.tag)
        return version is not None and (int(version[1]), int(version[2])) < release

    def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Sends one request of the generated API.

        Raises:
            UnansweredError: it may have been carried out all the same.
            StepCoderError: it was refused, or never got there.
        """
        import kfp_server_api
        from urllib3 import exceptions

        try:
            answer = method(*arguments, _request_timeout=_TIMEOUT, **options)
        except kfp_server_api.ApiException as error:
            raise self._refusal(error) from error
        except exceptions.MaxRetryError as error:
            if isinstance(error.reason, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
                raise UnansweredError(
                    f"{self.host} cannot be reached: {_reason(error.reason)}; is the address right "
                    "(--host, KF_PIPELINES_ENDPOINT), and does a port-forward still run?"
                ) from error
            hint = "; is SSL_CERT_FILE set?" if isinstance(error.reason, exceptions.SSLError) else ""
            raise UnansweredError(f"{self.host}: {_reason(error.reason)}{hint}") from error
        except exceptions.HTTPError as error:
            raise UnansweredError(f"{self.host}: {_reason(error)}") from error
        api = method.__self__.api_client
        if "json" not in str(api.last_response.getheader("content-type")):
            raise StepCoderError(
                f"{self.host} answers with a web page, not with data: most likely a login page. Set "
                "KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIE, or go through `kubectl port-forward`; or the address "
                "is not the one of Kubeflow Pipelines (often it ends in /pipeline)"
            )
        return answer

    def read(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Sends a request that changes nothing, or nothing more when it comes twice; it is tried several times.

        Raises:
            StepCoderError: as `call`, after the last try.
        """
        for pause in PAUSES:
            try:
                return self.call(method, *arguments, **options)
            except UnansweredError:
                time.sleep(pause)
        return self.call(method, *arguments, **options)

    def pages(self, method: Callable[..., Any], items: str, **options: Any) -> Iterator[Any]:
        """Everything that a list request finds, over all its pages."""
        token = ""
        while True:
            page = self.read(method, page_token=token, page_size=_PAGE, **options)
            yield from getattr(page, items) or []
            token = page.next_page_token or ""
            if not token:
                return

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if there is none."""
        api = self.client.experiments
        scope = {"namespace": self.namespace} if self.namespace else {}

        def look() -> str | None:
            found = self.pages(
                api.experiment_service_list_experiments, "experiments", filter=equals(display_name=name), **scope
            )
            return next((str(experiment.experiment_id) for experiment in found), None)

        def make() -> str | None:
            body = self.client.api_models.V2beta1Experiment(display_name=name, namespace=self.namespace)
            try:
                return str(self.call(api.experiment_service_create_experiment, body).experiment_id)
            except ConflictError:  # Somebody else has just made it.
                return look()

        return str(self.once(look, make))

    def once(self, look: Callable[[], Any], make: Callable[[], Any]) -> Any:
        """What is there already, else what is made now; made once even where the server's answer gets lost.

        Args:
            look: Finds it; None if it is not there.
            make: Sends the request that makes it.

        Raises:
            StepCoderError: refused; or unanswered although tried several times, and it is not there.
        """
        found = look()
        for attempt in range(len(PAUSES)):
            if found is not None:
                return found
            try:
                return make()
            except UnansweredError as error:
                say(f"{error}; looking whether the request was carried out")
                for pause in PAUSES:
                    time.sleep(pause)
                    found = look()
                    if found is not None:
                        return found
                if attempt == len(PAUSES) - 1:
                    raise
        return found

    def link(self, page: str) -> str:
        """Address of a page of the user interface."""
        shown = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host
        return f"{shown.rstrip('/')}/#/{page}"

    def _health(self) -> dict[str, Any]:
        api = self.client.healthzs
        # Tried once: at the first contact the address is more often wrong than the server away.
        self.call(api.healthz_service_get_healthz)
        # The published model leaves out the server's version, which the answer has.
        response = api.healthz_service_get_healthz.__self__.api_client.last_response
        content = json.loads(response.data)
        return content if isinstance(content, dict) else {}

    def _refusal(self, error: Any) -> StepCoderError:
        """What an answer with an error status means."""
        try:
            content = json.loads(error.body or "{}")
            message = content.get("message") or content.get("error_message") or content.get("error") or error.reason
        except (ValueError, AttributeError):
            message = error.reason
        text = f"{self.host}: {error.status} {str(message).splitlines()[0] if message else ''}".rstrip()
        if error.status == 401:
            return StepCoderError(f"{text}; the login is missing or has expired (KF_PIPELINES_TOKEN)")
        if error.status == 403:
            return StepCoderError(f"{text}; this login may not do that in namespace {self.namespace or 'kubeflow'}")
        if error.status == 404:
            return NotFoundError(f"{text}; if that is a surprise: is it the address of Kubeflow Pipelines?")
        if error.status == 409:
            return ConflictError(text)
        return UnansweredError(text) if error.status in {0, 408, 429} or error.status >= 500 else DataError(text)


def connect(host: str | None, namespace: str | None) -> Kubeflow:
    """Finds the server and the login.

    Args:
        host: Address; default from the environment.
        namespace: Needed where Kubeflow has many users; in a pod its own is the default.

    Raises:
        DataError: no address, or no namespace.
        StepCoderError: it cannot be reached, or does not answer as Kubeflow does.
    """
    in_pod = _IN_CLUSTER if "KUBERNETES_SERVICE_HOST" in os.environ else None
    host = host or os.environ.get("KF_PIPELINES_ENDPOINT") or in_pod
    if not host:
        raise DataError(
            "no address of Kubeflow Pipelines: set KF_PIPELINES_ENDPOINT or --host, for example to "
            "http://localhost:8080 while `kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80` runs"
        )
    host = (host if "://" in host else f"https://{host}").rstrip("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kfp
        from kfp import client as kfp_client

        token_file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or kfp_client.KF_PIPELINES_SA_TOKEN_PATH
        client = kfp.Client(
            host=host,
            # Given any namespace, kfp asks the server nothing yet: a wrong address would cost it half a minute.
            namespace=namespace or "-",
            existing_token=os.environ.get("KF_PIPELINES_TOKEN"),
            credentials=(
                kfp_client.ServiceAccountTokenVolumeCredentials(token_file) if Path(token_file).is_file() else None
            ),
            cookies=os.environ.get("KF_PIPELINES_COOKIE"),
            ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
        )
    return Kubeflow(client, host, namespace)


def equals(**fields: str) -> str:
    """A filter of a list request: all fields have these values."""
    predicates = [{"operation": "EQUALS", "key": key, "string_value": value} for key, value in fields.items()]
    return json.dumps({"predicates": predicates})


def say(text: str) -> None:
    """A line for the person who watches; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def _pod_namespace() -> str | None:
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.is_file() else None


def _reason(error: BaseException | None) -> str:
    """The last words of a network error, without the objects that urllib3 puts before them."""
    text = " ".join(str(error).split())
    return re.sub(r"^.*?(?:<[^>]*>|(?:Pool|Connection)\([^)]*\)): ", "", text).rstrip(". ") or type(error).__name__
