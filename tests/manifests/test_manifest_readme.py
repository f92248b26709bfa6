"""What manifests/README.md says is so."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import crds
from tests.manifests.conftest import MANIFESTS, OVERLAYS, ROOT, build
from tests.manifests.rendered import COMPONENT, Manifests, Pod, rank, step
from tests.manifests.test_manifest_network import DNS, DRIVER, SANDBOX
from tests.manifests.test_manifest_schemas import worth

README = (MANIFESTS / "README.md").read_text()
TOKEN = {"name": "stepcoder", "key": "STEPCODER_SANDBOX_TOKEN"}


def mine(tmp_path: Path, addition: str, overlay: str = "production") -> Manifests:
    """An overlay of somebody's own, which names a shipped one."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    folder = tmp_path / "manifests" / "overlays" / "mine"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(f"resources: [../{overlay}]\n" + addition)
    return build(folder)[0]


def test_folders_and_files_that_it_names_exist() -> None:
    named = re.findall(r"(?:--filename|--kustomize|sh) (manifests/\S+)", README)
    assert len(named) == 8
    for path in named:
        assert (ROOT / path).exists(), path
    (table,) = re.findall(r"\| file \| what \|\n(.*?)\n\n", README, re.DOTALL)
    for file in re.findall(r"`([\w./-]+\.yaml)`", table):
        assert (MANIFESTS / "overlays" / "production" / file).exists() or (MANIFESTS / file).exists(), file


def test_the_keys_of_the_secret_are_those_that_pods_read(executors: dict[str, Any]) -> None:
    (told,) = re.findall(r"`stepcoder.env` is .*?\n`(.*?)`\.", README, re.DOTALL)
    read = {
        pair["secretKey"]
        for said in executors.values()
        for source in said.get("secretAsEnv", [])
        for pair in source["keyToEnv"]
    }
    assert set(told.split()) == read


def printed(start: str) -> str:
    """The one block of YAML that begins so."""
    (block,) = re.findall(rf"```yaml\n({start}.*?)```", README, re.DOTALL)
    return block


def test_its_patch_leaves_one_address_of_the_kubernetes_api(tmp_path: Path, production: Manifests) -> None:
    narrowed = mine(tmp_path, printed(r"patches:\n  - target: {kind: NetworkPolicy, name: stepcoder-kubeflow}"))
    pod = step("promotion-gate")
    for manifests, elsewhere in ((production, True), (narrowed, False)):
        assert manifests.reaches(pod, "10.1.2.3", 6443)
        assert manifests.reaches(pod, "192.168.1.1", 6443) is elsewhere


@pytest.mark.parametrize("name", OVERLAYS)
def test_its_patch_lets_pods_ask_the_address_of_names_that_a_cache_on_the_node_answers(
    name: str, tmp_path: Path, render: Callable[[str], Manifests]
) -> None:
    shipped = render(name)
    patched = mine(tmp_path, printed(r"patches:\n  - target: {kind: NetworkPolicy, name: stepcoder-\("), name)
    servers = [Pod(one.labels) for one in shipped.pods() if one.labels[COMPONENT] in {"mlflow", "buckets"}]
    assert len(servers) == (2 if name == "local" else 0)
    for pod in [step("sft"), rank("sft"), DRIVER, *servers]:
        for protocol in ("UDP", "TCP"):
            assert not shipped.reaches(pod, "10.96.0.10", 53, protocol)
            assert patched.reaches(pod, "10.96.0.10", 53, protocol)
            assert patched.reaches(pod, DNS, 53, protocol)
        assert not patched.reaches(pod, "10.96.0.10", 9153)
    assert not patched.reaches(SANDBOX, "10.96.0.10", 53, "UDP")


def test_its_patch_gives_the_token_to_the_sandbox_and_to_prometheus(tmp_path: Path) -> None:
    patched = mine(tmp_path, printed(r"patches:\n  - target: {kind: Deployment"))
    (container,) = patched.of("Deployment")["stepcoder-sandbox"]["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": TOKEN["key"], "valueFrom": {"secretKeyRef": TOKEN}}]
    monitor = patched.of("PodMonitor")["stepcoder-sandbox"]
    assert monitor["spec"]["podMetricsEndpoints"][0]["authorization"] == {"credentials": TOKEN}
    crds.check(monitor)


def test_its_overlay_for_kubeflow_pipelines_alone_moves_everything(tmp_path: Path, production: Manifests) -> None:
    overlay = printed("# manifests/overlays/mine/kustomization.yaml")
    assert yaml.safe_load(overlay)["resources"] == ["../production"]
    moved = mine(tmp_path, overlay.replace("resources: [../production]\n", ""))
    assert yaml.safe_dump_all(moved) == yaml.safe_dump_all(production).replace(
        "namespace: stepcoder\n", "namespace: kubeflow\n"
    )


def test_the_labels_that_it_gives_a_profile_are_those_of_pod_security_alone() -> None:
    """All others are Kubeflow's: by `app.kubernetes.io/part-of` its network policies know a profile."""
    (command,) = re.findall(r"^kubectl label namespace .*", README, re.MULTILINE)
    assert command.split()[3] == "stepcoder", "Kubeflow's own pods fall short of the restricted standard"
    given = dict(re.findall(r"(\S+)=(\S+)", command))
    assert given["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(name.startswith("pod-security.kubernetes.io/") for name in given), command


def test_kubeflow_is_told_to_meet_the_restricted_standard_before_the_label_demands_it() -> None:
    told = README.index("defaultSecurityContextRunAsNonRoot")
    assert told < README.index("rollout restart deployment/ml-pipeline") < README.index("kubectl label namespace")
    (patch,) = re.findall(r"patch configmap pipeline-install-config .*--patch \\\n +'(.*)'", README)
    # A config map holds texts: kubectl refuses a bare true.
    assert yaml.safe_load(patch) == {"data": {"defaultSecurityContextRunAsNonRoot": "true"}}


@pytest.mark.parametrize("name", ["local", "standalone"])
def test_its_overlay_adds_the_runtime_of_trainjobs_to_the_others(
    name: str, tmp_path: Path, render: Callable[[str], Manifests]
) -> None:
    overlay = printed(r"namespace: stepcoder\nresources: \[../local\]")
    if name == "standalone":
        overlay = overlay.replace("namespace: stepcoder", "namespace: kubeflow")
    added = mine(tmp_path, overlay.replace("resources: [../local]\n", ""), name)
    shipped = render(f"overlays/{name}")
    (runtime,) = [one for one in added if one not in shipped]
    assert len(added) == len(shipped) + 1
    assert runtime["kind"] == "TrainingRuntime"
    assert runtime["metadata"]["namespace"] == shipped[0]["metadata"]["namespace"]


def test_what_the_local_overlay_asks_for_is_told(local: Manifests) -> None:
    requests = [one["resources"]["requests"] for pods in local.pods() for one in pods.spec["containers"]]
    cores = sum(worth(one["cpu"]) for one in requests)
    memory = sum(worth(one["memory"]) for one in requests) / 2**30
    disk = sum(
        worth(claim["spec"]["resources"]["requests"]["storage"]) / 2**30
        for owner in local.of("StatefulSet").values()
        for claim in owner["spec"]["volumeClaimTemplates"]
    )
    (told,) = re.findall(r"It asks for ([\d.]+) cores and ([\d.]+) GiB", README)
    assert [float(one) for one in told] == pytest.approx([cores, memory], abs=0.06)
    assert f"{disk:.0f} GiB of disk" in README


def test_each_printed_command_for_kubeflow_says_in_which_namespace(production: Manifests) -> None:
    pages = [ROOT / "README.md", MANIFESTS / "README.md", *(ROOT / "docs").glob("*.md")]
    printed = [
        block
        for page in pages
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    printed += [path.read_text() for path in (ROOT / "pipelines" / "examples").glob("*.yaml")]
    commands = re.findall(r"python -m pipelines\.(?:submit|schedule) .*", "\n".join(printed).replace("\\\n", ""))
    assert len(commands) > 8
    (role,) = production.of("Role").values()
    for command in commands:
        assert re.search(r"--namespace (\S+)", command)[1] == role["metadata"]["namespace"], command


def test_the_table_of_folders_is_whole() -> None:
    folders = {str(path.parent.relative_to(MANIFESTS)) for path in MANIFESTS.rglob("kustomization.yaml")}
    (table,) = re.findall(r"\| folder \| what is in it.*?\n\n", README, re.DOTALL)
    assert folders == set(re.findall(r"^\| `([\w/]+)` \|", table, re.MULTILINE))
    assert folders >= {f"overlays/{name}" for name in OVERLAYS}


def test_the_examples_and_the_guide_fit_the_production_overlay(production: Manifests) -> None:
    assert production.of("ConfigMap")["stepcoder"]["data"]["HF_HUB_OFFLINE"] == "1"
    images = [pod.spec["containers"][0]["image"] for pod in production.pods()]
    for name in ("production", "smoke", "weekly"):
        text = (ROOT / "pipelines" / "examples" / f"{name}.yaml").read_text()
        content = yaml.safe_load(text)
        # A closed hub: a model's name there would end at the first step.
        assert content.get("parameters", content)["base_model"].startswith("s3://")
        assert re.search(r"# tools_image: (\S+)", text)[1] in images
    guide = (ROOT / "docs" / "production.md").read_text()
    assert re.search(r"`queue: (\S+)`", guide)[1] in production.of("LocalQueue")
    assert all(image in guide for image in images)
