"""A step in a process of its own: `python record_steps.py FOLDER CHECKPOINT FIRST LAST ENDING`.

Writes the metrics of the optimiser steps FIRST to LAST and keeps a checkpoint after half of them; goes on from the
checkpoint when there is one. ENDING is `end`, or how it is killed: `kill-when-sent` once MLflow has everything,
`kill-unsent` while it has nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from stepcoder.platform import logs, tracking
from stepcoder.platform.tracking import METRICS_NAME, Tracker


def main(folder: Path, checkpoint: Path, first: int, last: int, ending: str) -> None:
    logs.configure()
    tracking.FLUSH_SECONDS = 0.1
    with Tracker.start("sft", folder, str(checkpoint)) as tracker:
        tracker.params({"learning_rate": 0.1})
        if checkpoint.exists():
            tracker.resume(checkpoint)
        for step in range(first, last + 1):
            # Each attempt measures other times.
            tracker.metrics({"loss": 1 / step, "seconds_step": time.perf_counter(), "levels": {"0": step}}, step=step)
            if step == (first + last) // 2:
                shutil.copyfile(folder / METRICS_NAME, checkpoint)
        if ending != "end":
            assert tracker.flush() == (ending == "kill-when-sent")
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
