"""Each component calls the library's function with the config that the command line builds too."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl

from components.check_new_data.component import check_new_data
from components.evaluate.component import evaluate
from components.ppo_stage.component import ppo_stage
from components.promotion_gate.component import promotion_gate
from components.register_model.component import register_model
from components.resolve_inputs.component import resolve_inputs
from components.sft.component import sft
from components.verify_dataset.component import verify_dataset
from stepcoder import inputs, new_data, registry
from stepcoder.cli import STEPS
from stepcoder.platform.config import StepConfig
from stepcoder.preflight import SECTIONS, check_settings

VALUES = ("p1", "owner/base@7", "b1", "s3://bucket/7", "c7", "s3://bucket/7", "c7")
RESOLVED = inputs.Resolved(*VALUES)

COMMANDS = {"verification": "verify", "sft": "sft", "ppo": "ppo", "evaluation": "evaluate", "gate": "gate"}
"""By section of settings, the command that does the same as the component."""


def artifact(path: Path) -> dsl.Artifact:
    return dsl.Artifact(uri=str(path))


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config that the function of each command is called with, in place of its work."""
    configs: dict[str, Any] = {}

    def spy(section: str, result: Any = None) -> Any:
        def take(config: StepConfig) -> Any:
            configs[section] = config
            folder = Path(getattr(config, "out"))  # noqa: B009
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text("{}")
            (folder / "report.html").write_text("<html>")
            return result

        return take

    figure = SimpleNamespace(overall=SimpleNamespace(pass_at_k={"1": SimpleNamespace(value=0.5)}))
    results = {
        "verification": SimpleNamespace(counts={"accepted": 3}),
        "evaluation": SimpleNamespace(models={"base": figure}),
        "gate": SimpleNamespace(promote=True, why="better"),
    }
    for section, command in COMMANDS.items():
        step = STEPS[command]
        monkeypatch.setattr(f"{step.module}.{step.function}", spy(section, results.get(section)))
    return configs


@pytest.mark.parametrize("section", COMMANDS)
def test_component_and_command_line_share_the_config(section: str) -> None:
    step = STEPS[COMMANDS[section]]
    assert getattr(importlib.import_module(step.module), step.config) is SECTIONS[section][0]


def handed_over(config: StepConfig, section: str, tmp_path: Path) -> dict[str, Any]:
    """The fields that are inputs of the step, with the test's folder cut off their addresses."""
    values = {name: getattr(config, name) for name in SECTIONS[section][1]}
    return {
        name: value.removeprefix(f"{tmp_path}/") if isinstance(value, str) else value for name, value in values.items()
    }


def test_verify_dataset(received: dict[str, Any], tmp_path: Path) -> None:
    dataset = artifact(tmp_path / "dataset")
    verify_dataset.python_func("p.jsonl", "mbpp", "abc", {"repeats": 2.0}, dataset)
    expected = {"problems": "p.jsonl", "format": "mbpp", "out": "dataset"}
    assert handed_over(received["verification"], "verification", tmp_path) == expected
    assert received["verification"].repeats == 2
    assert dataset.metadata["problems_digest"] == "abc"


def test_sft(received: dict[str, Any], tmp_path: Path) -> None:
    policy, history = artifact(tmp_path / "policy"), artifact(tmp_path / "history")
    sft.python_func(artifact(tmp_path / "dataset"), "base", "abc", {"epochs": 2.0}, "", policy, history)
    expected = {"dataset": "dataset", "base_model": "base", "out": "policy", "checkpoints": None}
    assert handed_over(received["sft"], "sft", tmp_path) == expected
    assert received["sft"].epochs == 2
    assert (tmp_path / "history" / "0" / "summary.json").is_file()


def test_ppo_stage(received: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "history_in" / "0").mkdir(parents=True)
    names = (
        "dataset",
        "policy_in",
        "reference",
        "history_in",
        "policy",
        "critic",
        "curriculum",
        "history",
        "critic_in",
    )
    artifacts = {name: artifact(tmp_path / name) for name in names}
    uri = ppo_stage.python_func(
        stage=2,
        stages=3,
        settings={},
        checkpoints="s3://bucket/checkpoints",
        curriculum_in=artifact(tmp_path / "curriculum_in"),
        **artifacts,
    )
    assert handed_over(received["ppo"], "ppo", tmp_path) == {
        "dataset": "dataset",
        "policy": "policy_in",
        "reference": "reference",
        "critic": "critic_in",
        "curriculum": "curriculum_in",
        "stage": 2,
        "stages": 3,
        "out": "policy",
        "out_critic": "critic",
        "out_curriculum": "curriculum",
        "checkpoints": "s3://bucket/checkpoints",
    }
    assert uri == (str(tmp_path / "policy"),)
    assert sorted(path.name for path in (tmp_path / "history").iterdir()) == ["0", "1"]


def test_evaluate(received: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "history" / "0").mkdir(parents=True)
    (tmp_path / "history" / "1").mkdir()
    metrics = dsl.Metrics()
    evaluate.python_func(
        dataset=artifact(tmp_path / "dataset"),
        base_model="base",
        base_model_digest="b1",
        sft_policy=artifact(tmp_path / "sft"),
        candidate=artifact(tmp_path / "candidate"),
        champion_uri="",
        champion_digest="",
        history=artifact(tmp_path / "history"),
        settings={"ks": [1.0, 2.0]},
        measurements="",
        evaluation=artifact(tmp_path / "evaluation"),
        report=artifact(tmp_path / "report"),
        metrics=metrics,
    )
    assert handed_over(received["evaluation"], "evaluation", tmp_path) == {
        "dataset": "dataset",
        "candidate": "candidate",
        "out": "evaluation",
        "base": "base",
        "sft": "sft",
        "champion": None,
        "base_digest": "b1",
        "champion_digest": None,
        "history": (f"{tmp_path}/history/0", f"{tmp_path}/history/1"),
        "measured": None,
    }
    assert received["evaluation"].ks == (1, 2)
    assert (tmp_path / "report").read_text() == "<html>"
    assert metrics.metadata == {"base_pass_at_1": 0.5}


def test_promotion_gate(received: dict[str, Any], tmp_path: Path) -> None:
    decision = artifact(tmp_path / "decision")
    made = promotion_gate.python_func(artifact(tmp_path / "evaluation"), {"margin": 0.1}, decision)
    assert handed_over(received["gate"], "gate", tmp_path) == {"evaluation": "evaluation", "out": "decision"}
    assert made == (True, "better")


def test_register_model_gets_the_address_the_decision_and_the_parents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configs: list[registry.RegisterConfig] = []

    def take(config: registry.RegisterConfig) -> Any:
        configs.append(config)
        return SimpleNamespace(version="7")

    monkeypatch.setattr("stepcoder.registry.register", take)
    uri = "s3://bucket/policy"
    decision = artifact(tmp_path / "decision")
    assert register_model.python_func(uri, "coder", "best", False, "worse", "p1", "b1", decision) == ("7",)
    assert configs == [
        registry.RegisterConfig(
            policy=uri,
            model_name="coder",
            champion_alias="best",
            promote=False,
            why="worse",
            decision=str(tmp_path / "decision"),
            parents=("problems=p1", "base_model=b1"),
        )
    ]


def test_resolve_inputs_hands_everything_to_the_check_and_its_findings_on(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []

    def take(given: dict[str, Any], settings: dict[str, Any]) -> inputs.Resolved:
        taken.extend((given, settings))
        return RESOLVED

    monkeypatch.setattr("stepcoder.preflight.preflight", take)
    sections = {name: {"seed": number} for number, name in enumerate(SECTIONS)}
    given = {
        "problems": "p.jsonl",
        "problem_format": "mbpp",
        "base_model": "base",
        "model_name": "coder",
        "champion_alias": "best",
        "checkpoints": "s3://bucket/checkpoints",
        "measurements": "s3://bucket/measurements",
        "warm_start": True,
    }
    assert resolve_inputs.python_func(**given, **sections) == VALUES
    assert taken == [given, sections]


def test_check_new_data(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[new_data.NewDataConfig] = []

    def take(config: new_data.NewDataConfig) -> new_data.NewData:
        configs.append(config)
        return new_data.NewData(new=True, problems_digest="p1", since="7")

    monkeypatch.setattr("stepcoder.new_data.check", take)
    assert check_new_data.python_func("p.jsonl", {"corrections": "c.jsonl"}, "coder") is True
    assert configs == [new_data.NewDataConfig(problems="p.jsonl", companions=("c.jsonl",), model_name="coder")]


def test_a_name_that_the_registry_does_not_take_is_bad_input_also_where_nothing_has_checked_it(tmp_path: Path) -> None:
    decision = artifact(tmp_path / "decision")
    for start in (
        lambda: check_new_data.python_func("p.jsonl", {}, "team/coder"),
        lambda: register_model.python_func("s3://policy", "coder", "latest", True, "", "p1", "b1", decision),
    ):
        with pytest.raises(SystemExit) as stopped:
            start()
        assert stopped.value.code == 2


def test_the_check_at_the_start_needs_neither_torch_nor_kfp() -> None:
    import subprocess
    import sys

    program = (
        "import stepcoder.preflight, sys; print([m for m in ('torch', 'transformers', 'kfp') if m in sys.modules])"
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", program], text=True)) == []


def test_all_sections_are_checked_together() -> None:
    from stepcoder.errors import DataError

    with pytest.raises(DataError) as caught:
        check_settings({"sft": {"epoch": 1}, "ppo": {"stage": 4}, "gates": {}})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["gates", "sft.epoch", "ppo.stage"]
