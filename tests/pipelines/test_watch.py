"""Whose output a line is, and what the person who watches gets to see."""

from __future__ import annotations

import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.watch import Watch, read_pairs
from stepcoder.platform.logs import quoted

STREAM = """\
12:00:00 - INFO - Running pipeline: 'stepcoder'
----
12:00:00 - INFO - Executing task \x1b[96m'verify-dataset'\x1b[0m
12:00:00 - INFO - Streamed logs:

    [KFP Executor] Executing task 'never-a-start-when-indented'
    time=2026-01-01T00:00:00Z level=INFO step=progress event=judging done=3 total=9 left=2s
    time=2026-01-01T00:00:01Z level=WARNING step=verify event="odd record" id=a

12:00:02 - INFO - Task \x1b[96m'verify-dataset'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
12:00:02 - INFO - Executing task 'ppo-stage'
    time=2026-01-01T00:00:03Z level=ERROR step=ppo-stage-1 event=failed error="line 17: broken" exit_status=2
    time=2026-01-01T00:00:03Z level=ERROR step=ppo-stage-1 event=failed error="line 19: broken" exit_status=2
12:00:04 - ERROR - Task 'ppo-stage' finished with status FAILURE
12:00:04 - INFO - Executing task 'notify'
12:00:05 - INFO - Task 'notify' finished with status SUCCESS
"""


def watch(tmp_path: Path, stream: str, portion: int) -> tuple[Watch, str]:
    shown = io.StringIO()
    watcher = Watch(tmp_path / "logs", Console(file=shown, force_terminal=False, width=200))
    for begin in range(0, len(stream), portion):
        watcher.write(stream[begin : begin + portion])
    watcher.finish()
    return watcher, shown.getvalue()


def test_steps_their_states_and_their_own_words(tmp_path: Path) -> None:
    for portion in (1, 7, 10_000):
        watcher, shown = watch(tmp_path, STREAM, portion)
        states = [(step.name, step.state) for step in watcher.steps]
        assert states == [("verify-dataset", "done"), ("ppo-stage-1", "failed"), ("notify", "done")]
        assert watcher.failed is not None
        assert (watcher.failed.errors, watcher.failed.exit_status) == (["line 17: broken", "line 19: broken"], 2)
        assert "judging, done 3, total 9, left 2s" in shown
        assert "odd record, id a" in shown
        assert "KFP Executor" not in shown


def test_each_step_has_its_own_log_file(tmp_path: Path) -> None:
    watch(tmp_path, STREAM, 50)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "notify.log",
        "ppo-stage-1.log",
        "verify-dataset.log",
    ]
    assert "never-a-start" in (tmp_path / "logs" / "verify-dataset.log").read_text()
    assert (tmp_path / "logs" / "ppo-stage-1.log").read_text().count("event=failed") == 2


def test_a_step_that_was_interrupted_is_not_left_running(tmp_path: Path) -> None:
    watcher, _ = watch(tmp_path, "12:00:00 - INFO - Executing task 'sft'\n    loading\n", 50)
    assert [(step.state, step.tail) for step in watcher.steps] == [("failed", ["loading"])]


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(), min_size=1))
def test_log_lines_are_read_back_as_they_were_written(values: dict[str, str]) -> None:
    values.pop("time", None)
    line = "time=now " + " ".join(f"{key}={quoted(value)}" for key, value in values.items())
    assert read_pairs(line) == {"time": "now", **values}


def test_other_lines_are_no_log_lines() -> None:
    assert read_pairs("Traceback (most recent call last):") is None
    assert read_pairs('time=now error="half') is None or read_pairs('time=now error="half') == {"time": "now"}


def test_a_success_that_left_no_output_is_a_failure(tmp_path: Path) -> None:
    stream = STREAM.replace("finished with status FAILURE", "finished with status SUCCESS")
    watcher, _ = watch(tmp_path, stream, 10_000)
    assert watcher.failed is None
    run = tmp_path / "artifacts" / "stepcoder-1"
    for task in ("verify-dataset", "notify"):
        (run / task).mkdir(parents=True)
        (run / task / "executor_output.json").write_text("{}")
    watcher.judge(tmp_path / "artifacts")
    assert [step.name for step in watcher.steps if step.state == "failed"] == ["ppo-stage-1"]
