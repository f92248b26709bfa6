"""What kubectl would send is what the API server takes: schemas, names, quantities, nothing deprecated."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import crds
from tests.manifests.conftest import COMPONENTS, MANIFESTS, OVERLAYS, build, why_not
from tests.manifests.rendered import Manifests

FOLDERS = ("base", "cluster", *OVERLAYS, COMPONENTS)
OLDEST, NEWEST = "1.30", "1.37"
DNS_LABEL = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"


@pytest.mark.parametrize("folder", ["base", "cluster", "overlays/local", "overlays/production", "overlays/standalone"])
def test_each_folder_builds_without_a_warning(folder: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    manifests, warned = build(MANIFESTS / folder)
    assert manifests
    assert warned == ""


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_the_strict_schema_of_kubernetes(
    version: str, render: Callable[[str], Manifests], submitters: Manifests, tools: Path, tmp_path: Path
) -> None:
    # Of each object once: base and the local overlay are in `components`.
    every = [*submitters, *(one for folder in (COMPONENTS, "production", "cluster") for one in render(folder))]
    own = [one for one in every if one["kind"] not in crds.OTHERS]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(own))
    done = subprocess.run(
        [str(tools / "kubernetes-validate"), "--strict", "--kubernetes-version", version, str(tmp_path / "all.yaml")],
        capture_output=True,
        text=True,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert told.count(" passed for resource ") == len(own), told


def test_the_schemas_refuse_a_field_that_does_not_exist(
    render: Callable[[str], Manifests], tools: Path, tmp_path: Path
) -> None:
    deployment = render("base").of("Deployment")["stepcoder-sandbox"]
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(deployment | {"spec": deployment["spec"] | {"replica": 2}}))
    tool = tools / "kubernetes-validate"
    assert subprocess.run([str(tool), "--strict", str(tmp_path / "wrong.yaml")], capture_output=True).returncode != 0


@pytest.mark.slow
def test_checkov_finds_what_its_exceptions_explain_and_nothing_else(
    render: Callable[[str], Manifests], submitters: Manifests, tools: Path, tmp_path: Path
) -> None:
    for folder in (COMPONENTS, "production", "cluster"):
        (tmp_path / f"{folder}.yaml").write_text(yaml.safe_dump_all(render(folder)))
    (tmp_path / "submitters.yaml").write_text(yaml.safe_dump_all(submitters))
    # Without the exceptions, so that one that is no longer needed is noticed too.
    done = subprocess.run(
        [str(tools / "checkov"), "--framework", "kubernetes", "--directory", str(tmp_path), "--output", "json"],
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    told = (MANIFESTS / "checkov.yaml").read_text()
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 500
    failed = {one["check_id"]: one["check_name"] for one in found["results"]["failed_checks"]}
    assert set(failed) == set(yaml.safe_load(told)["skip-check"]), failed
    for one in failed:
        assert re.search(rf"^  # .{{40,}}\n  - {one}$", told, re.MULTILINE), f"{one} has no reason"


@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_of_other_projects_fit_their_definitions(folder: str, render: Callable[[str], Manifests]) -> None:
    for one in render(folder):
        if one["kind"] in crds.OTHERS:
            crds.check(one)
        else:
            assert "." not in one["apiVersion"].partition("/")[0] or one["apiVersion"].endswith("k8s.io/v1"), one


@pytest.mark.parametrize("folder", ["overlays/local", "overlays/standalone"])
def test_the_overlays_for_one_node_need_no_other_project_than_kubeflow_pipelines(
    folder: str, render: Callable[[str], Manifests]
) -> None:
    """kubectl ends with an error at a kind that the cluster does not know."""
    assert not [one["kind"] for one in render(folder) if one["kind"] in crds.OTHERS]


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_and_labels_are_valid_and_no_object_comes_twice(folder: str, render: Callable[[str], Manifests]) -> None:
    seen = set()
    for one in render(folder):
        meta = one["metadata"]
        assert re.match(DNS_LABEL, meta["name"]), meta
        for key, value in meta.get("labels", {}).items():
            assert re.match(LABEL_VALUE, value), (key, value)
        identity = (one["kind"], meta["name"])
        assert identity not in seen
        seen.add(identity)
        if one["kind"] not in {"ConfigMap", "RuntimeClass"}:
            assert meta["name"].partition("-")[0] == "stepcoder"


@pytest.mark.parametrize("folder", OVERLAYS)
def test_all_objects_of_an_overlay_are_in_its_namespace(folder: str, render: Callable[[str], Manifests]) -> None:
    assert {one["metadata"].get("namespace") for one in render(folder)} == {"stepcoder"}


@pytest.mark.parametrize("folder", [*FOLDERS, "overlays/standalone"])
def test_the_namespace_is_left_to_kubeflow(folder: str, render: Callable[[str], Manifests]) -> None:
    """By a profile's `app.kubernetes.io/part-of: kubeflow-profile` Kubeflow's network policies let its pods in."""
    assert not render(folder).of("Namespace")


def test_the_objects_of_the_cluster_are_in_no_namespace(render: Callable[[str], Manifests]) -> None:
    assert not [one for one in render("cluster") if "namespace" in one["metadata"]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_quantities_are_valid_and_requests_do_not_exceed_limits(
    folder: str, render: Callable[[str], Manifests]
) -> None:
    for pods in render(folder).pods():
        for container in pods.spec["containers"]:
            resources = container["resources"]
            for amounts in resources.values():
                for amount in amounts.values():
                    assert re.match(crds.QUANTITY, amount), (pods.name, amount)
            for name, amount in resources["requests"].items():
                assert worth(amount) <= worth(resources["limits"][name]), (pods.name, name)
        for amount in size_limits(pods.spec):
            assert re.match(crds.QUANTITY, amount), (pods.name, amount)


def size_limits(spec: dict[str, Any]) -> Iterator[str]:
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume:
            yield volume["emptyDir"]["sizeLimit"]


def worth(quantity: str) -> float:
    """A quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()
    return float(number) * {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}[unit]
