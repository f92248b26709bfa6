"""Steps that tests of several ranks launch; each is `tests.training.rank_steps:Config:NAME`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from stepcoder.errors import DataError
from stepcoder.platform import ranks
from stepcoder.platform.checkpoints import Checkpoints
from stepcoder.platform.config import StepConfig
from stepcoder.platform.entry import running
from stepcoder.platform.launch import launch
from stepcoder.platform.logs import get_logger


class Config(StepConfig):
    out: str
    """Folder of the test."""
    what: str = ""
    """What to do, where a step does several things."""
    timeout: float = 1800
    """The watchdog's."""


def begin(config: Config) -> Path:
    """Joins the group without DeepSpeed, which takes seconds to import, and leaves this rank's process number."""
    dist.init_process_group("gloo", timeout=ranks.patience(config.timeout))
    ranks.start(config.timeout)
    (Path(config.out) / f"pid-{ranks.rank()}").write_text(str(os.getpid()))
    return Path(config.out)


def exchange(config: Config) -> None:
    out = begin(config)
    get_logger("test").info("told once")
    get_logger("test").warning("told by all")
    found = [ranks.gathered({"rank": ranks.rank()}), ranks.largest(7 - ranks.rank()), ranks.is_main()]
    ranks.together("the end")
    (out / f"found-{ranks.rank()}").write_text(repr(found))


def fail(config: Config) -> None:
    begin(config)
    if ranks.rank() == 1:
        match config.what:
            case "data":
                raise DataError("problems.jsonl: line 3 is bad")
            case "bug":
                raise ZeroDivisionError("a bug")
            case "exit":
                os._exit(7)
    if config.what == "all":
        raise DataError("no such file")
    ranks.gathered(None)


def wait(config: Config) -> None:
    begin(config)
    ranks.gathered(None)
    time.sleep(600)


def work(config: Config) -> None:
    """Rank 0 works for three times the watchdog's time, and the other one waits for it."""
    out = begin(config)
    if ranks.is_main():
        end = time.monotonic() + 3 * config.timeout
        while time.monotonic() < end:
            ranks.busy()
            time.sleep(0.1)
    ranks.gathered(None)
    (out / f"found-{ranks.rank()}").write_text("ended")


def hang(config: Config) -> None:
    out = begin(config)
    ranks.at("roll-outs of step 3")
    if ranks.rank() == 1:
        (out / "ready").touch()
        while config.what == "loop":
            pass
        time.sleep(600)
    ranks.gathered(None)
    ranks.at("update of step 3")
    ranks.gathered(None)


def checkpoint(config: Config) -> None:
    """Three more steps from the newest checkpoint in `what`; with a file `hang`, rank 1 hangs in the third."""
    out = begin(config)
    checkpoints = Checkpoints(config.what, {"run": 1})
    found = checkpoints.newest()
    done = 0
    if found:
        done, folder = found
        texts = [(folder / f"part-{rank}").read_text() for rank in range(ranks.count())]
        (out / f"resumed-{ranks.rank()}").write_text(f"{done} {texts}")
    for step in range(done + 1, done + 4):

        def write(folder: Path, step: int = step) -> None:
            (folder / f"part-{ranks.rank()}").write_text(f"rank {ranks.rank()} step {step}")
            if ranks.rank() == 1 and step == 3 and (out / "hang").exists():
                (out / "ready").touch()
                time.sleep(600)

        checkpoints.save(step, write)
    ranks.together("the end")


if __name__ == "__main__":
    with running("test"):
        launch(f"tests.training.rank_steps:Config:{sys.argv[1]}", Config.model_validate_json(sys.argv[2]), processes=2)
