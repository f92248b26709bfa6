"""Registration and the way back in a real MLflow server with PostgreSQL and basic auth, policies in a real S3 store."""

import secrets
import threading

import boto3
import pytest
import requests

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import tracking
from stepcoder.registry import RegisterConfig, RollbackConfig, register, rollback
from tests.registry.registered import champion

pytestmark = pytest.mark.mlflow


@pytest.fixture
def name(mlflow_server, swift, request, monkeypatch):
    """A registered model's name that no other test uses."""
    for key, value in {**mlflow_server.environment, **swift.environment}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("STEPCODER_RUN_ID", raising=False)
    return request.node.name


@pytest.fixture
def store(swift):
    return boto3.client(
        "s3",
        endpoint_url=swift.endpoint,
        aws_access_key_id=swift.access_key,
        aws_secret_access_key=swift.secret_key,
        region_name=swift.region,
    )


@pytest.fixture
def enter(name):
    def run(policy, digest, **changes):
        changes = {"promote": True, "policy_digest": digest, "why": "it wins"} | changes
        return register(RegisterConfig(policy=policy, model_name=name, **changes))

    return run


def test_a_policy_is_registered_and_taken_back_by_its_address_and_no_weights_move(
    enter, name, swift, store, mlflow_server, monkeypatch
):
    monkeypatch.setenv("STEPCODER_RUN_ID", "weekly-1")
    bucket, artifacts = swift.bucket(), mlflow_server.destination.split("/")[2]
    before = store.list_objects_v2(Bucket=artifacts).get("KeyCount")
    addresses = [f"s3://{bucket}/runs/{number}/policy" for number in (1, 2)]
    for number, address in enumerate(addresses, start=1):
        # Nothing is there to be read: the address is all that is recorded.
        done = enter(address, f"digest{number}", dataset_digest="data", parents=("base_model=123",))
        assert (done.version, done.promoted) == (str(number), True)
    version = tracking.client().get_model_version(name, "2")
    assert (version.source, version.tags["stepcoder.previous_champion"]) == (addresses[1], "1")
    assert (version.tags["stepcoder.parents"], version.tags["stepcoder.champion_by"]) == ("base_model=123", "weekly-1")
    parent = tracking.client().get_run(version.run_id)
    assert parent.data.tags["stepcoder.run_id"] == "weekly-1"
    assert store.list_objects_v2(Bucket=artifacts).get("KeyCount") == before

    with pytest.raises(DataError, match="weights are not at s3://"):
        rollback(RollbackConfig(model_name=name))
    assert champion(name) == addresses[1]
    for file in ("config.json", "tokenizer_config.json", "model.safetensors"):
        store.put_object(Bucket=bucket, Key=f"runs/1/policy/{file}", Body=b"{}")
    done = rollback(RollbackConfig(model_name=name, why="slower answers"))
    assert (done.version, done.by, champion(name)) == ("1", mlflow_server.user, addresses[0])
    assert not enter(addresses[1], "digest2").promoted
    assert rollback(RollbackConfig(model_name=name, to="2", check_weights=False)).instead_of == "1"
    assert champion(name) == addresses[1]


def test_an_account_that_may_edit_registers_takes_back_and_undoes_it(enter, name, mlflow_server, monkeypatch):
    monkeypatch.setenv("STEPCODER_RUN_ID", "weekly-1")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    enter("s3://models/1", "digest1")

    def admin(path, **content):
        answer = requests.post(
            f"{mlflow_server.uri}/api/{path}", json=content, auth=(mlflow_server.user, mlflow_server.password)
        )
        answer.raise_for_status()

    password = secrets.token_hex(12)
    admin("2.0/mlflow/users/create", username="editor", password=password)
    experiment = tracking.client().get_experiment_by_name(name).experiment_id
    for kind, resource in (("experiment", experiment), ("registered_model", name)):
        grant = {"resource_type": kind, "resource_id": resource, "permission": "EDIT"}
        admin("3.0/mlflow/users/permissions/grant", username="editor", **grant)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "editor")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    monkeypatch.setenv("STEPCODER_RUN_ID", "weekly-2")
    for _ in range(2):  # as two steps leave it that make the run's record at the same moment
        tags = {tracking.RUN_ID_TAG: "weekly-2", tracking.STEP_TAG: "pipeline"}
        tracking.client().create_run(experiment, tags=tags)
    assert enter("s3://models/2", "digest2", parents=("problems=123",)).promoted
    back = rollback(RollbackConfig(model_name=name, check_weights=False))
    assert (back.version, back.by) == ("1", "editor")
    again = rollback(RollbackConfig(model_name=name, to="2", check_weights=False))
    assert (again.version, champion(name)) == ("2", "s3://models/2")
    assert enter("s3://models/2", "digest2").promoted


def test_registrations_at_once_leave_one_version_a_checkpoint_and_one_champion_that_says_so(enter, name):
    enter("s3://models/0", "first", champion=None)
    found, start = [], threading.Barrier(4)

    def one(digest):
        start.wait()
        found.append(enter(f"s3://models/{digest}", digest))

    threads = [threading.Thread(target=one, args=(digest,)) for digest in ("aaa", "aaa", "bbb", "bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    versions = tracking.client().search_model_versions(f"name = '{name}'")
    assert sorted(version.tags["stepcoder.policy_digest"] for version in versions) == ["aaa", "bbb", "first"]
    holder = champion(name)
    assert holder in ("s3://models/aaa", "s3://models/bbb")
    assert any(registration.promoted and registration.source == holder for registration in found)
    previous = {version.source: version.tags.get("stepcoder.previous_champion") for version in versions}
    assert previous[holder] is not None


def test_what_the_server_would_refuse_is_told(enter, name, tmp_path, monkeypatch):
    (tmp_path / "weights").write_text("w")
    with pytest.raises(DataError, match="takes no paths of this machine"):
        enter(str(tmp_path), "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
    with pytest.raises(StepCoderError, match="account's rights") as denied:
        enter("s3://models/1", "aaa")
    assert "not-the-password" not in str(denied.value)
