"""One unit in a process of its own: `python -m benchmarks.learning.unit UNIT.JSON`.

Each step leaves a mark when it is done. Started again, the process goes on at the step without one, and there from its
last checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.learning.plan import MARK
from stepcoder.platform import storage
from stepcoder.platform.entry import running


def run(spec: Path) -> None:
    """Trains what is not trained yet, then measures the last policy."""
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
    storage.write_text(folder / "measured.json", json.dumps(found) + "\n")
    seconds = {"seconds": time.monotonic() - began, "measuring": time.monotonic() - started}
    storage.write_text(folder / MARK, json.dumps(seconds) + "\n")


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
    from stepcoder.sandbox import Limits, Outcome, open_sandbox

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
        outcome = sample.verdict.outcome
        outcomes[outcome.value] = outcomes.get(outcome.value, 0) + 1
        if outcome is not Outcome.INFRA_ERROR:
            rows[sample.problem_id]["samples"] += 1
            rows[sample.problem_id]["passed"] += sample.verdict.passed
    for name in rows.keys() - sampled:
        rows[name]["samples"] = samples
    return {"problems": list(rows.values()), "outcomes": outcomes}


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
