"""What the manifests and the compiled pipeline say of the same things."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from pipelines.submit import SERVICE_ACCOUNT
from tests.manifests.conftest import OVERLAYS, ROOT
from tests.manifests.rendered import COMPONENT, PART_OF, Manifests
from tests.manifests.test_manifest_network import JUDGING, STEPS

OPTIONAL = {"AWS_CA_BUNDLE", "HF_ENDPOINT", "STEPCODER_KUBEFLOW_URL"}
"""Keys that pods read and that only some clusters need; manifests/base/settings.yaml names them."""
RUN = {
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
    ("", "configmaps"): {"get"},
    ("", "secrets"): {"get"},
    ("trainer.kubeflow.org", "trainjobs"): {"create", "get", "list", "delete"},
    ("", "pods"): {"get", "list"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"list"},
}


def test_labels_of_the_policies_are_those_that_the_pipeline_gives_its_pods(executors: dict[str, Any]) -> None:
    for name, said in executors.items():
        labels = said["podMetadata"]["labels"]
        assert labels[PART_OF] == "stepcoder"
        assert labels[COMPONENT] == re.sub(r"-\d+$", "", name.partition("/")[2])
        assert labels[COMPONENT] in STEPS


def test_the_steps_that_may_ask_the_sandbox_are_those_that_get_its_address(executors: dict[str, Any]) -> None:
    told = {
        said["podMetadata"]["labels"][COMPONENT] for said in executors.values() if "STEPCODER_SANDBOX" in keys_of(said)
    }
    assert told == set(JUDGING)


def keys_of(said: dict[str, Any]) -> set[str]:
    """Keys of the config map that a pod reads; what it reads them from must be the one of the manifests."""
    found = set()
    for source in said.get("configMapAsEnv", []):
        assert source["configMapNameParameter"]["runtimeValue"]["constant"] == "stepcoder"
        for pair in source["keyToEnv"]:
            assert pair["configMapKey"] == pair["envVar"]
            found.add(pair["configMapKey"])
    return found


def test_keys_of_the_config_map_are_those_that_pods_read(executors: dict[str, Any], overlay: Manifests) -> None:
    read = set().union(*(keys_of(said) for said in executors.values()))
    given = overlay.of("ConfigMap")["stepcoder"]["data"]
    assert read - OPTIONAL <= set(given) <= read
    settings = (ROOT / "manifests" / "base" / "settings.yaml").read_text()
    assert all(key in settings for key in OPTIONAL)


def test_no_setting_is_empty(overlay: Manifests) -> None:
    assert all(overlay.of("ConfigMap")["stepcoder"]["data"].values())


def test_the_sandbox_and_the_local_servers_are_where_the_settings_say(overlay: Manifests, local: Manifests) -> None:
    data = overlay.of("ConfigMap")["stepcoder"]["data"]
    services = overlay.of("Service")
    keys = ["STEPCODER_SANDBOX", *(["AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"] if overlay is local else [])]
    for key in keys:
        host, namespace, port = re.fullmatch(r"http://([a-z-]+)(?:\.([a-z]+))?:(\d+)", data[key]).groups()
        assert int(port) in [one["port"] for one in services[host]["spec"]["ports"]]
        assert namespace in (None, services[host]["metadata"]["namespace"])


def test_kubeflow_puts_artifacts_into_the_same_store_with_the_same_keys(
    executors: dict[str, Any], overlay: Manifests
) -> None:
    data = overlay.of("ConfigMap")["kfp-launcher"]["data"]
    settings = overlay.of("ConfigMap")["stepcoder"]["data"]
    store = yaml.safe_load(data["providers"])["s3"]["default"]
    assert data["defaultPipelineRoot"].startswith("s3://stepcoder/")
    assert settings["AWS_ENDPOINT_URL"] == f"{'http' if store['disableSSL'] else 'https'}://{store['endpoint']}"
    assert settings["AWS_REGION"] == store["region"]
    secret = store["credentials"]["secretRef"]
    read = {
        pair["secretKey"]
        for said in executors.values()
        for one in said.get("secretAsEnv", [])
        for pair in one["keyToEnv"]
    }
    assert {secret["accessKeyKey"], secret["secretKeyKey"]} <= read
    assert secret["secretName"] == "stepcoder"


def test_a_run_has_the_rights_that_it_needs_and_no_more(overlay: Manifests) -> None:
    (role,) = overlay.of("Role").values()
    rights = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights[group, resource] = set(rule["verbs"])
                if resource in {"configmaps", "secrets"}:
                    assert rule["resourceNames"] == [{"configmaps": "kfp-launcher", "secrets": "stepcoder"}[resource]]
    assert rights == RUN
    (binding,) = overlay.of("RoleBinding").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["stepcoder-pipeline"]
    assert binding["subjects"][0].get("namespace", "stepcoder") == "stepcoder"
    assert not overlay.of("ClusterRole")


def test_who_submits_may_use_the_account_of_runs_and_nothing_else(submitters: Manifests) -> None:
    (role,) = submitters.of("Role").values()
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": [SERVICE_ACCOUNT], "verbs": ["use"]}
    ]
    (binding,) = submitters.of("RoleBinding").values()
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"])
    assert [one["kind"] for one in binding["subjects"]] == ["User", "ServiceAccount"]
    assert {one["metadata"]["namespace"] for one in submitters} == {"stepcoder"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_accounts_are_those_that_pods_and_runs_name(name: str, render: Callable[[str], Manifests]) -> None:
    manifests = render(name)
    accounts = set(manifests.of("ServiceAccount"))
    assert accounts == {"stepcoder-pipeline", "stepcoder-sandbox", "stepcoder-trainjob"}
    for pods in manifests.pods():
        assert pods.spec.get("serviceAccountName", "stepcoder-sandbox") in accounts
