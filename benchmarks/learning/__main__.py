"""The whole benchmark in one command: `python -m benchmarks.learning --setting small --out FOLDER`.

The same command again goes on where it was stopped, however it was stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks.learning.plan import SETTING_NAME, check_setting, prepare, take_over, units
from benchmarks.learning.report import results, write
from benchmarks.learning.settings import SETTINGS, Setting
from benchmarks.learning.workers import run_all
from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import logs, storage


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, 1 for a fault at run time, 2 for bad input, 130 when interrupted."""
    console = Console()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seeds", help="some of the setting's seeds, such as 0,1; default all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--add", type=Path, action="append", default=[], help="folder of a run whose whole seeds count")
    parser.add_argument("--tables", action="store_true", help="run nothing; tables and curves of what is done")
    given = parser.parse_args(arguments)
    if given.add and given.tables:
        parser.error("--add copies records into the folder, and --tables changes nothing there")
    setting = SETTINGS[given.setting]
    if given.seeds:
        chosen = given.seeds.split(",")
        if strange := set(chosen) - {str(seed) for seed in setting.seeds}:
            parser.error(f"--seeds: {', '.join(sorted(strange))}: {given.setting} has {setting.seeds}")
        setting = setting.model_copy(update={"seeds": tuple(seed for seed in setting.seeds if str(seed) in chosen)})
    try:
        return run(given.out.absolute(), setting, given.workers, console, given.add, only_tables=given.tables)
    except StepCoderError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        return error.exit_status
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on where it stopped", highlight=False)
        return 130


def run(
    folder: Path,
    setting: Setting,
    workers: int,
    console: Console,
    others: Sequence[Path] = (),
    *,
    only_tables: bool = False,
) -> int:
    """Prepares, runs what is not done, and writes the results.

    Raises:
        StepCoderError: a folder belongs to another setting, or a unit failed.
    """
    began = time.monotonic()
    surroundings(folder)
    planned = units(folder, setting)
    fresh = not only_tables and not any(unit.done for unit in planned)
    if not only_tables:
        with claimed(folder, setting):
            if not all(unit.done for unit in planned):
                with console.status("dataset and base models"):
                    prepare(folder, setting)
            for other in others:
                seeds = take_over(folder, setting, other)
                fresh = fresh and not seeds
                console.print(f"{other}: seeds taken over: {', '.join(map(str, seeds)) or 'none'}", highlight=False)
            run_all(planned, workers, console)
    seconds = time.monotonic() - began if fresh else None
    if not any(unit.done and unit.variant == "plain" for unit in planned):
        raise DataError(f"{folder}: nothing has been measured yet")
    write(folder, results(setting, planned, seconds), console)
    return 0


def surroundings(folder: Path) -> None:
    """Sets what the units' processes inherit: one thread that does not spin, and tracking inside the folder."""
    logs.configure("error")
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")


@contextmanager
def claimed(folder: Path, setting: Setting) -> Iterator[None]:
    """Keeps the folder for this command, and holds the setting against that of the run that lies there.

    Raises:
        DataError: what lies in the folder came from another setting, or another command works there. More seeds of
            the same setting are welcome.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another command is at work there") from error
        path = folder / SETTING_NAME
        if path.is_file():
            check_setting(folder, setting)
        storage.write_text(path, json.dumps(setting.model_dump(mode="json"), indent=1) + "\n")
        yield


if __name__ == "__main__":
    sys.exit(main())
