"""The local overlay: its secrets, its buckets, its MLflow."""

import configparser
import json
import re
import subprocess
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import mlflow.cli
import pytest
import yaml
from botocore.exceptions import ClientError

from tests.manifests.conftest import MANIFESTS, ROOT
from tests.manifests.rendered import Manifests
from tests.servers.swift import Swift

FOLDER = MANIFESTS / "overlays" / "local"


def made_secrets(*arguments: str) -> dict[str, dict[str, str]]:
    script = FOLDER / "make-secrets.sh"
    done = subprocess.run(["sh", str(script), *arguments], capture_output=True, text=True, check=True)
    documents = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in documents} == {"Secret"}
    return {one["metadata"]["name"]: one["stringData"] for one in documents}


def references(value: Any, name: str) -> list[dict[str, Any]]:
    """All values of a key, however deep."""
    if isinstance(value, dict):
        return [one for key, inner in value.items() for one in ([inner] if key == name else references(inner, name))]
    return [one for inner in value for one in references(inner, name)] if isinstance(value, list) else []


def test_the_made_secrets_are_those_that_pods_ask_for(local: Manifests) -> None:
    made = made_secrets()
    documents = list(local)
    for asked in references(documents, "secretKeyRef"):
        assert made[asked["name"]][asked["key"]], asked
    for asked in references(documents, "secretRef"):
        assert asked["name"] in made
    for asked in references(documents, "secret"):
        assert asked["secretName"] in made
    config_maps = local.of("ConfigMap")
    for asked in references(documents, "configMapKeyRef"):
        assert config_maps[asked["name"]]["data"][asked["key"]]
    for asked in [*references(documents, "configMapRef"), *references(documents, "configMap")]:
        assert asked["name"] in config_maps


def test_one_password_opens_one_door_everywhere(local: Manifests) -> None:
    made = made_secrets()
    ours = made["stepcoder"]
    (identity,) = json.loads(made["stepcoder-object-store"]["s3.json"])["identities"]
    assert identity["credentials"] == [
        {"accessKey": ours["AWS_ACCESS_KEY_ID"], "secretKey": ours["AWS_SECRET_ACCESS_KEY"]}
    ]
    assert made["stepcoder-mlflow"]["MLFLOW_AUTH_ADMIN_USERNAME"] == ours["MLFLOW_TRACKING_USERNAME"]
    assert made["stepcoder-mlflow"]["MLFLOW_AUTH_ADMIN_PASSWORD"] == ours["MLFLOW_TRACKING_PASSWORD"]


def test_passwords_are_long_random_and_new_each_time() -> None:
    first, second = made_secrets(), made_secrets()
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        assert re.fullmatch(r"[A-Za-z0-9]{32,40}", first["stepcoder"][name])
        assert first["stepcoder"][name] != second["stepcoder"][name]
    assert first["stepcoder-mlflow"]["POSTGRES_PASSWORD"] != second["stepcoder-mlflow"]["POSTGRES_PASSWORD"]


def mlflow_container(local: Manifests) -> dict[str, Any]:
    (container,) = local.of("Deployment")["stepcoder-mlflow"]["spec"]["template"]["spec"]["containers"]
    return container


def test_mlflow_takes_its_arguments_and_is_of_the_version_that_the_steps_use(local: Manifests) -> None:
    container = mlflow_container(local)
    assert container["command"] == ["mlflow", "server"]
    # Parses the arguments as the server would, and starts nothing.
    parsed = mlflow.cli.server.make_context("server", list(container["args"])).params
    assert (parsed["port"], parsed["app_name"], parsed["serve_artifacts"]) == (5000, "basic-auth", True)
    used = re.search(r"^mlflow==(\d+\.\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f":v{used[1]}." in container["image"]


def test_mlflow_answers_to_the_name_that_clients_use(local: Manifests) -> None:
    (hosts,) = [one for one in mlflow_container(local)["args"] if one.startswith("--allowed-hosts=")]
    address = local.of("ConfigMap")["stepcoder"]["data"]["MLFLOW_TRACKING_URI"]
    assert address.removeprefix("http://") in hosts.removeprefix("--allowed-hosts=").split(",")


def test_kubeflow_in_its_own_namespace_finds_the_store_where_artifacts_are(local: Manifests) -> None:
    providers = yaml.safe_load(local.of("ConfigMap")["kfp-launcher"]["data"]["providers"])
    host, port = providers["s3"]["default"]["endpoint"].split(":")
    service, namespace = host.split(".")
    found = local.of("Service")[service]
    assert found["metadata"]["namespace"] == namespace
    assert int(port) in [one["port"] for one in found["spec"]["ports"]]


def test_for_kubeflow_pipelines_alone_all_is_the_same_in_its_namespace(
    render: Callable[[str], Manifests], local: Manifests
) -> None:
    ours = yaml.safe_dump_all(local)
    moved = ours.replace("namespace: stepcoder\n", "namespace: kubeflow\n").replace(
        "-store.stepcoder:", "-store.kubeflow:"
    )
    assert moved.count("kubeflow:8333") == 2
    assert list(render("overlays/standalone")) == list(yaml.safe_load_all(moved))
    assert made_secrets("kubeflow").keys() == made_secrets().keys()


def test_no_password_is_in_an_argument_and_accounts_are_in_the_same_database(local: Manifests) -> None:
    arguments = mlflow_container(local)["args"]
    (accounts,) = [one for name, one in local.of("ConfigMap").items() if name.startswith("stepcoder-mlflow-")]
    ini = configparser.ConfigParser()
    ini.read_string(accounts["data"]["basic_auth.ini"])
    database = ini["mlflow"]["database_uri"]
    assert f"--backend-store-uri={database}" in arguments
    assert re.fullmatch(r"postgresql\+psycopg2://mlflow@stepcoder-postgres:5432/mlflow", database)
    assert "admin_password" not in ini["mlflow"]


@pytest.fixture
def buckets(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program of the Job, in the environment that its pod has, with a real object store."""
    for key, value in swift.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")  # which the config map does not have
    spec = util.spec_from_file_location("buckets", FOLDER / "buckets.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.s3
def test_the_buckets_are_made_once_and_hold_what_the_settings_name(buckets: ModuleType, local: Manifests) -> None:
    (container,) = local.of("Job")["stepcoder-buckets"]["spec"]["template"]["spec"]["containers"]
    names = next(one["value"] for one in container["env"] if one["name"] == "BUCKETS").split()
    root = local.of("ConfigMap")["kfp-launcher"]["data"]["defaultPipelineRoot"]
    (artifacts,) = [one for one in mlflow_container(local)["args"] if one.startswith("--artifacts-destination=")]
    assert {root.split("/")[2], artifacts.split("/")[2]} == set(names)
    buckets.make(names)
    buckets.make(names)
    assert {one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]} >= set(names)


@pytest.mark.s3
def test_a_name_that_the_store_refuses_fails_the_job(buckets: ModuleType) -> None:
    with pytest.raises(ClientError, match="InvalidBucketName"):
        buckets.make(["A"])


def test_the_job_runs_the_program_that_is_tested(local: Manifests) -> None:
    (program,) = [one for name, one in local.of("ConfigMap").items() if name.startswith("stepcoder-buckets-")]
    assert program["data"]["buckets.py"] == (FOLDER / "buckets.py").read_text()
    spec = local.of("Job")["stepcoder-buckets"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "program"]
    assert container["command"] == ["python", str(Path(mount["mountPath"]) / "buckets.py")]
