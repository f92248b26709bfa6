"""Pods as the restricted standard wants them, with what they need and no more."""

from collections.abc import Callable
from typing import Any

import pytest

from stepcoder import images
from stepcoder.sandbox.container import SERVICE_MIB, SLOT_MIB, TMP_MIB
from stepcoder.sandbox.service.config import ServeConfig
from tests.manifests.conftest import COMPONENTS, OVERLAYS
from tests.manifests.rendered import COMPONENT, PART_OF, Manifests, Template
from tests.manifests.test_manifest_schemas import worth

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""What the restricted standard leaves of the kinds of volumes."""


def all_containers(pods: Template) -> list[dict[str, Any]]:
    return pods.spec["containers"] + pods.spec.get("initContainers", [])


def assert_restricted(pods: Template) -> None:
    spec = pods.spec
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), pods.name
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["securityContext"].get("sysctls")
    for volume in spec.get("volumes", []):
        assert set(volume) - {"name"} <= ALLOWED_VOLUMES, pods.name
    for container in all_containers(pods):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not security.get("privileged")
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_pods_meet_the_restricted_standard(overlay: Manifests) -> None:
    for pods in overlay.pods():
        assert_restricted(pods)


def test_pods_run_as_nobody_on_a_read_only_root_with_a_place_to_write(overlay: Manifests) -> None:
    for pods in overlay.pods():
        assert (pods.spec["securityContext"]["runAsUser"], pods.spec["securityContext"]["runAsGroup"]) == (65534, 65534)
        for container in all_containers(pods):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_no_pod_has_a_token_of_the_kubernetes_api(overlay: Manifests) -> None:
    accounts = overlay.of("ServiceAccount")
    for pods in overlay.pods():
        assert pods.spec["automountServiceAccountToken"] is False, pods.name
    for name in ("stepcoder-sandbox", "stepcoder-trainjob"):
        assert accounts[name]["automountServiceAccountToken"] is False
        assert not [
            binding
            for binding in overlay.of("RoleBinding").values()
            if name in [subject["name"] for subject in binding["subjects"]]
        ]


def test_no_pod_gets_a_sidecar_of_kubeflows_mesh(overlay: Manifests, trainable: Manifests) -> None:
    runtime = trainable.of("TrainingRuntime")["stepcoder"]["spec"]["template"]["spec"]["replicatedJobs"][0]
    ranks = runtime["template"]["spec"]["template"]["metadata"]["labels"]
    for labels in [ranks, *(pods.labels for pods in overlay.pods())]:
        assert labels["sidecar.istio.io/inject"] == "false"


def test_servers_have_probes_and_resources(overlay: Manifests) -> None:
    for pods in overlay.pods():
        for container in pods.spec["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            if pods.spec.get("restartPolicy") != "OnFailure":
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), pods.name
                assert pods.spec["terminationGracePeriodSeconds"] > 0


def test_our_image_is_the_one_that_the_pipeline_names(overlay: Manifests, local: Manifests) -> None:
    ours = [c["image"] for pods in overlay.pods() for c in all_containers(pods) if "stepcoder/" in c["image"]]
    repository, _, version = images.TOOLS.rpartition(":")
    wanted = images.TOOLS if overlay is local else f"registry.example.com/team/{repository}:{version}"
    assert ours, "the sandbox at least"
    assert set(ours) == {wanted}, "change the version in manifests/ with the one in stepcoder/__init__.py"


@pytest.fixture(params=["production", COMPONENTS])
def trainable(request: pytest.FixtureRequest, render: Callable[[str], Manifests]) -> Manifests:
    """Each way to the runtime of TrainJobs."""
    return render(request.param)


def test_training_jobs_start_from_a_runtime_that_meets_the_standard(
    trainable: Manifests, production: Manifests
) -> None:
    runtime = trainable.of("TrainingRuntime")["stepcoder"]["spec"]
    (job,) = runtime["template"]["spec"]["replicatedJobs"]
    assert job["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert job["template"]["spec"]["backoffLimit"] == 0
    pods = job["template"]["spec"]["template"]
    assert pods["metadata"]["labels"][PART_OF] == "stepcoder"
    assert pods["spec"]["restartPolicy"] == "Never"
    assert pods["spec"]["serviceAccountName"] in trainable.of("ServiceAccount")
    assert pods["spec"]["automountServiceAccountToken"] is False
    assert_restricted(Template("stepcoder", {}, pods["spec"]))
    (container,) = pods["spec"]["containers"]
    # Kubeflow Trainer's names of the job and the container that the TrainJob patches.
    assert (job["name"], container["name"]) == ("node", "node")
    prefix = "registry.example.com/team/" if trainable is production else ""
    assert container["image"] == f"{prefix}{images.TRAINER}"


def test_the_runtime_is_the_one_that_training_jobs_name(trainable: Manifests) -> None:
    manifest = pytest.importorskip("stepcoder.platform.trainjob.manifest")
    assert list(trainable.of("TrainingRuntime")) == [manifest.RUNTIME]
    assert trainable.of("TrainingRuntime")[manifest.RUNTIME]["apiVersion"] == f"{manifest.GROUP}/{manifest.VERSION}"
    assert manifest.SERVICE_ACCOUNT in trainable.of("ServiceAccount")


def test_every_image_is_pinned_by_a_version(overlay: Manifests) -> None:
    for pods in overlay.pods():
        for container in all_containers(pods):
            tag = container["image"].rpartition(":")[2]
            assert any(letter.isdigit() for letter in tag), container["image"]
            assert "latest" not in tag
            assert "/" not in tag


def test_services_lead_to_ports_that_their_pods_open(overlay: Manifests) -> None:
    for name, service in overlay.of("Service").items():
        selector = service["spec"]["selector"]
        pods = [one for one in overlay.pods() if selector.items() <= one.labels.items()]
        assert len(pods) == 1, name
        opened = {port["name"]: port["containerPort"] for c in pods[0].spec["containers"] for port in c["ports"]}
        for port in service["spec"]["ports"]:
            assert opened[port["targetPort"]] == port["port"], name


def test_selectors_of_owners_match_their_own_pods_only(overlay: Manifests) -> None:
    pods = {one.name: one for one in overlay.pods()}
    for kind in ("Deployment", "StatefulSet"):
        for name, owner in overlay.of(kind).items():
            selector = owner["spec"]["selector"]["matchLabels"]
            assert [other.name for other in pods.values() if selector.items() <= other.labels.items()] == [name]


@pytest.fixture
def sandbox(overlay: Manifests) -> dict[str, Any]:
    return overlay.of("Deployment")["stepcoder-sandbox"]["spec"]["template"]["spec"]


def settings_of(sandbox: dict[str, Any]) -> ServeConfig:
    args = sandbox["containers"][0]["args"]
    assert args[:2] == ["sandbox", "serve"]
    given = dict(zip(args[2::2], args[3::2], strict=True))
    return ServeConfig.model_validate({name.removeprefix("--"): value for name, value in given.items()})


def test_the_sandbox_listens_where_its_service_and_probes_ask(sandbox: dict[str, Any]) -> None:
    settings = settings_of(sandbox)
    container = sandbox["containers"][0]
    assert settings.host == "0.0.0.0"
    assert container["ports"] == [{"name": "http", "containerPort": settings.port}]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_the_sandbox_has_a_core_and_the_memory_of_a_container_for_each_slot(sandbox: dict[str, Any]) -> None:
    slots = settings_of(sandbox).slots
    for amounts in sandbox["containers"][0]["resources"].values():
        assert worth(amounts["cpu"]) == slots
        assert worth(amounts["memory"]) == (SERVICE_MIB + slots * SLOT_MIB) * 2**20
    assert sandbox["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": f"{TMP_MIB}Mi"}}]


def test_the_sandbox_holds_no_secret_and_no_address(sandbox: dict[str, Any]) -> None:
    assert not {"env", "envFrom"} & set(sandbox["containers"][0])
    assert sandbox["enableServiceLinks"] is False


def test_scaling_and_disruption_concern_the_sandbox(overlay: Manifests) -> None:
    deployment = overlay.of("Deployment")["stepcoder-sandbox"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    scaler = overlay.of("HorizontalPodAutoscaler")["stepcoder-sandbox"]["spec"]
    budget = overlay.of("PodDisruptionBudget")["stepcoder-sandbox"]["spec"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0]
    for selector in (budget["selector"], spread["labelSelector"]):
        assert selector["matchLabels"] == {PART_OF: "stepcoder", COMPONENT: "sandbox"}
        assert selector["matchLabels"].items() <= labels.items()
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "stepcoder-sandbox")
    assert scaler["minReplicas"] <= scaler["maxReplicas"]
    assert "replicas" not in deployment["spec"], "each apply would undo what the autoscaler did"


def test_in_production_programs_meet_gvisor_and_prometheus_finds_the_sandbox(
    production: Manifests, render: Callable[[str], Manifests]
) -> None:
    spec = production.of("Deployment")["stepcoder-sandbox"]["spec"]["template"]["spec"]
    assert spec["runtimeClassName"] in render("cluster").of("RuntimeClass")
    monitor = production.of("PodMonitor")["stepcoder-sandbox"]["spec"]
    (sandbox,) = [one for one in production.pods() if monitor["selector"]["matchLabels"].items() <= one.labels.items()]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in sandbox.spec["containers"][0]["ports"]]


def test_the_queue_leads_to_gpus(production: Manifests, render: Callable[[str], Manifests]) -> None:
    cluster = render("cluster")
    (group,) = cluster.of("ClusterQueue")[production.of("LocalQueue")["stepcoder"]["spec"]["clusterQueue"]]["spec"][
        "resourceGroups"
    ]
    assert "nvidia.com/gpu" in group["coveredResources"]
    for flavor in group["flavors"]:
        assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
        assert cluster.of("ResourceFlavor")[flavor["name"]]["spec"]["nodeLabels"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_value_is_in_the_manifests(name: str, render: Callable[[str], Manifests]) -> None:
    assert not render(name).of("Secret")
