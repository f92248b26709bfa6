import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from verify_records import CASES, GOOD, record

from stepcoder import sandbox
from stepcoder.errors import StepCoderError
from stepcoder.problems import Problem, StdinTest
from stepcoder.verification import judging, verify
from stepcoder.verification.journal import Journal
from stepcoder.verification.reasons import Reason, Rejection

SLOW = "import time\ndef f(n):\n    time.sleep(0.03)\n    return n * 2\n"
RUN = "import sys; from stepcoder.verification import *; verify(VerifyConfig.model_validate_json(sys.argv[1]))"
# In the new process itself: between fork and exec of a process with threads there is no safe place for it.
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); {RUN}"


def start(config, code=RUN):
    return subprocess.Popen([sys.executable, "-c", code, config.model_dump_json()], stderr=subprocess.PIPE)


def journal(config):
    path = Path(f"{config.out}.partial") / "journal.jsonl"
    return path.read_text().split() if path.exists() else []


def test_a_killed_run_goes_on_and_ends_with_the_same_dataset(configure, tmp_path):
    rows = [record(f"r{number}", SLOW + f"# {number}\n") for number in range(12)] + [CASES["wrong"][0]]
    config = configure(rows, workers=1)
    process = start(config)
    deadline = time.monotonic() + 30
    while not journal(config) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    judged = len(journal(config))
    assert judged
    assert not Path(config.out).exists()
    # A kill in the middle of a line must not spoil the lines before and after.
    with (Path(f"{config.out}.partial") / "journal.jsonl").open("a") as stream:
        stream.write('\n{"key": "half')

    verify(config.model_copy(update={"workers": 2}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "records.jsonl"]
    whole = config.model_copy(update={"out": str(tmp_path / "whole")})
    verify(whole)
    for path in Path(whole.out).iterdir():
        assert path.read_bytes() == (Path(config.out) / path.name).read_bytes()


def test_a_judgement_in_the_journal_is_not_made_again(configure):
    config = configure([record("a", GOOD), record("b", GOOD + "# b\n")], validation=0, test=0)
    verify(config)
    problems = [json.loads(line) for line in (Path(config.out) / "train.jsonl").read_text().splitlines()]
    from stepcoder.verification.verify import _key

    known = Journal(Path(f"{config.out}.partial"))
    known.add(_key(Problem.model_validate(problems[0]), config), Rejection(Reason.FLAKY, "from the journal"))
    known.close()
    verify(config)
    (row,) = [json.loads(line) for line in (Path(config.out) / "rejected.jsonl").read_text().splitlines()]
    assert (row["id"], row["reason"], row["detail"]) == ("a", "flaky", "from the journal")


def test_a_journal_keeps_whole_lines_only(tmp_path):
    journal = Journal(tmp_path / "j")
    assert not (tmp_path / "j").exists()
    journal.add("a", None)
    journal.add("b", Rejection(Reason.TIMEOUT, "ü “x”\n"))
    journal.close()
    with (tmp_path / "j" / "journal.jsonl").open("ab") as stream:
        stream.write(b'\n{"key": "c", "reason": nu')
    again = Journal(tmp_path / "j")
    assert again["a"] is None
    assert again["b"] == Rejection(Reason.TIMEOUT, "ü “x”\n")
    assert "c" not in again
    again.add("d", None)
    again.remove()
    assert not (tmp_path / "j").exists()


def test_a_full_disk_is_told_and_the_earlier_dataset_stays(configure, tmp_path):
    config = configure([record("a", GOOD)], validation=0, test=0)
    verify(config)
    before = (Path(config.out) / "train.jsonl").read_bytes()
    # A limit on the size of files stands in for a full disk: writing fails in the middle of the train split.
    long = [record(f"l{number}", GOOD + f"# {number} {'x' * 40000}\n") for number in range(10)]
    config = configure(long, validation=0, test=0)
    process = start(config, LIMITED)
    _, said = process.communicate()
    assert process.returncode == 1
    assert f"{config.out}: cannot be written, the disk is full" in said.decode()
    assert (Path(config.out) / "train.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "dataset.partial", "records.jsonl"]
    verify(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "records.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_named(configure, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StepCoderError, match="closed"):
        verify(configure([record("a", GOOD)], out=str(tmp_path / "closed" / "dataset")))


class Faulty:
    """A sandbox that fails a number of times on each program before it answers."""

    def __init__(self, **failures):
        self.failures = failures
        self.runs = []

    def submit(self, job):
        self.runs.append(job.run)
        self.failures[job.id] = self.failures.get(job.id, 0) - 1
        outcome = sandbox.Outcome.INFRA_ERROR if self.failures[job.id] >= 0 else sandbox.Outcome.PASS
        future = Future()
        result = sandbox.TestResult(outcome, detail="no room for a process")
        future.set_result(sandbox.Verdict(job.id, outcome, (result,)))
        return future


PROBLEM = Problem(
    id="p",
    statement="s",
    starter="def f():\n",
    solution="def f():\n    print(1)\n",
    entry_point="f",
    tests=(StdinTest(stdin="", stdout="1"),),
)


def test_a_fault_of_the_sandbox_is_tried_again():
    faulty = Faulty(p=3)
    assert list(judging.judge([PROBLEM], faulty, sandbox.Limits(), repeats=2)) == [(PROBLEM, None)]
    assert len(faulty.runs) == 5


def test_a_fault_that_stays_is_an_error_and_never_a_judgement():
    other = PROBLEM.model_copy(update={"id": "q"})
    judged = []
    with pytest.raises(StepCoderError, match=r"failed on 1 reference solutions[^\0]*q: no room for a process"):
        judged.extend(judging.judge([PROBLEM, other], Faulty(p=2, q=1000), sandbox.Limits(), repeats=3))
    assert judged == [(PROBLEM, None)]


def test_every_repeat_is_a_run_of_its_own():
    faulty = Faulty()
    list(judging.judge([PROBLEM], faulty, sandbox.Limits(), repeats=3))
    assert faulty.runs == [0, 1, 2]


def test_a_run_that_is_tried_again_stays_the_same_run():
    faulty = Faulty(p=3)
    list(judging.judge([PROBLEM], faulty, sandbox.Limits(), repeats=3))
    assert sorted(faulty.runs) == [0, 0, 1, 1, 2, 2]
