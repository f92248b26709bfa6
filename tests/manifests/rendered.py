"""Rendered manifests, and who may talk to whom under their network policies."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

POD_KINDS = ("Deployment", "StatefulSet", "Job")
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
KFP = "pipelines.kubeflow.org/v2_component"
JOBSET = "jobset.sigs.k8s.io/jobset-name"


class Template(NamedTuple):
    """Pods of one object."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """One end of a connection."""

    labels: dict[str, str]
    namespace: str = "stepcoder"
    namespace_labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def elsewhere(cls, namespace: str, **labels: str) -> Pod:
        """A pod of another namespace."""
        return cls(labels, namespace, {"kubernetes.io/metadata.name": namespace})


def step(name: str, **more: str) -> Pod:
    """A pod of a step as Kubeflow Pipelines starts it."""
    return Pod({PART_OF: "stepcoder", COMPONENT: name, KFP: "true", **more})


def rank(name: str, job: str = "job") -> Pod:
    """A pod of a step's TrainJob."""
    return Pod({PART_OF: "stepcoder", COMPONENT: name, JOBSET: job})


class Manifests(list[dict[str, Any]]):
    """The objects of one rendered folder."""

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Objects of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self if one["kind"] == kind}

    def pods(self) -> Iterator[Template]:
        """Pod templates of all objects that make pods."""
        for one in self:
            if one["kind"] in POD_KINDS:
                template = one["spec"]["template"]
                yield Template(one["metadata"]["name"], template["metadata"]["labels"], template["spec"])

    def isolating(self, pod: Pod, way: str) -> list[dict[str, Any]]:
        """Policies that select a pod of this namespace for `Ingress` or `Egress`."""
        return [
            one["spec"]
            for one in self.of("NetworkPolicy").values()
            if way in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod.labels)
        ]

    def reaches(self, source: Pod, target: Pod | str, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection is let out by its source and, within this namespace, let in by its target."""
        out = self.isolating(source, "Egress") if source.namespace == "stepcoder" else []
        if out and not any(_lets(rule, "to", target, port, protocol) for one in out for rule in one.get("egress", [])):
            return False
        if isinstance(target, str) or target.namespace != "stepcoder":
            return True
        into = self.isolating(target, "Ingress")
        return not into or any(
            _lets(rule, "from", source, port, protocol) for one in into for rule in one.get("ingress", [])
        )


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' label selectors.

    Raises:
        ValueError: an operator that is not used here.
    """
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for wanted in selector.get("matchExpressions", []):
        match wanted["operator"]:
            case "In":
                fits = labels.get(wanted["key"]) in wanted["values"]
            case "Exists":
                fits = wanted["key"] in labels
            case operator:
                raise ValueError(operator)
        if not fits:
            return False
    return True


def _lets(rule: dict[str, Any], side: str, other: Pod | str, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports is not None and not any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports):
        return False
    return side not in rule or any(_is(peer, other) for peer in rule[side])


def _is(peer: dict[str, Any], other: Pod | str) -> bool:
    if isinstance(other, str):
        if "ipBlock" not in peer:
            return False
        address = ipaddress.ip_address(other)
        inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(address in ipaddress.ip_network(hole) for hole in peer["ipBlock"].get("except", []))
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != "stepcoder":
        return False
    return selects(peer.get("podSelector", {}), other.labels)
