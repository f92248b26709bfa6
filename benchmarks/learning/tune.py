"""The trials behind a setting: `python -m benchmarks.learning.tune --setting small --out FOLDER`.

Every variant gets the same number of trials, on seeds that no result uses, measured on validation problems. Test
problems are not looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.learning import plan
from benchmarks.learning.settings import SETTINGS, SWITCHES, Setting
from benchmarks.learning.workers import run_all
from stepcoder.platform import storage

TRIALS: dict[str, dict[str, Any]] = {}
"""PPO settings that are tried, by name; those of the curriculum change nothing where there is none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all trials that have not run, and writes `trials.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    setting = SETTINGS[given.setting]
    return 0


if __name__ == "__main__":
    sys.exit(main())
