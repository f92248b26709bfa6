"""Several ranks of one training: what they tell one another, and how the training ends when one of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepcoder.platform import launch, ranks
from tests.training.rank_steps import Config


@contextmanager
def launched(name: str, out: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A process that launches two ranks of a step; killed at the end if it still runs."""
    config = Config.model_validate({"out": str(out), **settings}).model_dump_json()
    command = [sys.executable, "-m", "tests.training.rank_steps", name, config]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    """Its status and log; the time is for a loaded machine, and far below what a rank that hangs would take."""
    _, log = process.communicate(timeout=seconds)
    return process.returncode, log


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def pids(out: Path) -> list[int]:
    """The process numbers of both ranks, once both have left theirs."""
    files = [out / f"pid-{rank}" for rank in range(2)]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("gpus", "ranks_"), [(0, 1), (1, 1), (8, 8)])
def test_a_machine_has_a_rank_for_each_gpu_unless_the_settings_say_otherwise(
    gpus: int, ranks_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launch.ranks_here(None) == ranks_
    assert launch.ranks_here(3) == 3


def test_a_rank_that_torchrun_started_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launch.ranks_here(None) == 1


def test_one_process_is_the_main_rank_and_waits_for_nobody() -> None:
    assert (ranks.rank(), ranks.count(), ranks.is_main()) == (0, 1, True)
    assert ranks.gathered("mine") == ["mine"]
    assert ranks.largest(3) == 3
    ranks.at("here")
    ranks.together("the end")


def test_ranks_exchange_objects_in_order_and_only_rank_0_tells_how_the_work_goes(tmp_path: Path) -> None:
    with launched("exchange", tmp_path) as process:
        status, log = ended(process)
    assert status == 0, log
    for rank in range(2):
        assert (tmp_path / f"found-{rank}").read_text() == repr([[{"rank": 0}, {"rank": 1}], 7, rank == 0])
    lines = [line for line in log.splitlines() if "step=test" in line]
    assert len([line for line in lines if "told once" in line]) == 1
    by_all = [line for line in lines if "told by all" in line]
    assert sorted("rank=1" in line for line in by_all) == [False, True]


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("data", 2, "rank 1: problems.jsonl: line 3 is bad"),
        ("bug", 1, "rank 1: ZeroDivisionError: a bug"),
    ],
)
def test_the_fault_of_one_rank_ends_the_training_with_its_error_and_status_alone(
    what: str, status: int, message: str, tmp_path: Path
) -> None:
    with launched("fail", tmp_path, what=what) as process:
        code, log = ended(process)
    assert code == status
    errors = [line for line in log.splitlines() if "level=ERROR" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert log.count("Traceback") == (what == "bug")


def test_a_fault_of_all_ranks_is_told_once(tmp_path: Path) -> None:
    with launched("fail", tmp_path, what="all") as process:
        status, log = ended(process)
    assert status == 2
    assert log.count("no such file") == 1


def test_a_killed_rank_is_named_and_ends_the_training(tmp_path: Path) -> None:
    with launched("wait", tmp_path) as process:
        numbers = pids(tmp_path)
        os.kill(numbers[1], signal.SIGKILL)
        status, log = ended(process)
    assert status == 1
    assert "rank 1 was killed by SIGKILL" in log
    assert "Traceback" not in log
    assert not any(map(alive, numbers))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_the_process_that_launched_it(number: signal.Signals, tmp_path: Path) -> None:
    with launched("wait", tmp_path) as process:
        numbers = pids(tmp_path)
        process.send_signal(number)
        status, log = ended(process)
    assert status == {signal.SIGKILL: -9, signal.SIGTERM: 143}[number]
    assert "Traceback" not in log
    wait_for(lambda: not any(map(alive, numbers)), 5)


@pytest.mark.slow
def test_a_rank_in_an_endless_loop_is_named_with_its_place_and_the_training_ends(tmp_path: Path) -> None:
    with launched("hang", tmp_path, what="loop", timeout=3) as process:
        status, log = ended(process)
    assert status == 1
    assert "rank 1 is furthest behind: at roll-outs of step 3 for " in log
    assert "rank 0 is" not in log
    assert 'event=failed error="rank' in log


@pytest.mark.slow
def test_a_stopped_rank_is_named_with_its_place_and_the_training_ends(tmp_path: Path) -> None:
    with launched("hang", tmp_path, what="stop", timeout=3) as process:
        numbers = pids(tmp_path)
        wait_for((tmp_path / "ready").exists)
        time.sleep(1)  # For its mark to reach the other.
        os.kill(numbers[1], signal.SIGSTOP)
        assert process.stderr is not None
        told = next(line for line in process.stderr if "furthest behind" in line)
        os.kill(numbers[1], signal.SIGCONT)  # The agent would wait half a minute before it kills what takes no SIGTERM.
        status, _ = ended(process)
    assert status == 1
    assert "rank 1 is furthest behind: at roll-outs of step 3 for " in told
    assert "silent for" in told
    assert "rank 0 is" not in told
    assert not any(map(alive, numbers))


@pytest.mark.slow
def test_a_rank_at_long_work_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    with launched("work", tmp_path, timeout=2) as process:
        assert ended(process)[0] == 0
    assert [(tmp_path / f"found-{rank}").read_text() for rank in (0, 1)] == ["ended", "ended"]
