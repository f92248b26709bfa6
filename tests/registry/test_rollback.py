"""A champion is taken back by one command, against a real MLflow with a database of its own."""

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from stepcoder.cli import main
from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import tracking
from stepcoder.registry import RegisterConfig, RollbackConfig, register, rollback
from tests.registry.registered import champion


@pytest.fixture(autouse=True)
def operator(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "operator")


@pytest.fixture
def promote(name, tmp_path):
    def run(number, **changes):
        policy = tmp_path / f"policy{number}"
        policy.mkdir(exist_ok=True)
        for file in ("config.json", "tokenizer_config.json", "model.safetensors"):
            (policy / file).write_text("{}")
        changes = {"promote": True, "policy_digest": f"digest{number}", "why": "it wins"} | changes
        return register(RegisterConfig(policy=str(policy), model_name=name, **changes))

    return run


@pytest.fixture
def back(name):
    return lambda **changes: rollback(RollbackConfig(model_name=name, **changes))


def tags(name, number):
    return tracking.client().get_model_version(name, number).tags


def test_the_version_that_was_champion_before_is_champion_again(promote, back, name, tmp_path):
    promote(1)
    promote(2)
    done = back(why="answers got worse")
    assert (done.version, done.instead_of, done.source) == ("1", "2", str(tmp_path / "policy1"))
    assert champion(name) == str(tmp_path / "policy1")
    written = tags(name, "1")
    assert (written["stepcoder.champion_by"], written["stepcoder.champion_because"]) == (
        "operator",
        "answers got worse",
    )
    assert written["stepcoder.champion_since"].endswith("+00:00")
    assert tags(name, "2")["stepcoder.champion_rolled_back"] == "1"


def test_the_command_that_undoes_it_is_told_and_works(promote, back, name, capsys):
    promote(1)
    promote(2)
    told = back().undo.split()
    assert told[0] == "stepcoder"
    assert main(told[1:]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["version"], done["instead_of"]) == ("2", "1")
    assert champion(name).endswith("policy2")
    assert not any(tags(name, number).get("stepcoder.champion_rolled_back") for number in ("1", "2"))
    assert back().version == "1"


def test_going_back_twice_goes_back_two_champions(promote, back, name):
    for number in (1, 2, 3):
        promote(number)
    assert [back().version, back().version] == ["2", "1"]
    with pytest.raises(DataError, match=r"version 1 won over no earlier champion.*versions are 3, 2, 1"):
        back()


def test_what_a_person_skipped_is_not_gone_back_to(promote, back, name):
    for number in (1, 2, 3):
        promote(number)
    back(to="2")
    assert back().version == "1"
    for number in (4, 5):
        promote(number)
    back(to="1")
    with pytest.raises(DataError, match="version 1 won over no earlier champion"):
        back()
    assert champion(name).endswith("policy1")


def test_only_a_person_who_names_it_brings_back_what_was_taken_back(promote, back, name):
    for number in (1, 2, 3):
        promote(number)
    back()
    back()
    back(to="3")
    with pytest.raises(DataError, match=r"version 2.*taken back by hand; versions are 3, 2, 1: name one with --to"):
        back()
    assert champion(name).endswith("policy3")
    assert tags(name, "2")["stepcoder.champion_rolled_back"] == "1"
    assert back(to="2").version == "2"


def test_what_was_taken_back_is_not_promoted_again_by_itself(promote, back, name):
    promote(1)
    promote(2)
    back()
    again = promote(2)
    assert not again.promoted
    assert "taken back by hand" in again.why
    assert champion(name).endswith("policy1")
    assert tags(name, "2")["stepcoder.promoted"] == "false"
    back(to="2")
    assert promote(2).promoted
    assert promote(3).promoted


def test_a_move_that_is_refused_at_its_start_does_not_take_the_champion_back(promote, back, name, monkeypatch):
    promote(1)
    promote(2)
    back()
    promote(3)
    write = MlflowClient.set_model_version_tag

    def refuse(client, model, number, *tag):
        if str(number) == "2":
            raise MlflowException("Permission denied")
        write(client, model, number, *tag)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", refuse)
    with pytest.raises(StepCoderError, match="Permission denied"):
        back(to="2")
    assert champion(name).endswith("policy3")
    assert "stepcoder.champion_rolled_back" not in tags(name, "3")


def test_there_has_to_be_something_to_go_back_to(promote, back, name):
    with pytest.raises(DataError, match="no version has the alias champion; there are no versions"):
        back()
    promote(1, promote=False)
    with pytest.raises(DataError, match="versions are 1: name one with --to"):
        back()
    with pytest.raises(DataError, match="there is no version 7"):
        back(to="7")
    first = back(to="1")
    assert (first.version, first.instead_of, first.undo) == ("1", None, "")
    with pytest.raises(DataError, match="version 1 is the champion already"):
        back(to="1")


def test_a_deleted_version_is_not_gone_back_to(promote, back, name):
    promote(1)
    promote(2)
    tracking.client().delete_model_version(name, "1")
    with pytest.raises(DataError, match=r"there is no version 1, it may have been deleted; versions are 2"):
        back()
    assert champion(name).endswith("policy2")


def test_a_version_without_its_weights_is_refused_unless_one_insists(promote, back, name, tmp_path):
    promote(1)
    promote(2)
    (tmp_path / "policy1").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"weights are not at .*policy1"):
        back()
    assert champion(name).endswith("policy2")
    assert back(check_weights=False).version == "1"


@pytest.mark.parametrize("gone", ["model.safetensors", "config.json"])
def test_a_version_without_a_part_of_its_checkpoint_is_refused(promote, back, name, tmp_path, gone):
    promote(1)
    promote(2)
    (tmp_path / "policy1" / "summary.json").write_text("{}")
    (tmp_path / "policy1" / gone).unlink()
    with pytest.raises(DataError, match=r"weights are not at .*policy1: has no "):
        back()
    assert champion(name).endswith("policy2")


def test_another_alias_has_a_history_of_its_own(promote, back, name):
    promote(1)
    promote(2, champion_alias="staging")
    promote(3)
    promote(4, champion_alias="staging")
    done = back(champion_alias="staging")
    assert (done.version, done.instead_of) == ("2", "4")
    assert done.undo.endswith("--to 4 --champion-alias staging")
    assert champion(name).endswith("policy3")
    assert back().version == "1"


def test_a_server_that_does_not_answer_is_a_fault_at_run_time(back, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    with pytest.raises(StepCoderError, match="MLFLOW_TRACKING_URI") as caught:
        back()
    assert caught.value.exit_status == 1
    assert "secret" not in str(caught.value)
