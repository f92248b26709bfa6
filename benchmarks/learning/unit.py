"""One unit in a process of its own: `python -m benchmarks.learning.unit UNIT.JSON`.

Each step leaves a mark when it is done. Started again, the process goes on at the step without one, and there from its
last checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stepcoder
from benchmarks.learning.plan import RECORD_NAME
from stepcoder.platform import storage
from stepcoder.platform.entry import running

MARK = "done.json"
"""In a step's folder when it is done."""

TRACES = ("pass_rate", "level_mean", "executed_fraction", "kl", "entropy")
"""What is kept of `metrics.jsonl`."""
VALIDATION = "validation_pass_at_1"


def run(spec: Path) -> None:
    """Trains what is not trained yet, measures the last policy, and leaves the record.

    In the record: what `measure` returns, the `curves` of PPO, `seconds` and `measuring` of them, the digest of the
    `dataset`, and the `machine`.
    """
    folder = spec.parent
    work = json.loads(spec.read_text())
    began = time.monotonic()
    for step in work["steps"]:
        mark = folder / step["name"] / MARK
        if not mark.is_file():
            for partial in mark.parent.glob(".*.partial"):  # left by a process that was killed
                storage.remove(str(partial))
            started = time.monotonic()
            train(step["kind"], step["config"])
            storage.write_text(mark, json.dumps({"seconds": time.monotonic() - started}) + "\n")
    started = time.monotonic()
    found = measure(**work["measure"])
    record = {
        "dataset": work["dataset"],
        "machine": machine(),
        "seconds": time.monotonic() - began,
        "measuring": time.monotonic() - started,
        **found,
        "curves": curves(folder, [step for step in work["steps"] if step["kind"] == "ppo"]),
    }
    storage.write_text(folder / RECORD_NAME, json.dumps(record) + "\n")


def train(kind: str, config: dict[str, Any]) -> None:
    """One training through its public config."""
    if kind == "sft":
        from stepcoder.sft import SftConfig
        from stepcoder.sft import train as train_sft

        train_sft(SftConfig(**config))
    else:
        from stepcoder.ppo import PpoConfig
        from stepcoder.ppo import train as train_ppo

        train_ppo(PpoConfig(**config))


def measure(
    *,
    policy: str,
    problems: str,
    most: int | None,
    samples: int,
    temperature: float,
    top_p: float,
    max_prompt_tokens: int,
    max_new_tokens: int,
    sampling_batch: int,
    cpu_seconds: float,
    seed: int,
) -> dict[str, Any]:
    """Samples programs for held-out problems from scratch.

    Returns:
        For each problem its id, family, number of conditional statements, judged samples and those that passed. A
        problem that does not fit into the prompt counts as not passed.
    """
    from benchmarks.learning.plan import by_hash
    from stepcoder.model.settings import Sampling
    from stepcoder.problems import conditionals, load_problems
    from stepcoder.rollouts import sample_programs
    from stepcoder.sandbox import Limits, open_sandbox

    held_out = load_problems(Path(problems))
    kept = set(by_hash(problem.id for problem in held_out)[:most])
    held_out = [problem for problem in held_out if problem.id in kept]
    with open_sandbox(slots=1) as sandbox:
        drawn = sample_programs(
            policy,
            held_out,
            n=samples,
            sampling=Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens),
            sandbox=sandbox,
            seed=seed,
            batch_size=sampling_batch,
            max_prompt_tokens=max_prompt_tokens,
            limits=Limits(cpu_seconds=cpu_seconds),
        )
    rows = {
        problem.id: {
            "id": problem.id,
            "family": problem.family or problem.id,
            "conditionals": len(conditionals(problem.solution)),
            "samples": 0,
            "passed": 0,
        }
        for problem in held_out
    }
    outcomes: dict[str, int] = {}
    sampled = {sample.problem_id for sample in drawn}
    for sample in drawn:
        outcome = sample.verdict.outcome.value
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if sample.verdict.judged:
            rows[sample.problem_id]["samples"] += 1
            rows[sample.problem_id]["passed"] += sample.verdict.passed
    for name in rows.keys() - sampled:
        rows[name]["samples"] = samples
    return {"problems": list(rows.values()), "outcomes": outcomes}


def machine() -> dict[str, Any]:
    """What the unit ran on."""
    return {
        "stepcoder": stepcoder.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
    }


def curves(folder: Path, steps: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points of a PPO run, by roll-outs so far; validation before the first stage and after each."""
    found: dict[str, list[tuple[float, float]]] = {trace: [] for trace in (*TRACES, VALIDATION)}
    offset = 0
    for step in steps:
        config, policy = step["config"], folder / step["name"] / "policy"
        samples = config["problems_per_step"] * config["samples_per_problem"]
        for row in map(json.loads, (policy / "metrics.jsonl").read_text().splitlines()):
            for trace in TRACES:
                if trace in row:
                    found[trace].append((offset + row["step"] * samples, float(f"{row[trace]:.6g}")))
        validation = json.loads((policy / "summary.json").read_text())["validation"]
        for when, x in (("before", offset), ("after", offset + config["steps"] * samples)):
            value = validation[when]["pass_at_1"]
            if value is not None and (when == "after" or offset == 0):
                found[VALIDATION].append((x, value))
        offset += config["steps"] * samples
    return found


def end_with_parent() -> None:
    """Ends this process when standard input does: a command that was killed must leave no unit at work behind."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    with running("unit"):
        run(Path(sys.argv[1]))
