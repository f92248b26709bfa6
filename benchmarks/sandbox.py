"""What a program costs in the sandbox, in CPU time.

All sides of a comparison are interleaved in one run; figures are medians over rounds, ratios medians of each round's
ratio. JSON comes out.

    python -m benchmarks.sandbox [--rounds 7] [--apps FILE] [--evalplus PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

from benchmarks import heavy
from stepcoder.problems import CallTest, Problem, StdinTest, read_problems
from stepcoder.sandbox import Job, Limits, Sandbox, Verdict, job_of, open_sandbox

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
GIBIBYTE = 1 << 30

numbers = iter(range(1 << 60))


def below(pid: int) -> Iterator[int]:
    """All processes that a process started, and what those started."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from below(child)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, and of the ended ones that it waited for."""
    exact = sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return exact / 1e9 + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work, its processes included."""

    def spent() -> float:
        return cpu_of(os.getpid()) + sum(map(cpu_of, below(os.getpid())))

    before = spent()
    work()
    return spent() - before


def judged(sandbox: Sandbox, count: int, trace: bool = True) -> None:
    """Judges distinct programs; all must pass."""
    jobs = [Job("x", PROGRAM.format(number=next(numbers)), TESTS, "frequent_word", trace=trace) for _ in range(count)]
    if not all(verdict.passed for verdict in sandbox.judge(jobs)):
        raise SystemExit("a right program did not pass")


def fresh(count: int) -> None:
    """Runs the same programs each in an interpreter of its own."""
    for _ in range(count):
        subprocess.run([sys.executable, "-c", PROGRAM.format(number=next(numbers)) + CHECK], check=True)


class EvalPlus:
    """A process that checks the same programs by evalplus."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("evalplus_side.py")
        self._process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._into, self._out = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)

    def check(self, count: int) -> float:
        """CPU seconds for so many programs."""
        block = {
            "programs": [PROGRAM.format(number=next(numbers)) for _ in range(count)],
            "inputs": [[text, least] for text, least, _ in CASES],
            "expected": [expected for _, _, expected in CASES],
            "entry_point": "frequent_word",
        }
        self._into.write(json.dumps(block) + "\n")
        self._into.flush()
        return float(self._out.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait()


def small_programs(rounds: int, programs: int, evalplus: EvalPlus | None) -> dict[str, Any]:
    """One slot on one core: with executed statements, without, from a large process, and the other judges."""
    found: list[dict[str, float]] = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    with open_sandbox(slots=1) as sandbox:
        judged(sandbox, 100)
        fresh(3)
        for _ in range(rounds):
            row = {
                "traced": cpu(lambda: judged(sandbox, programs)) / programs,
                "plain": cpu(lambda: judged(sandbox, programs, trace=False)) / programs,
            }
            ballast = bytearray(b"x") * GIBIBYTE
            row["from_1_gib"] = cpu(lambda: judged(sandbox, programs)) / programs
            del ballast
            row["subprocess"] = cpu(lambda: fresh(programs // 5)) / (programs // 5)
            if evalplus:
                row["evalplus"] = evalplus.check(programs // 5) / (programs // 5)
            found.append(row)
    os.sched_setaffinity(0, cores)
    report = {
        "milliseconds_a_program": {name: median(1000 * row[name] for row in found) for name in found[0]},
        "subprocess_over_traced": median(row["subprocess"] / row["traced"] for row in found),
        "subprocess_over_plain": median(row["subprocess"] / row["plain"] for row in found),
        "traced_over_plain": median(row["traced"] / row["plain"] for row in found),
        "from_1_gib_over_traced": median(row["from_1_gib"] / row["traced"] for row in found),
    }
    if evalplus:
        report["evalplus_over_traced"] = median(row["evalplus"] / row["traced"] for row in found)
    return report


def two_slots(rounds: int, programs: int) -> dict[str, Any]:
    """One slot against two, on all cores."""
    found = []
    with open_sandbox(slots=1) as one, open_sandbox(slots=2) as two:
        judged(one, 50)
        judged(two, 50)
        for _ in range(rounds):
            row = {}
            for name, sandbox in (("one", one), ("two", two)):
                started = time.monotonic()
                row[f"cpu_{name}"] = cpu(lambda sandbox=sandbox: judged(sandbox, programs)) / programs
                row[f"rate_{name}"] = programs / (time.monotonic() - started)
            found.append(row)
    return {
        "cpu_two_over_one": median(row["cpu_two"] / row["cpu_one"] for row in found),
        "programs_a_second": {name: median(row[f"rate_{name}"] for row in found) for name in ("one", "two")},
    }


def heavy_programs(rounds: int) -> dict[str, Any]:
    """Executed statements on against off for programs that compute, by the CPU seconds of their test."""
    ratios: dict[str, float] = {}
    with open_sandbox(slots=1) as sandbox:

        def seconds(program: str, trace: bool) -> float:
            tests = (CallTest.of((heavy.SIZE,), None),)  # what is right does not matter here
            limits = Limits(cpu_seconds=30, wall_seconds=120)
            job = Job("x", f"{program}# {next(numbers)}", tests, "f", limits=limits, trace=trace)
            (test,) = sandbox.judge([job])[0].tests
            if test.exception:
                raise SystemExit(test.exception)
            return test.cpu_seconds

        for name, program in heavy.PROGRAMS.items():
            ratios[name] = median(seconds(program, True) / seconds(program, False) for _ in range(rounds))
    return {"median": median(ratios.values()), "largest": max(ratios.values()), "programs": ratios}


def references(path: Path) -> dict[str, Any]:
    """All reference solutions of an APPS+ file with all tests, on all cores, against a plain subprocess runner."""
    problems = read_problems(path, "apps_plus")
    results: list[Verdict] = []
    with open_sandbox() as sandbox:
        judged(sandbox, 10)
        ours = timed(lambda: results.extend(sandbox.judge([job_of(p, p.solution) for p in problems])))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        theirs = timed(lambda: list(threads.map(run_plainly, problems)))
    return {
        "programs": len(problems),
        "passed": sum(verdict.passed for verdict in results),
        "sandbox": ours | {"programs_a_second": round(len(problems) / ours["wall_seconds"], 1)},
        "subprocess": theirs | {"programs_a_second": round(len(problems) / theirs["wall_seconds"], 1)},
        "cpu_ratio": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 2),
    }


IMPORTS = "import sys, collections, itertools, functools, heapq, bisect, math, re, string, random, operator, copy\n" + (
    "".join(f"from {module} import *\n" for module in ("typing", "collections", "itertools", "heapq", "math"))
)


def run_plainly(problem: Problem) -> None:
    """A problem's reference by `subprocess`: a process for each standard input, one for all calls; nothing compared."""
    name, _, method = problem.entry_point.partition(".")
    target = f"{name}().{method}" if method else name
    calls = [test for test in problem.tests if isinstance(test, CallTest)]
    source = IMPORTS + problem.preamble + problem.solution
    if calls:
        run_python(source + "".join(f"\n{target}(*{test.args!r}, **{test.kwargs!r})" for test in calls), "")
    for test in problem.tests:
        if isinstance(test, StdinTest):
            run_python(f"{source}\n{target}()", test.stdin)


def run_python(source: str, stdin: str) -> None:
    """One fresh interpreter."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as script:  # some are too long for `-c`
        script.write(source)
        script.flush()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [sys.executable, script.name], input=stdin.encode(errors="surrogateescape"), check=False, **quiet
        )


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds."""
    started = time.monotonic()
    seconds = cpu(work)
    return {"wall_seconds": round(time.monotonic() - started, 2), "cpu_seconds": round(seconds, 2)}


def median(values: Iterator[float] | Sequence[float]) -> float:
    """Rounded to three digits."""
    return round(statistics.median(values), 3)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100, help="programs in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--apps", type=Path, help="an APPS+ file: judge its reference solutions too")
    parser.add_argument("--evalplus", metavar="PYTHON", help="a Python that has evalplus: compare with its checker")
    options = parser.parse_args()
    evalplus = EvalPlus(options.evalplus) if options.evalplus else None
    report = {
        "small": small_programs(options.rounds, options.programs, evalplus),
        "slots": two_slots(options.rounds, options.programs),
        "heavy_traced_over_plain": heavy_programs(options.rounds),
        "settings": {"tests": len(TESTS), "programs": options.programs, "rounds": options.rounds},
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": len(os.sched_getaffinity(0)),
        },
    }
    if evalplus:
        evalplus.close()
    if options.apps:
        report["apps_references"] = references(options.apps)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
