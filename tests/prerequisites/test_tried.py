"""All faults come in one message, each check has its time, and no secret is told."""

from __future__ import annotations

import time

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.redaction import redacted
from stepcoder.prerequisites.checks import Check, Fault, named, raise_all, run_all


def failing(error: Exception) -> Check:
    def run() -> None:
        raise error

    return Check("thing", run, mend="SOME_VARIABLE")


def test_every_check_runs_whatever_the_ones_before_found() -> None:
    checks = [failing(StepCoderError("gone")), failing(DataError("a\nb")), failing(ValueError("odd\nmore"))]
    results, faults = run_all([*checks, Check("other", lambda: 7)])
    assert results == {"other": 7}
    assert faults == [
        Fault("thing: gone; see SOME_VARIABLE", bad_input=False),
        Fault("thing: a", bad_input=True),
        Fault("thing: b", bad_input=True),
        Fault("thing: ValueError: odd; see SOME_VARIABLE", bad_input=False),
    ]


def test_one_fault_of_the_input_makes_the_whole_one() -> None:
    away, wrong = Fault("away", bad_input=False), Fault("wrong", bad_input=True)
    raise_all([])
    with pytest.raises(DataError, match="away\nwrong"):
        raise_all([away, wrong])
    with pytest.raises(StepCoderError) as caught:
        raise_all([away])
    assert not isinstance(caught.value, DataError)


def test_what_never_answers_is_given_up() -> None:
    began = time.monotonic()
    _, faults = run_all([Check("silent", lambda: time.sleep(60), seconds=0.2)])
    assert time.monotonic() - began < 10
    assert faults == [Fault("silent: did not answer within 0 s", bad_input=False)]


def test_where_to_mend_a_variable_depends_on_where_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    assert named("HF_TOKEN", "HF_ENDPOINT") == "HF_TOKEN, HF_ENDPOINT in the environment"
    monkeypatch.setenv("KFP_POD_NAME", "stepcoder-7")
    assert named("HF_TOKEN", "HF_ENDPOINT") == "HF_TOKEN in the run's Secret and HF_ENDPOINT in the ConfigMap stepcoder"


@pytest.mark.parametrize(
    "text",
    [
        "Max retries with url: /x?X-Amz-Signature=TOPSECRET&b=1",
        "GET http://store/k?AWSAccessKeyId=TOPSECRET&Signature=TOPSECRET&x=1 failed",
        "postgresql://user:TOPSECRET@db/mlflow is down",
        "postgresql://user:at@TOPSECRET@db/mlflow is down",
        "header Authorization: Bearer TOPSECRET.abc",
        "https://hooks.slack.com/services/T0/B0/TOPSECRET failed",
        "refused for AKIAIOSFODNN7TOPSEC0: no",
        "the token hf_TOPSECRETabcdefghijklmnop is wrong",
        "the password was correct-horse-TOPSECRET",
    ],
)
def test_what_looks_like_a_secret_or_is_one_is_hidden(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse-TOPSECRET")
    assert "TOPSEC" not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize("user", ["error", "stepcoder"])
def test_ordinary_words_stay(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    text = "s3://bucket/a: an error of the store; see http://stepcoder-mlflow:9000/x?list-type=2, stepcoder rollback"
    assert redacted(text) == text
