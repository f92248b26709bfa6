"""Against a real MLflow with a database of its own."""

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import BAD_REQUEST, PERMISSION_DENIED, MlflowException

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import tracking
from stepcoder.platform.config import parse
from stepcoder.registry import Decision, RegisterConfig, register
from tests.registry.registered import champion

ADDRESS = "s3://models/runs/1/policy"


@pytest.fixture
def enter(name):
    def run(promote, digest="aaa", policy=ADDRESS, **changes):
        changes = {"promote": promote, "policy_digest": digest, "why": "because"} | changes
        return register(RegisterConfig(policy=policy, model_name=name, **changes))

    return run


def version(name, number):
    return tracking.client().get_model_version(name, number)


def decided(folder, promote=True, **changes):
    facts = {"why": "it wins", "margin": 0.0, "confidence": 0.95, "candidate_digest": "aaa", "dataset_digest": "data"}
    folder.mkdir()
    (folder / "decision.json").write_text(Decision(promote=promote, **facts | changes).model_dump_json())
    return str(folder)


def test_a_version_is_registered_even_when_it_loses(enter, name):
    found = enter(False)
    assert (found.version, found.created, found.promoted) == ("1", True, False)
    assert version(name, "1").source == ADDRESS
    assert champion(name) is None


def test_the_alias_moves_only_on_a_win(enter, name):
    assert enter(True).promoted
    assert champion(name) == ADDRESS
    enter(False, digest="bbb", policy="s3://models/runs/2/policy")
    assert champion(name) == ADDRESS
    third = enter(True, digest="ccc", policy="s3://models/runs/3/policy")
    assert third.previous_champion == "1"
    assert champion(name) == "s3://models/runs/3/policy"
    assert version(name, "3").tags["stepcoder.previous_champion"] == "1"


def test_the_same_checkpoint_is_one_version_however_often_it_is_registered(enter, name):
    first = enter(False)
    again = enter(False)
    assert (again.version, again.created) == (first.version, False)
    later = enter(True, policy="s3://models/runs/2/copy")
    assert later.version == first.version
    assert later.promoted
    assert len(tracking.client().search_model_versions(f"name = '{name}'")) == 1


def test_registering_the_champion_again_leaves_it_champion(enter, name):
    enter(True)
    again = enter(True)
    assert again.promoted
    assert again.previous_champion == "1"
    assert "stepcoder.previous_champion" not in version(name, "1").tags


def test_a_champion_that_comes_back_and_does_not_beat_itself_keeps_its_record(enter, name):
    enter(True)
    assert not enter(False, why="it is the champion itself").promoted
    assert champion(name) == ADDRESS
    tags = version(name, "1").tags
    assert (tags["stepcoder.promoted"], tags["stepcoder.why"]) == ("true", "because")


def test_a_version_says_where_it_comes_from(enter, name, monkeypatch):
    monkeypatch.setenv("STEPCODER_RUN_ID", "run-7")
    enter(True, dataset_digest="data", parents=("base_model=123", "problems=456"))
    tags = version(name, "1").tags
    assert tags["stepcoder.policy_digest"] == "aaa"
    assert tags["stepcoder.dataset_digest"] == "data"
    assert tags["stepcoder.parents"] == "base_model=123, problems=456"
    assert tags["stepcoder.run_id"] == "run-7"
    assert tags["stepcoder.code_version"]
    assert (tags["stepcoder.promoted"], tags["stepcoder.why"]) == ("true", "because")
    run = tracking.client().get_run(version(name, "1").run_id)
    assert run.data.tags["stepcoder.run_id"] == "run-7"


def test_the_gate_and_the_evaluation_say_what_the_settings_do_not(enter, name, tmp_path):
    decision = decided(tmp_path / "decision")
    figure = {"value": 0.5}
    model = {"address": "x", "digest": "aaa", "counts": {"p": [1, 2]}, "overall": {"pass_at_k": {"1": figure}}}
    (tmp_path / "evaluation").mkdir()
    metrics = {"dataset": {"digest": "data"}, "models": {"candidate": model}}
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    found = enter(None, digest="", why="", decision=decision, evaluation=str(tmp_path / "evaluation"))
    assert found.promoted
    assert found.why == "it wins"
    tags = version(name, "1").tags
    assert tags["stepcoder.policy_digest"] == "aaa"
    assert tags["stepcoder.dataset_digest"] == "data"
    assert tags["stepcoder.pass_at_1"] == "0.500000"


def test_the_alias_stays_when_another_champion_has_come_in_the_meantime(enter, name, tmp_path):
    enter(True, digest="new", policy="s3://models/new")
    # The candidate was measured when there was no champion, or against an older one.
    early = decided(tmp_path / "early")
    other = decided(tmp_path / "other", champion_address="s3://models/old", candidate_digest="bbb")
    for decision, digest in ((early, "aaa"), (other, "bbb")):
        found = enter(None, digest=digest, decision=decision)
        assert not found.promoted
        assert "measured against" in found.why
        assert version(name, found.version).tags["stepcoder.promoted"] == "false"
    assert champion(name) == "s3://models/new"
    right = decided(tmp_path / "right", champion_address="s3://models/new", candidate_digest="ccc")
    assert enter(None, digest="ccc", decision=right).promoted


def test_a_run_that_is_repeated_after_its_win_stays_a_win(enter, tmp_path):
    decision = decided(tmp_path / "decision")
    assert enter(None, decision=decision).promoted
    assert enter(None, decision=decision).promoted


def test_contradictions_are_refused(enter, tmp_path):
    decision = decided(tmp_path / "decision")
    with pytest.raises(DataError, match="give one of them"):
        enter(False, decision=decision)
    with pytest.raises(DataError, match="different checkpoints"):
        enter(None, digest="other", decision=decision)


def test_what_cannot_be_read_is_named(enter, tmp_path):
    (tmp_path / "decision.json").write_text("{}")
    with pytest.raises(DataError, match=r"decision\.json"):
        enter(None, decision=str(tmp_path))
    with pytest.raises(DataError, match="there is no such checkpoint folder"):
        enter(True, policy=str(tmp_path / "nowhere"))


def test_a_path_is_recorded_so_that_it_means_the_same_everywhere(enter, name, tmp_path, monkeypatch):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "weights").write_text("w")
    monkeypatch.chdir(tmp_path)
    enter(True, policy="policy", digest="")
    assert champion(name) == str(tmp_path / "policy")
    assert len(version(name, "1").tags["stepcoder.policy_digest"]) == 64


def test_the_registration_is_written(enter, tmp_path):
    enter(True, out=str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "registration.json").read_text())
    assert (written["version"], written["promoted"], written["source"]) == ("1", True, ADDRESS)


@pytest.mark.parametrize("method", ["set_model_version_tag", "set_registered_model_alias"])
def test_another_registration_that_writes_the_same_at_the_same_moment_is_no_error(enter, name, monkeypatch, method):
    # MLflow looks, then inserts: of two that find nothing, the database refuses the second.
    store, refused = getattr(MlflowClient, method), []

    def at_once(*arguments):
        store(*arguments)
        if arguments[1:] not in refused:
            refused.append(arguments[1:])
            raise MlflowException("(psycopg2.errors.UniqueViolation) duplicate key", error_code=BAD_REQUEST)

    monkeypatch.setattr(MlflowClient, method, at_once)
    assert enter(True, why="it wins").promoted
    assert champion(name) == ADDRESS
    assert version(name, "1").tags["stepcoder.why"] == "it wins"
    assert refused


def test_of_two_registrations_at_once_the_older_counts_also_where_the_account_may_not_delete(enter, name, monkeypatch):
    create = MlflowClient.create_model_version

    def both(*arguments, **tags):
        create(*arguments, **tags)
        return create(*arguments, **tags)

    def denied(*_):
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "create_model_version", both)
    monkeypatch.setattr(MlflowClient, "delete_model_version", denied)
    first, again = enter(True), enter(True)
    assert (first.version, first.created, first.promoted) == ("1", False, True)
    assert (again.version, again.created, again.promoted) == ("1", False, True)


def test_an_unknown_model_has_no_champion(name):
    assert champion(name) is None


def test_a_server_that_does_not_answer_is_a_fault_at_run_time(name, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StepCoderError, match="MLFLOW_TRACKING_URI") as caught:
        register(RegisterConfig(policy=ADDRESS, policy_digest="aaa", promote=True, model_name=name))
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give `promote` or the gate's `decision`"),
        ({"promote": True, "policy_digest": "x' or 'y"}, "policy_digest"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        parse(RegisterConfig, settings, where="register", policy=ADDRESS)
