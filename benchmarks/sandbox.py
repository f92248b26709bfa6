"""What a program costs in the sandbox, in CPU time, against a fresh interpreter.

Both sides are interleaved in one run on one core: a round judges the same programs with executed statements and
without, and by `subprocess`. Figures are medians over rounds, ratios medians of each round's ratio. JSON comes out.

    python benchmarks/sandbox.py [--programs 100] [--rounds 7] [--apps FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepcoder.problems import CallTest, read_problems
from stepcoder.sandbox import Job, Sandbox, Verdict, job_of, open_sandbox

PROGRAM = '''
def frequent_word(text, least):
    """The most frequent word of at least so many letters, and how often it comes."""
    counts = {{}}
    for word in text.lower().split():
        word = word.strip(".,;")
        if len(word) >= least:
            counts[word] = counts.get(word, 0) + 1
        else:
            continue
    best = None
    for word in sorted(counts):
        if best is None or counts[word] > counts[best]:
            best = word
    return [best, counts.get(best, 0)]
# {number}
'''
CASES = [
    ("The cat and the dog.", 2, ["the", 2]),
    ("aa bb aa", 2, ["aa", 2]),
    ("x yy", 2, ["yy", 1]),
    ("zz, zz; zz aa", 2, ["zz", 3]),
]
TESTS = tuple(CallTest.of((text, least), expected) for text, least, expected in CASES)
CHECK = "".join(f"assert frequent_word({text!r}, {least}) == {expected!r}\n" for text, least, expected in CASES)


def cpu_of_children() -> float:
    """CPU seconds of this process's children so far, and of theirs that they waited for."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
            # The process that compiles is a child of the zygote that is never waited for.
            for below in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                fields = Path(f"/proc/{below}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:13])
    waited = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") + waited.children_user + waited.children_system


def cpu(work: Callable[[], None]) -> float:
    """CPU seconds of a piece of work, its processes included."""
    before = time.process_time() + cpu_of_children()
    work()
    return time.process_time() + cpu_of_children() - before


def judged(sandbox: Sandbox, numbers: Sequence[int], trace: bool) -> None:
    """Judges distinct programs; all must pass."""
    jobs = [Job(str(n), PROGRAM.format(number=n), TESTS, "frequent_word", trace=trace) for n in numbers]
    if not all(verdict.passed for verdict in sandbox.judge(jobs)):
        raise SystemExit("a right program did not pass")


def fresh(numbers: Sequence[int]) -> None:
    """Runs the same programs each in an interpreter of its own."""
    for number in numbers:
        subprocess.run([sys.executable, "-c", PROGRAM.format(number=number) + CHECK], check=True)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100, help="programs in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--apps", type=Path, help="an APPS+ file: judge its reference solutions too")
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rounds: list[dict[str, float]] = []
    with open_sandbox(slots=1) as sandbox:
        judged(sandbox, range(-50, 0), trace=True)
        fresh(range(3))
        for number in range(options.rounds):
            block = range(number * options.programs, (number + 1) * options.programs)
            traced = cpu(lambda block=block: judged(sandbox, block, trace=True)) / len(block)
            plain = cpu(lambda block=block: judged(sandbox, block, trace=False)) / len(block)
            few = block[: max(10, len(block) // 5)]
            subprocesses = cpu(lambda few=few: fresh(few)) / len(few)
            rounds.append({"traced": traced, "plain": plain, "subprocess": subprocesses})
    os.sched_setaffinity(0, cores)

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(map(value, rounds)), 3)

    report: dict[str, Any] = {
        "milliseconds_a_program": {
            name: median(lambda r, name=name: 1000 * r[name]) for name in ("traced", "plain", "subprocess")
        },
        "subprocess_over_traced": median(lambda r: r["subprocess"] / r["traced"]),
        "traced_over_plain": median(lambda r: r["traced"] / r["plain"]),
        "settings": {"tests": len(TESTS), "programs": options.programs, "rounds": options.rounds, "slots": 1},
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": len(cores)},
    }
    if options.apps:
        report["apps_references"] = references(options.apps)
    print(json.dumps(report, indent=1))


def references(path: Path) -> dict[str, Any]:
    """Judges all reference solutions of an APPS+ file with all tests, on all cores."""
    problems = read_problems(path, "apps_plus")
    with open_sandbox() as sandbox:
        results: list[Verdict] = []
        started = time.monotonic()
        seconds = cpu(lambda: results.extend(sandbox.judge([job_of(p, p.solution) for p in problems])))
        wall = time.monotonic() - started
    return {
        "programs": len(problems),
        "passed": sum(verdict.passed for verdict in results),
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(seconds, 2),
        "programs_a_second": round(len(problems) / wall, 1),
    }


if __name__ == "__main__":
    main()
