"""The fields of other projects' objects that these manifests use, with their types; any further field is refused.

From the definitions that Kueue (`kueue.x-k8s.io/v1beta2`) and the Prometheus operator (`monitoring.coreos.com/v1`)
publish. A new field is looked up there and added here. For Kubeflow Trainer its published types are the definition.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE])?$"
DURATION = r"^(0|([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"

Name = Annotated[str, StringConstraints(pattern=NAME, max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=QUANTITY)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}


class Selector(Strict):
    matchLabels: dict[str, str]


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class FlavorSpec(Strict):
    nodeLabels: Annotated[dict[str, str], Field(max_length=8)] = {}
    tolerations: Annotated[list[Toleration], Field(max_length=8)] = []


class Quota(Strict):
    name: str
    nominalQuota: Quantity


class FlavorQuotas(Strict):
    name: Name
    resources: list[Quota]


class ResourceGroup(Strict):
    coveredResources: list[str]
    flavors: list[FlavorQuotas]


class ClusterQueueSpec(Strict):
    namespaceSelector: Selector
    resourceGroups: list[ResourceGroup]


class LocalQueueSpec(Strict):
    clusterQueue: Name


class SecretKey(Strict):
    name: Name
    key: str


class Authorization(Strict):
    credentials: SecretKey


class Endpoint(Strict):
    port: str
    path: str
    authorization: Authorization | None = None
    interval: Annotated[str, StringConstraints(pattern=DURATION)]


class PodMonitorSpec(Strict):
    selector: Selector
    podMetricsEndpoints: list[Endpoint]


class ResourceFlavor(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ResourceFlavor"]
    metadata: Metadata
    spec: FlavorSpec


class ClusterQueue(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ClusterQueue"]
    metadata: Metadata
    spec: ClusterQueueSpec


class LocalQueue(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["LocalQueue"]
    metadata: Metadata
    spec: LocalQueueSpec


class PodMonitor(Strict):
    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


DEFINED: dict[str, type[Strict]] = {
    model.__name__: model for model in (ResourceFlavor, ClusterQueue, LocalQueue, PodMonitor)
}


OTHERS = {*DEFINED, "TrainingRuntime"}
"""Kinds that Kubernetes itself does not know."""


def check(document: dict[str, Any]) -> None:
    """Raises pydantic's ValidationError with every fault."""
    if document["kind"] == "TrainingRuntime":
        types = pytest.importorskip("kubeflow_trainer_api.models", reason="kubeflow-trainer-api is not here")
        model = types.TrainerV1alpha1TrainingRuntime.from_dict(document)
        # These types drop what they do not know.
        assert json.loads(model.to_json()) == document
    else:
        DEFINED[document["kind"]].model_validate(document)
