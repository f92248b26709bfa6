"""The trials behind a setting: `python -m benchmarks.learning.tune --out FOLDER`.

Every variant gets the same number of trials, on a seed that no result uses, measured on validation problems. Test
problems are not looked at. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.markup import escape

from benchmarks.learning.__main__ import claimed, surroundings
from benchmarks.learning.figures import bootstrap_interval
from benchmarks.learning.plan import Unit, ppo_run, prepare, warm_start
from benchmarks.learning.settings import NAMES, SETTINGS, SWITCHES, Setting
from benchmarks.learning.workers import pass_at_1, run_all
from stepcoder.errors import StepCoderError
from stepcoder.platform import storage

SEEDS: Final = (100, 101)
"""Seeds of the trials; no setting uses them."""

TRIALS: Final[dict[str, dict[str, Any]]] = {
    "base": {},
    "hotter": {"temperature": 1.0},
    "faster": {"learning_rate": 4e-4},
    "critic": {"critic_warmup_steps": 6},
}
"""What is tried for every variant, on top of the setting. Nothing of the curriculum: in a trial of *small* each problem
comes up once, so that no level matters after it has moved."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trials that have not run, and writes `trials.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials")
    parser.add_argument("--steps", type=int, default=10, help="PPO steps of a stage in a trial")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        setting = shortened(SETTINGS[given.setting], given.steps)
        folder = given.out.absolute()
        surroundings(folder)
        units = planned(folder, setting)
        with claimed(folder, setting):
            prepare(folder, setting)
            warm = [warm_start(folder, setting, seed, "validation") for seed in SEEDS]
            try:
                run_all([*warm, *units], given.workers, console)
            finally:
                found = trials(setting, warm, units)
                storage.write_text(folder / "trials.json", json.dumps(found, indent=1) + "\n")
                console.print(markdown(found), highlight=False)
    except StepCoderError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        return error.exit_status
    return 0


def shortened(setting: Setting, steps: int) -> Setting:
    """The setting as a trial sees it: fewer steps and samples, other seeds, nothing tuned yet."""
    return setting.model_copy(
        update={
            "seeds": SEEDS,
            "ppo": {**setting.ppo, "steps": steps, "validation_problems": 0},
            "tuned": {},
            "measured": {**setting.measured, "samples": 4},
        }
    )


def planned(folder: Path, setting: Setting) -> dict[Unit, str]:
    """The units of all trials and the name of each trial, trial by trial over the variants."""
    return {
        ppo_run(folder, setting, seed, variant, "validation", name=f"{variant}-{name}", trial=trial): name
        for seed in setting.seeds
        for name, trial in TRIALS.items()
        for variant in SWITCHES
    }


def trials(setting: Setting, warm: Sequence[Unit], units: dict[Unit, str]) -> dict[str, Any]:
    """What every trial ended with."""
    rows = []
    for unit, name in units.items():
        if not unit.done:
            continue
        curves = unit.record["curves"]
        last = {trace: points[-1][1] for trace, points in curves.items() if points}
        rows.append(
            {
                "variant": unit.variant,
                "trial": name,
                "settings": TRIALS[name],
                "seed": unit.seed,
                "validation_pass_at_1": pass_at_1(unit),
                "last": last,
            }
        )
    started_from = {unit.seed: pass_at_1(unit) for unit in warm if unit.done}
    return {
        "setting": setting.model_dump(mode="json"),
        "sft": started_from,
        "trials": rows,
        "above_base": above_base({(unit.variant, name, unit.seed): unit for unit, name in units.items() if unit.done}),
    }


def above_base(done: dict[tuple[str, str, int], Unit]) -> dict[str, dict[str, dict[str, float]]]:
    """Validation pass@1 above the base trial of the same variant and seed: mean, and interval over seeds and families.

    Returns:
        By variant and trial `mean`, `low` and `high`.
    """
    rows = {key: unit.record["problems"] for key, unit in done.items()}
    rates = {key: np.array([row["passed"] / row["samples"] for row in table]) for key, table in rows.items()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for variant, name in dict.fromkeys((variant, name) for variant, name, _ in rows if name != "base"):
        pairs = [((variant, name, seed), (variant, "base", seed)) for seed in SEEDS]
        pairs = [(ours, base) for ours, base in pairs if ours in rows and base in rows]
        if not pairs:
            continue
        changes = np.array([rates[ours] - rates[base] for ours, base in pairs])
        families = np.unique([row["family"] for row in rows[pairs[0][0]]], return_inverse=True)[1]
        low, high = bootstrap_interval(changes, families)
        found.setdefault(variant, {})[name] = {"mean": float(changes.mean()), "low": low, "high": high}
    return found


def markdown(found: dict[str, Any]) -> str:
    """A table: validation pass@1 in percent, mean over seeds, and points above the base trial with their interval.

    A row a trial, a column a variant.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row in found["trials"]:
        values.setdefault((row["trial"], row["variant"]), []).append(row["validation_pass_at_1"])
    lines = ["| trial | " + " | ".join(NAMES[variant] for variant in SWITCHES) + " |", "| --- |" + " ---: |" * 4]
    for name in dict.fromkeys(row["trial"] for row in found["trials"]):
        here = [values.get((name, variant), []) for variant in SWITCHES]
        above = [found["above_base"].get(variant, {}).get(name) for variant in SWITCHES]
        cells = (
            (f"{100 * sum(rates) / len(rates):.1f} ({len(rates)})" if rates else "")
            + (
                " {mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{k: 100 * v for k, v in points.items()})
                if points
                else ""
            )
            for rates, points in zip(here, above, strict=True)
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    from_where = ", ".join(f"{100 * rate:.1f}" for rate in found["sft"].values())
    return "\n".join([*lines, "", f"pass@1 on validation problems, %, mean (seeds); after SFT: {from_where}"])


if __name__ == "__main__":
    sys.exit(main())
