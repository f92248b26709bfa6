"""Whether a sandbox is ready is known before a run: its self-test, its version, its token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import TOKEN, Service, serving

from stepcoder.errors import DataError, StepCoderError
from stepcoder.evaluation.config import EvaluationConfig
from stepcoder.sandbox import readiness
from stepcoder.sandbox.judge import JudgeConfig
from stepcoder.sandbox.readiness import check_ready
from stepcoder.sft.config import SftConfig
from stepcoder.verification import VerifyConfig


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--slots", "1", token="sesame") as running:
        yield running


def test_a_ready_service_is_taken_with_its_token_and_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "sesame")
    assert set(check_ready(service.address, 30)) <= {"Landlock", "Landlock's signal scope"}
    monkeypatch.setenv(TOKEN, "guessed-token")
    with pytest.raises(StepCoderError, match=f"refuses the token: set {TOKEN}") as caught:
        check_ready(service.address, 30)
    assert "guessed-token" not in str(caught.value)


@pytest.mark.parametrize(("ours", "fits"), [("0.1.9", True), ("0.2.0", False), ("1.0.0", False)])
def test_a_service_of_another_version_is_refused(
    ours: str, fits: bool, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "sesame")
    monkeypatch.setattr(readiness, "__version__", ours)
    if fits:
        check_ready(service.address, 30)
        return
    with pytest.raises(StepCoderError, match=rf"is of version 0\.1\..*, and this is {ours}: roll out"):
        check_ready(service.address, 30)


def test_nobody_there_and_no_address_are_told() -> None:
    with pytest.raises(StepCoderError, match="not ready within 0 s"):
        check_ready("http://127.0.0.1:9", 0.1)
    with pytest.raises(DataError, match="is not known"):
        check_ready("locale", 1)


def test_on_this_machine_the_self_test_is_run() -> None:
    assert isinstance(check_ready("local", 1), tuple)


def test_the_environment_names_the_sandbox_of_every_step_that_is_told_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses() -> set[str]:
        return {
            VerifyConfig(problems="-", format="mbpp", out="-").sandbox,
            SftConfig(dataset="-", base_model="-", out="-").sandbox,
            EvaluationConfig(dataset="-", candidate="-", out="-").sandbox,
            JudgeConfig(problems="-", format="mbpp", programs="-", out="-").sandbox,
        }

    monkeypatch.delenv("STEPCODER_SANDBOX", raising=False)
    assert addresses() == {"local"}
    monkeypatch.setenv("STEPCODER_SANDBOX", "http://stepcoder-sandbox:8000")
    assert addresses() == {"http://stepcoder-sandbox:8000"}
    assert VerifyConfig(problems="-", format="mbpp", out="-", sandbox="docker").sandbox == "docker"
    monkeypatch.setenv("STEPCODER_SANDBOX", "")
    assert addresses() == {"local"}


def test_tables_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.sft.component import sft
    from pipelines.readme import readme

    monkeypatch.delenv("STEPCODER_SANDBOX", raising=False)
    plain = readme("sft", sft)
    monkeypatch.setenv("STEPCODER_SANDBOX", "http://elsewhere:8000")
    assert readme("sft", sft) == plain
