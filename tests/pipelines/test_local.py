"""The command that runs the pipeline on this machine: its arguments, its messages, and a whole run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import local
from pipelines.presets import DEMO, PRESETS
from stepcoder.errors import DataError
from stepcoder.model.init import InitModelConfig
from stepcoder.preflight import SECTIONS, check_settings

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("MLFLOW_TRACKING_URI", "STEPCODER_RUN_ID", "STEPCODER_PROGRESS_SECONDS")
EXAMPLES = ROOT / "examples" / "problems.jsonl"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCODER_HOME", str(tmp_path))
    for name in VARIABLES:
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_hold_valid_settings_for_every_step(name: str) -> None:
    preset = PRESETS[name]
    assert preset.keys() == {local.INIT, *SECTIONS}
    check_settings({section: values for section, values in preset.items() if section != local.INIT})
    InitModelConfig(problems="-", out="-", **preset[local.INIT])


def test_a_preset_brings_everything_and_arguments_change_it(tmp_path: Path) -> None:
    run = local.read_arguments(["--preset", "demo", "--set", "ppo.learning_rate=0.5", "--set", "sft.precision=bf16"])
    assert (run.problems, run.base_model, run.stages) == (str(EXAMPLES), None, 3)
    assert run.folder == tmp_path / "runs" / "demo"
    assert run.settings["ppo"] == DEMO["ppo"] | {"learning_rate": 0.5}
    assert run.settings["sft"] == DEMO["sft"] | {"precision": "bf16"}
    assert DEMO["ppo"]["learning_rate"] != 0.5


def test_null_gives_a_setting_its_default_back() -> None:
    run = local.read_arguments(["--preset", "smoke", "--set", "verification.max_chars=null"])
    assert "max_chars" not in run.settings["verification"]


def test_settings_of_a_setting_replace_a_plain_value() -> None:
    run = local.read_arguments(["--preset", "smoke", "--set", "ppo.steps.a=1", "--set", "ppo.steps.b=null"])
    assert run.settings["ppo"]["steps"] == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        ([], ["--problems is missing", "--base-model is missing"]),
        (["--preset", "smoke", "--stages", "0"], ["--stages: must be at least 1"]),
        (["--preset", "smoke", "--set", "ppo", "--set", "gates.x=1"], ["STEP.SETTING=VALUE", "unknown step 'gates'"]),
    ],
)
def test_wrong_arguments_are_listed(arguments: list[str], faults: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        local.read_arguments(arguments)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(faults)
    assert all(fault in line for fault, line in zip(faults, lines, strict=True))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--preset", "smoke", "--problems", "nowhere.jsonl"], ["nowhere.jsonl: there is no such file"]),
        (["--preset", "smoke", "--set", "ppo.steps.x=1"], ["ppo.steps: input should be a valid integer"]),
        (["--preset", "smoke", "--set", "ppo.stage=4"], ["ppo.stage: is an input of its own"]),
        (
            ["--preset", "smoke", "--format", "csv", "--base-model", "/no/model", "--set", "sft.epoch=1"],
            [
                "sft.epoch: unknown setting; did you mean epochs?",
                "'csv' is not a known format",
                "/no/model: there is no",
            ],
        ),
    ],
)
def test_bad_input_stops_the_command_before_anything_runs(
    arguments: list[str], shown: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert local.main(arguments) == 2
    printed = capsys.readouterr().out
    assert all(fault in printed for fault in shown)
    assert printed.count("error:") == len(shown)
    assert not (tmp_path / "runs" / "smoke" / "artifacts").exists()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.local", "--preset", "smoke", *arguments]
    environment = os.environ | {"STEPCODER_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(folder: Path, *arguments: str) -> tuple[int, str]:
    with start(folder, *arguments) as process:
        output, _ = process.communicate(timeout=600)
    return process.returncode, output


def children(parent: int) -> list[int]:
    tree: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal():
                tree.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                    int(entry.name)
                )
    found = list(tree.get(parent, []))
    for child in found:
        found += tree.get(child, [])
    return found


@pytest.mark.slow
def test_a_failed_step_is_named_with_its_own_words_and_its_exit_status(tmp_path: Path, few_problems: Path) -> None:
    status, output = finish(tmp_path, "--problems", str(few_problems), "--set", "sft.max_prompt_tokens=4")
    assert status == 2
    _, _, end = output.partition("sft failed")
    assert re.search(r"none of \d+ training problems fits max_prompt_tokens=4", end)
    assert "ppo-stage-1" not in output
    assert "✓ notify" in output
    assert "Traceback" not in output
    log = tmp_path / "runs" / "smoke" / "logs" / "sft.log"
    assert str(log) in end
    assert "event=failed" in log.read_text()


@dataclass
class Resumed:
    """A run whose second PPO checkpoint was followed by kill -9, and the same command again."""

    folder: Path
    problems: Path
    arguments: tuple[str, ...]
    killed: tuple[int, str]
    partial: list[Path]
    finished: tuple[int, str]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, few_problems: Path) -> Resumed:
    folder = tmp_path_factory.mktemp("resumed")
    problems = folder / "problems.jsonl"
    problems.write_bytes(few_problems.read_bytes())
    arguments = ("--problems", str(problems), "--set", "ppo.steps=30")
    run = folder / "runs" / "smoke"
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, "")
        with start(folder, *arguments) as process:
            while process.poll() is None and len(list((run / "checkpoints").glob("*/step-*"))) < 2:
                time.sleep(0.1)
            for child in children(process.pid):
                with contextlib.suppress(OSError):
                    if b"kfp.dsl.executor_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(child, signal.SIGKILL)
            output, _ = process.communicate(timeout=600)
        partial = list((run / "artifacts").rglob(".*.partial"))
        finished = finish(folder, *arguments)
    return Resumed(run, problems, arguments, (process.returncode, output), partial, finished)


@pytest.mark.slow
def test_a_run_whose_step_was_killed_goes_on_where_it_was_and_ends_with_tables(resumed: Resumed) -> None:
    status, output = resumed.killed
    assert status == 1, output
    assert "ppo-stage-1 failed" in output
    assert resumed.partial == []
    status, output = resumed.finished
    assert status == 0, output
    assert output.count("earlier result") == 2
    assert "after PPO stage 1" in output
    assert "Gate:" in output
    assert (resumed.folder / "report.html").is_file()
    assert "event=resumed" in (resumed.folder / "logs" / "ppo-stage-1.log").read_text()


@pytest.mark.slow
def test_a_changed_file_at_the_same_address_is_not_taken_from_the_cache(resumed: Resumed) -> None:
    lines = resumed.problems.read_text().splitlines(keepends=True)
    resumed.problems.write_text("".join(lines[:100]))
    status, output = finish(resumed.folder.parents[1], *resumed.arguments, "--set", "ppo.steps=1")
    assert status == 0, output
    assert "earlier result" not in output
