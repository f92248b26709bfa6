"""One PPO step, ours against TRL's PPOTrainer: two processes that step in turns. JSON comes out.

python -m benchmarks.ppo_step [--settings 0.2m,6m,6m-ragged,memory] [--pairs 15] [--profile]
python -m benchmarks.ppo_step growth     how our speed changes with the batch and with the length
python -m benchmarks.ppo_step tune       which micro-batches serve each side best

Ratios are TRL's CPU seconds over ours, medians over pairs; what each setting holds and must reach is in `settings.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.ppo_step import settings
from benchmarks.ppo_step.model import write_model
from benchmarks.ppo_step.peak import FORMULA, update_flops
from benchmarks.ppo_step.settings import SETTINGS, Setting
from benchmarks.ppo_step.trl_venv import trl_python, versions

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(ROOT),
}
Answer = dict[str, Any]


class Worker:
    """The process of one side."""

    def __init__(self, python: Path, module: str, setting: Setting, folder: Path, **changes: Any) -> None:
        self.name = module
        command = [python, "-m", f"benchmarks.ppo_step.{module}", setting.name, folder, json.dumps(changes)]
        log, name = tempfile.mkstemp(dir=folder.parent)
        self._log = Path(name)
        pipe, env = subprocess.PIPE, os.environ | ONE_THREAD
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=ROOT, env=env)
        os.close(log)
        self._into, self._out = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.ready = self._answer()

    def ask(self, do: str = "step", **more: Any) -> Answer:
        """Gives an order and waits for the answer."""
        self._into.write(json.dumps({"do": do, **more}) + "\n")
        self._into.flush()
        return self._answer()

    def _answer(self) -> Answer:
        line = self._out.readline()
        if not line:
            raise SystemExit(f"{self.name} ended:\n{self._log.read_text()[-3000:]}")
        answer: Answer = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._into.close()
        self._process.wait()


def compare(setting: Setting, pairs: int, trl: Path, folder: Path, *, profile: bool, minutes: float) -> Answer:
    """So many pairs of steps in turns (A B B A …), each with the core's matrix rates, after one unpaired step each.

    On a loaded machine it ends after `minutes` with the pairs that it has; a median needs two.
    """
    deadline = time.monotonic() + 60 * minutes
    parameters = write_model(setting, folder)
    with (
        Worker(Path(sys.executable), "ours", setting, folder) as ours,
        Worker(trl, "trl_side", setting, folder) as theirs,
    ):
        sides = {"ours": ours, "trl": theirs}
        first = {name: side.ask() for name, side in sides.items()}
        rounds: list[Answer] = []
        pairs = min(pairs, setting.most_pairs or pairs)
        for number in range(pairs):
            if number > 1 and time.monotonic() > deadline:
                break
            order = ("ours", "trl") if number % 2 == 0 else ("trl", "ours")
            row: Answer = {"first": order[0], "lengths": setting.lengths(number + 1)}
            row |= {name: sides[name].ask() for name in order}
            row["gigaflops"] = ours.ask("matrices")
            rounds.append(row)
            say(f"{setting.name} {number + 1}/{pairs}: {ratio(row):.2f}")
        report = {
            "setting": dataclasses.asdict(setting),
            "parameters": parameters,
            "summary": summary(setting, rounds),
            "first_step": first,
            "rounds": rounds,
        }
        if profile:
            report["profile_of_our_update"] = ours.ask("profile")
    return report


def ratio(row: Answer) -> float:
    """TRL's CPU seconds of a round over ours."""
    return float(row["trl"]["cpu_seconds"] / row["ours"]["cpu_seconds"])


def summary(setting: Setting, rounds: Sequence[Answer]) -> Answer:
    """Medians over rounds, and whether they keep the bars."""

    def share(row: Answer, side: str) -> float:
        rate = update_flops(setting, row["lengths"], shared=side == "ours") / row[side]["phases"]["update"] / 1e9
        return float(rate / max(row["gigaflops"].values()))

    def quantiles(values: Iterable[float]) -> list[float]:
        return [round(value, 3) for value in statistics.quantiles(values, n=4)]

    found: Answer = {
        "pairs": len(rounds),
        "ratio": median(map(ratio, rounds)),
        "ratio_quartiles": quantiles(map(ratio, rounds)),
        "ratio_of_wall_clocks": median(row["trl"]["seconds"] / row["ours"]["seconds"] for row in rounds),
        "ratio_by_phase": {
            phase: median(row["trl"]["phases"][phase] / row["ours"]["phases"][phase] for row in rounds)
            for phase in ("rollouts", "scoring", "update")
        },
        "memory_ratio": median(row["ours"]["peak_mib"] / row["trl"]["peak_mib"] for row in rounds),
        "gigaflops": {name: median(row["gigaflops"][name] for row in rounds) for name in rounds[0]["gigaflops"]},
    }
    for side in ("ours", "trl"):
        rows = [row[side] for row in rounds]
        found[side] = {
            "cpu_seconds": median(row["cpu_seconds"] for row in rows),
            "wall_seconds": median(row["seconds"] for row in rows),
            "phases": {phase: median(row["phases"][phase] for row in rows) for phase in rows[0]["phases"]},
            "tokens_a_second": median(row["tokens"] / row["cpu_seconds"] for row in rows),
            "peak_mib": median(row["peak_mib"] for row in rows),
            "update_share_of_matrix_peak": median(share(row, side) for row in rounds),
        }
    bars = {
        "ratio": (setting.least_ratio, found["ratio"], 1),
        "memory_ratio": (setting.most_memory, found["memory_ratio"], -1),
        "update_share_of_matrix_peak": (setting.least_peak_share, found["ours"]["update_share_of_matrix_peak"], 1),
    }
    found["bars"] = {
        name: {"bar": bar, "measured": value, "kept": sign * value >= sign * bar}
        for name, (bar, value, sign) in bars.items()
        if bar is not None
    }
    return found


def growth(rounds: int, folder: Path) -> Answer:
    """Our tokens a CPU second at 1, 2, 4 and 8 times the batch, and the length, of the small model; in turns."""
    base = dataclasses.replace(SETTINGS["0.2m"], prompts=2, prompt_tokens=32, response_tokens=32)
    write_model(base, folder)
    shapes: dict[str, dict[str, int]] = {}
    for factor in (1, 2, 4, 8):
        batch = base.batch * factor
        shapes[f"batch x{factor}"] = {"prompts": base.prompts * factor, "sampling_batch": batch}
        shapes[f"length x{factor}"] = {
            name: getattr(base, name) * factor for name in ("prompt_tokens", "response_tokens")
        }
    found: dict[str, list[Answer]] = {name: [] for name in shapes}
    with Worker(Path(sys.executable), "ours", base, folder) as ours:
        for number in range(-1, rounds):
            for name, changes in shapes.items():
                shape = {
                    **{n: getattr(base, n) for n in ("prompts", "prompt_tokens", "response_tokens")},
                    **changes,
                }
                answer = ours.ask(shape=shape)
                if number >= 0:
                    found[name].append(answer)
            say(f"growth {number + 1}/{rounds}")
    return {
        "setting": dataclasses.asdict(base),
        "summary": {
            name: {
                "tokens": rows[0]["tokens"],
                "tokens_a_second": median(row["tokens"] / row["cpu_seconds"] for row in rows),
                "phases": {phase: median(row["phases"][phase] for row in rows) for phase in rows[0]["phases"]},
            }
            for name, rows in found.items()
        },
        "rounds": found,
    }


def tune(setting: Setting, rounds: int, trl: Path, folder: Path) -> Answer:
    """CPU seconds and peak of a step by each side's own choices, candidates in turns."""
    write_model(setting, folder)
    whole = -(-setting.batch // setting.minibatches)
    longest = setting.prompt_tokens + setting.response_tokens
    micro = [size for size in (1, 2, 4, 8, 16, 32) if size < whole and setting.batch % size == 0]
    candidates: dict[str, tuple[Path, str, dict[str, int]]] = {}
    for size in [*micro[-3:], 0]:
        candidates[f"trl micro-batch {size or whole}"] = (trl, "trl_side", {"trl_micro_batch": size})
    for size in {setting.batch, setting.batch // 2} - {setting.trl_rollout_batch}:
        candidates[f"trl roll-outs by {size}"] = (trl, "trl_side", {"trl_rollout_batch": size})
    for size in [*micro[-3:], whole]:
        candidates[f"ours micro-batch {size}"] = (Path(sys.executable), "ours", {"micro_batch_tokens": size * longest})
    found: dict[str, list[Answer]] = {name: [] for name in candidates}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(python, module, setting, folder, **changes))
            for name, (python, module, changes) in candidates.items()
        }
        for number in range(-1, rounds):
            for name, worker in workers.items():
                answer = worker.ask()
                if number >= 0:
                    found[name].append(answer)
            say(f"tune {setting.name} {number + 1}/{rounds}")
    return {
        name: {key: median(row[key] for row in rows) for key in ("cpu_seconds", "peak_mib")}
        for name, rows in found.items()
    }


def median(values: Iterable[float]) -> float:
    """Rounded to three digits behind the point."""
    return round(statistics.median(values), 3)


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table(report: Answer) -> str:
    """The comparisons, for people."""
    lines = [f"{'':11}  ratio      quartiles  roll-outs  scoring  update  memory  % of peak"]
    for name, entry in report.items():
        found = entry["summary"]
        low, _, high = found["ratio_quartiles"]
        phases = found["ratio_by_phase"]
        share = 100 * found["ours"]["update_share_of_matrix_peak"]
        lines.append(
            f"{name:11}{found['ratio']:7.2f}{f'{low:.2f}-{high:.2f}':>15}{phases['rollouts']:11.2f}"
            f"{phases['scoring']:9.2f}{phases['update']:8.2f}{found['memory_ratio']:8.2f}{share:11.1f}"
        )
        for bar, kept in found["bars"].items():
            lines.append(f"{'':11}{'kept' if kept['kept'] else 'MISSED'}: {bar} {kept['measured']} (bar {kept['bar']})")
        if operators := entry.get("profile_of_our_update", {}).get("operators"):
            lines += [f"{'':11}{e['share']:6.1%} {e['calls']:6} {e['name'][:80]}" for e in operators[:12]]
    return "\n".join(lines)


def environment(trl: Path | None) -> Answer:
    """What made the figures."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "ours": versions(sys.executable),
        "trl": versions(trl) if trl else None,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": model[0].partition(":")[2].strip() if model else "",
        "cores": len(os.sched_getaffinity(0)),
        "load_at_begin": os.getloadavg()[0],
        "commit": commit.stdout.strip(),
        "threads": 1,
    }


def main() -> None:
    """Prints a table, and writes or prints the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("compare", "growth", "tune"), default="compare")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="comma-separated")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of a comparison; rounds of the others")
    parser.add_argument("--minutes", type=float, default=60, help="end a comparison after these, whatever it has")
    parser.add_argument("--profile", action="store_true", help="profile our update after each comparison")
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=caches / "stepcoder", help="folder for TRL's environment")
    parser.add_argument("--out", type=Path, help="file for the JSON; otherwise it is printed")
    options = parser.parse_args()
    if unknown := set(options.settings.split(",")) - set(SETTINGS):
        parser.error(f"no such settings: {sorted(unknown)}; there are {list(SETTINGS)}")
    chosen = [SETTINGS[name] for name in options.settings.split(",")]
    trl = None if options.what == "growth" else trl_python(options.cache, version("transformers"))
    report: Answer = {"environment": environment(trl), "flops_of_an_update": FORMULA}
    report["hyper_parameters"] = {n: v for n, v in vars(settings).items() if n.isupper() and isinstance(v, float | int)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if trl is None:
            report["growth"] = growth(options.pairs, folder / "growth")
            for name, row in report["growth"]["summary"].items():
                say(f"{name:10} {row['tokens']:6} tokens, {row['tokens_a_second']:8.0f} a second")
        else:
            each: Callable[[Setting], Answer]
            if options.what == "tune":
                each = lambda s: tune(s, options.pairs, trl, folder / s.name)  # noqa: E731
            else:
                more = {"profile": options.profile, "minutes": options.minutes}
                each = lambda s: compare(s, options.pairs, trl, folder / s.name, **more)  # noqa: E731
            for setting in chosen:
                report.setdefault(options.what, {})[setting.name] = each(setting)
                write(report, options.out)
            if options.what == "compare":
                print(table(report["compare"]), file=sys.stderr)
    write(report, options.out)
    if not options.out:
        print(json.dumps(report, indent=1))


def write(report: Answer, out: Path | None) -> None:
    """Writes what is there so far."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
