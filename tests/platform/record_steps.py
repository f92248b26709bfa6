"""Steps in processes of their own, which a test kills: `python record_steps.py FOLDER CHECKPOINT FIRST LAST [kill]`.

Writes the metrics of the optimiser steps FIRST to LAST and keeps a checkpoint after half of them; goes on from the
checkpoint when there is one.
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
            # The second attempt measures other times than the first.
            tracker.metrics({"loss": 1 / step, "seconds_step": time.perf_counter(), "levels": {"0": step}}, step=step)
            if step == (first + last) // 2:
                shutil.copyfile(folder / METRICS_NAME, checkpoint)
                time.sleep(float(os.environ.get("SLEEP", "0")))
        if ending == "kill":
            time.sleep(float(os.environ.get("SLEEP", "0")))
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
