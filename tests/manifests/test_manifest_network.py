"""Who may talk to whom, asked of the policies as the network would."""

from collections.abc import Callable

import pytest

from tests.manifests.conftest import COMPONENTS, OVERLAYS
from tests.manifests.rendered import COMPONENT, KFP, PART_OF, Manifests, Pod, Template, rank, selects, step

STEPS = (
    "resolve-inputs",
    "verify-dataset",
    "sft",
    "ppo-stage",
    "evaluate",
    "promotion-gate",
    "register-model",
    "notify",
    "check-new-data",
)
JUDGING = ("resolve-inputs", "verify-dataset", "sft", "ppo-stage", "evaluate")
ONLINE = ("resolve-inputs", "sft", "evaluate", "notify")
PEOPLE = [step(name) for name in STEPS] + [rank("sft"), rank("ppo-stage")]

SANDBOX = Pod({PART_OF: "stepcoder", COMPONENT: "sandbox"})
DRIVER = Pod({KFP: "true", "workflows.argoproj.io/workflow": "run"})
STRANGER = Pod({"app": "notebook"})
DNS = Pod.elsewhere("kube-system", **{"k8s-app": "kube-dns"})
ML_PIPELINE = Pod.elsewhere("kubeflow", app="ml-pipeline")
UI = Pod.elsewhere("kubeflow", app="ml-pipeline-ui")
OTHERS = Pod.elsewhere("default", app="web")
API_SERVER = "10.0.0.1"
INTERNET_ADDRESSES = ("93.184.215.14", "2606:2800:21f::1")
METADATA_SERVICE = "169.254.169.254"


def server(manifests: Manifests, component: str) -> Pod:
    (found,) = [one for one in manifests.pods() if one.labels[COMPONENT] == component]
    return Pod(found.labels)


def all_ends(manifests: Manifests) -> list[Pod | str]:
    inside = [Pod(one.labels) for one in manifests.pods()]
    return [*PEOPLE, *inside, DRIVER, STRANGER, DNS, ML_PIPELINE, UI, OTHERS, API_SERVER, *INTERNET_ADDRESSES]


@pytest.mark.parametrize("name", [*OVERLAYS, COMPONENTS])
def test_the_sandbox_reaches_nothing(name: str, render: Callable[[str], Manifests]) -> None:
    manifests = render(name)
    for target in [*all_ends(manifests), METADATA_SERVICE]:
        for port, protocol in ((53, "UDP"), (53, "TCP"), (80, "TCP"), (443, "TCP"), (5000, "TCP"), (8000, "TCP")):
            assert not manifests.reaches(SANDBOX, target, port, protocol), target


def test_the_sandbox_is_asked_by_the_steps_that_judge_and_by_nobody_else(overlay: Manifests) -> None:
    for end in all_ends(overlay):
        if isinstance(end, Pod):
            wanted = end.labels.get(COMPONENT) in JUDGING
            assert overlay.reaches(end, SANDBOX, 8000) is wanted, end
            assert not overlay.reaches(end, SANDBOX, 8001)


def test_only_in_production_prometheus_reads_the_sandbox(local: Manifests, production: Manifests) -> None:
    prometheus = Pod.elsewhere("monitoring", **{"app.kubernetes.io/name": "prometheus"})
    assert production.reaches(prometheus, SANDBOX, 8000)
    assert not local.reaches(prometheus, SANDBOX, 8000)


def test_every_pod_of_stepcoder_is_denied_by_default(overlay: Manifests) -> None:
    unknown = Pod({PART_OF: "stepcoder", COMPONENT: "a-step-of-next-year"})
    for pod in [*PEOPLE, unknown, *(Pod(one.labels) for one in overlay.pods())]:
        assert overlay.isolating(pod, "Egress"), pod
        assert overlay.isolating(pod, "Ingress"), pod
    assert not any(overlay.reaches(unknown, end, 443) for end in all_ends(overlay))


def test_pods_of_a_run_reach_kubeflow_the_api_and_names(overlay: Manifests) -> None:
    for pod in [*(step(name) for name in STEPS), DRIVER]:
        assert overlay.reaches(pod, DNS, 53, "UDP")
        assert overlay.reaches(pod, DNS, 53, "TCP")
        assert overlay.reaches(pod, ML_PIPELINE, 8887)
        assert overlay.reaches(pod, Pod.elsewhere("kubeflow", component="metadata-grpc-server"), 8080)
        assert overlay.reaches(pod, Pod.elsewhere("kubeflow", app="seaweedfs"), 8333)
        assert overlay.reaches(pod, Pod.elsewhere("kubeflow", app="minio"), 9000)
        assert not overlay.reaches(pod, ML_PIPELINE, 8888)
        assert overlay.reaches(pod, API_SERVER, 443)
        assert overlay.reaches(pod, "172.18.0.2", 6443)


def test_ranks_reach_each_other_and_not_kubeflow_nor_the_api(overlay: Manifests) -> None:
    for name in ("sft", "ppo-stage"):
        assert overlay.reaches(rank(name), rank(name), 29500)
        assert overlay.reaches(rank(name), rank(name), 41234)
        assert overlay.reaches(rank(name), DNS, 53, "UDP")
        assert not overlay.reaches(rank(name), ML_PIPELINE, 8887)
        assert not overlay.reaches(rank(name), API_SERVER, 6443)
        assert not overlay.reaches(step(name), rank(name), 29500)
        assert not overlay.reaches(STRANGER, rank(name), 29500)


def test_steps_reach_nothing_else(overlay: Manifests) -> None:
    for pod in PEOPLE:
        for address in INTERNET_ADDRESSES:
            assert not overlay.reaches(pod, address, 443)
        assert not overlay.reaches(pod, METADATA_SERVICE, 80)
        assert not overlay.reaches(pod, OTHERS, 80)
        assert not overlay.reaches(pod, STRANGER, 8888)
        assert not overlay.reaches(pod, DNS, 443)


def test_the_component_opens_the_internet_to_the_steps_that_need_it(render: Callable[[str], Manifests]) -> None:
    online = render(COMPONENTS)
    for pod in PEOPLE:
        for address in INTERNET_ADDRESSES:
            assert online.reaches(pod, address, 443) is (pod.labels[COMPONENT] in ONLINE), pod
            assert not online.reaches(pod, address, 80)
        assert not online.reaches(pod, METADATA_SERVICE, 443)
        assert not online.reaches(pod, "100.64.0.1", 443)
    assert online.of("ConfigMap")["stepcoder"]["data"]["HF_HUB_OFFLINE"] == "0"


def test_in_the_local_overlay_steps_reach_object_store_and_mlflow(local: Manifests) -> None:
    store, mlflow, postgres = (server(local, name) for name in ("object-store", "mlflow", "postgres"))
    for pod in PEOPLE:
        assert local.reaches(pod, store, 8333)
        assert local.reaches(pod, mlflow, 5000)
        assert not local.reaches(pod, postgres, 5432)
        # SeaweedFS's master, filer and volume ports know no keys.
        assert not any(local.reaches(pod, store, port) for port in (9333, 8888, 8080, 18888, 19333))
    assert local.reaches(DRIVER, store, 8333)
    assert local.reaches(UI, store, 8333)
    assert not local.reaches(STRANGER, store, 8333)
    assert not local.reaches(STRANGER, mlflow, 5000)


def test_the_servers_of_the_local_overlay_reach_what_they_need(local: Manifests) -> None:
    store, mlflow, postgres, buckets = (
        server(local, name) for name in ("object-store", "mlflow", "postgres", "buckets")
    )
    assert local.reaches(mlflow, postgres, 5432)
    for pod in (mlflow, buckets):
        assert local.reaches(pod, store, 8333)
        assert local.reaches(pod, DNS, 53, "UDP")
    for pod in (store, postgres):
        assert not any(local.reaches(pod, end, 443) for end in all_ends(local))
    assert not local.reaches(buckets, postgres, 5432)


def test_in_production_steps_reach_the_stores_outside(production: Manifests) -> None:
    for pod in [*PEOPLE, DRIVER]:
        assert production.reaches(pod, "10.20.30.40", 443)
        assert not production.reaches(pod, "10.20.30.40", 22)


def test_policies_for_all_steps_name_all_steps(overlay: Manifests) -> None:
    for name in ("stepcoder-steps", "stepcoder-steps-to-stores"):
        (wanted,) = overlay.of("NetworkPolicy")[name]["spec"]["podSelector"]["matchExpressions"]
        assert (wanted["key"], wanted["operator"]) == (COMPONENT, "In")
        assert sorted(wanted["values"]) == sorted(STEPS)


def test_every_policy_selects_some_pod(overlay: Manifests) -> None:
    pods = [*PEOPLE, DRIVER, *(Pod(one.labels) for one in overlay.pods())]
    for name, policy in overlay.of("NetworkPolicy").items():
        assert [pod for pod in pods if selects(policy["spec"]["podSelector"], pod.labels)], name


def test_ports_of_policies_are_ports_that_a_pod_opens(overlay: Manifests) -> None:
    def opened(pods: Template) -> set[int]:
        return {port["containerPort"] for one in pods.spec["containers"] for port in one.get("ports", [])}

    for name, policy in overlay.of("NetworkPolicy").items():
        for rule in policy["spec"].get("ingress", []):
            selected = [one for one in overlay.pods() if selects(policy["spec"]["podSelector"], one.labels)]
            for port in rule.get("ports", []):
                assert any(port["port"] in opened(one) for one in selected), (name, port)
        for rule in policy["spec"].get("egress", []):
            own = [peer["podSelector"] for peer in rule["to"] if set(peer) == {"podSelector"}]
            targets = [one for one in overlay.pods() if any(selects(selector, one.labels) for selector in own)]
            for port in rule.get("ports", []) if own else []:
                assert any(port["port"] in opened(one) for one in targets), (name, port)
