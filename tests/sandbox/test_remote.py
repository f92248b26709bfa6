"""The client of a service: verdicts as from the local pool, whatever happens between."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from services import TOKEN, CuttingProxy, Service, serving
from test_pool import LIMITS, jobs, stable

from stepcoder.errors import DataError, StepCoderError
from stepcoder.problems import CallTest, Test
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, Verdict, open_sandbox
from stepcoder.sandbox.couriers import REQUESTS
from stepcoder.sandbox.remote import RemoteSandbox

ADD: tuple[Test, ...] = (CallTest.of((1, 2), 3),)


def right(number: int, tests: tuple[Test, ...] = ADD) -> Job:
    """A program that passes when its number is even."""
    return Job(str(number), f"def f(a, b):\n    return a + b + {number % 2}  # {number}", tests, "f", limits=LIMITS)


def are_right(verdicts: list[Verdict]) -> bool:
    return all(v.outcome is (Outcome.PASS, Outcome.WRONG_ANSWER)[int(v.id) % 2] for v in verdicts)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--slots", "2") as running:
        yield running


@pytest.fixture(scope="module")
def remote(service: Service) -> Iterator[Sandbox]:
    with open_sandbox(service.address) as sandbox:
        yield sandbox


def test_verdicts_are_those_of_the_local_pool(remote: Sandbox, one_slot: Sandbox) -> None:
    every = [*jobs(), Job("\ud800", "def f(a, b):\n    print('\\ud800')\n    return a + b  # \ud800", ADD, "f")]
    ours, theirs = one_slot.judge(every), remote.judge(every)
    assert [stable(verdict) for verdict in theirs] == [stable(verdict) for verdict in ours]
    assert [verdict.id for verdict in theirs] == [job.id for job in every]
    assert [verdict.lacking for verdict in theirs] == [verdict.lacking for verdict in ours]


def test_many_jobs_from_many_threads_are_all_answered(remote: Sandbox) -> None:
    verdicts: list[Verdict] = []

    def work(part: int) -> None:
        futures = [remote.submit(right(number)) for number in range(part * 100, part * 100 + 100)]
        verdicts.extend(future.result(timeout=60) for future in futures)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(verdict.id) for verdict in verdicts) == list(range(600))
    assert are_right(verdicts)


def test_equal_jobs_share_one_run_and_keep_their_ids(remote: Sandbox) -> None:
    program = "import random\ndef f(a, b):\n    return random.random()"
    verdicts = remote.judge([Job(str(number), program, ADD, "f") for number in range(300)])
    assert [verdict.id for verdict in verdicts] == [str(number) for number in range(300)]
    assert len({verdict.tests for verdict in verdicts}) == 1
    other = remote.judge([Job("x", program, ADD, "f", run=1)])[0]
    assert other.tests != verdicts[0].tests


def test_a_service_that_forgets_tests_gets_them_again() -> None:
    lists: list[tuple[Test, ...]] = [
        (CallTest.of((1, 2), 3), CallTest.of(("x" * 400_000, ""), str(n))) for n in range(4)
    ]
    program = "def f(a, b):\n    return 3 if a == 1 else {n!r}  # {turn}"
    with serving("--slots", "1", "--tests-mib", "1") as small, open_sandbox(small.address) as sandbox:
        for turn in range(3):
            every = [Job(str(n), program.format(n=str(n), turn=turn), tests, "f") for n, tests in enumerate(lists)]
            assert all(verdict.passed for verdict in sandbox.judge(every))


def test_bodies_beyond_the_servers_limit_go_in_parts() -> None:
    with (
        serving("--slots", "1", "--body-mib", "1", "--program-kib", "64") as small,
        open_sandbox(small.address) as sandbox,
    ):
        comment = "# " + "é" * 20_000
        every = [Job(str(n), f"{right(n).program}\n{comment}", ADD, "f") for n in range(40)]
        assert are_right(sandbox.judge(every))
        too_large: tuple[Test, ...] = (CallTest.of(("x" * (1 << 20), ""), 3),)
        with pytest.raises(StepCoderError, match=r"413.*body_mib"):
            sandbox.judge([Job("x", "", too_large, "f")])


def test_a_job_that_is_refused_takes_no_other_with_it() -> None:
    with serving("--slots", "1", "--max-cpu-seconds", "1") as strict, open_sandbox(strict.address) as sandbox:
        greedy = Job("greedy", right(0).program, ADD, "f", limits=Limits(cpu_seconds=2))
        futures = [sandbox.submit(job) for job in (right(0), greedy, right(1))]
        assert are_right([futures[0].result(30), futures[2].result(30)])
        with pytest.raises(StepCoderError, match=r"limits.cpu_seconds: 2.0 is more than the 1.0"):
            futures[1].result(30)


def test_the_token_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("--slots", "1", token="open sesame".replace(" ", "-")) as guarded:
        monkeypatch.delenv(TOKEN, raising=False)
        with pytest.raises(StepCoderError, match=f"refuses the token: set {TOKEN}"):
            open_sandbox(guarded.address)
        monkeypatch.setenv(TOKEN, "open-sesame")
        with open_sandbox(guarded.address) as sandbox:
            assert sandbox.judge([right(0)])[0].passed
        monkeypatch.setenv(TOKEN, "öffne")
        with pytest.raises(DataError, match="printable ASCII") as refused:
            open_sandbox(guarded.address)
        assert "öffne" not in str(refused.value)


def test_a_full_queue_delays_and_loses_nothing() -> None:
    with serving("--slots", "2", "--queue", "256") as small:
        proxy = CuttingProxy(small.port, every=0)
        try:
            with open_sandbox(proxy.address) as one, open_sandbox(proxy.address) as other:
                futures = [
                    sandbox.submit(right(n + 5000 * (sandbox is one))) for n in range(700) for sandbox in (one, other)
                ]
                verdicts = [future.result(timeout=120) for future in futures]
        finally:
            proxy.close()
    assert are_right(verdicts)
    assert len(verdicts) == 1400
    # Behind a Service of Kubernetes, a pod that has just been added gets new connections only.
    assert proxy.connections > 2 * REQUESTS


@pytest.mark.parametrize("every", [3, 7])
def test_cut_connections_lose_and_double_nothing(service: Service, every: int) -> None:
    proxy = CuttingProxy(service.port, every)
    try:
        with RemoteSandbox(proxy.address, patience=60) as sandbox:
            delivered: dict[str, int] = {}
            futures: list[Future[Verdict]] = []
            deadline = time.monotonic() + 60
            # How many jobs share an answer depends on the machine; the cuts do not.
            while len(futures) < 600 or (proxy.cuts < 3 and time.monotonic() < deadline):
                future = sandbox.submit(right(2000 * every + len(futures)))
                future.add_done_callback(
                    lambda f: delivered.update({f.result().id: delivered.get(f.result().id, 0) + 1})
                )
                futures.append(future)
                if len(futures) >= 600:
                    future.result(timeout=60)
                elif len(futures) % 40 == 0:
                    time.sleep(0.02)
            verdicts = [future.result(timeout=60) for future in futures]
    finally:
        proxy.close()
    assert proxy.cuts >= 3
    assert are_right(verdicts)
    assert set(delivered.values()) == {1}
    assert len(delivered) == len(futures)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_service_that_ends_and_comes_back_costs_no_verdict(how: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    running = Service("--uds", path, "--slots", "2")
    services = [running]
    try:
        with RemoteSandbox(f"http+unix://{path}", patience=60) as sandbox:
            futures = [sandbox.submit(right(number)) for number in range(900)]
            for _ in range(2):
                time.sleep(0.6)
                getattr(running.process, how)()
                status = running.process.wait(timeout=30)
                assert status == (0 if how == "terminate" else -9)
                running = Service("--uds", path, "--slots", "2")
                services.append(running)
            verdicts = [future.result(timeout=60) for future in futures]
    finally:
        for service in services:
            if service.process.poll() is None:
                service.end()
    assert [verdict.id for verdict in verdicts] == [str(number) for number in range(900)]
    assert are_right(verdicts)


def test_a_service_that_stays_away_gives_infra_errors_that_say_what_to_do() -> None:
    with serving("--slots", "1") as lost, RemoteSandbox(lost.address, patience=1.0) as sandbox:
        assert sandbox.judge([right(0)])[0].passed
        lost.process.kill()
        lost.process.wait()
        started = time.monotonic()
        verdicts = sandbox.judge([right(number) for number in range(1, 600)])
        # The patience is that of the link, not of each request.
        assert time.monotonic() - started < 10
    assert {verdict.outcome for verdict in verdicts} == {Outcome.INFRA_ERROR}
    assert "look at the service's log, or start it again" in verdicts[0].tests[0].detail


def test_closing_answers_what_waits_and_leaves_no_thread(service: Service) -> None:
    before = threading.active_count()
    sandbox = open_sandbox(service.address)
    slow = "import time\ndef f(a, b):\n    time.sleep(2)\n    return {n}"
    futures = [sandbox.submit(Job(str(n), slow.format(n=n), ADD, "f", limits=LIMITS)) for n in range(6)]
    time.sleep(0.3)
    started = time.monotonic()
    sandbox.close()
    sandbox.close()
    assert time.monotonic() - started < 3
    assert {future.result(timeout=30).outcome for future in futures} == {Outcome.INFRA_ERROR}
    assert sandbox.submit(right(0)).result(timeout=30).outcome is Outcome.INFRA_ERROR
    assert threading.active_count() == before


def test_a_sandbox_that_nobody_holds_is_closed(service: Service) -> None:
    before = threading.active_count()
    sandbox = open_sandbox(service.address)
    assert sandbox.judge([right(0)])[0].passed
    del sandbox
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_a_fork_may_not_use_it_and_does_it_no_harm(service: Service) -> None:
    with open_sandbox(service.address) as sandbox:
        pid = os.fork()
        if pid == 0:
            try:
                sandbox.submit(right(0))
            except StepCoderError:
                sandbox.close()
                sandbox._finalizer()  # type: ignore[attr-defined]
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert sandbox.judge([right(0)])[0].passed


def test_what_cannot_be_reached_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(StepCoderError, match=rf"{address}: not ready within 1 s \(ConnectError.*sandbox serve"):
        RemoteSandbox(address, ready_seconds=1)
    with pytest.raises(StepCoderError, match="http\\+unix:///nowhere/s: not ready"):
        RemoteSandbox("http+unix:///nowhere/s", ready_seconds=0.3)


def test_what_is_no_sandbox_service_is_told(tmp_path: Path) -> None:
    (tmp_path / "readyz").write_text("{}")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with pytest.raises(StepCoderError, match="it is no sandbox service"):
            RemoteSandbox(f"http://127.0.0.1:{port}", ready_seconds=20)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "'nowhere' is not known: use `local`, `unsafe`, `docker`"),
        ("", "is not known"),
        ("ftp://host", "is not known"),
        ("http://", "has no host"),
        ("http://:80", "has no host"),
        ("http://host:port", "'http://host:port'"),
        ("http://host:99999", "out of range"),
        ("http+unix://run/sandbox.sock", "three slashes"),
        ("http+unix:///", "three slashes"),
        ("http://host/?a=b", r"before `\?`"),
        ("https://user:hunter2@host", "STEPCODER_SANDBOX_TOKEN"),
    ],
)
def test_an_address_that_says_nothing_is_refused(address: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        open_sandbox(address)
    assert "hunter2" not in str(refused.value)


def test_the_local_pool_needs_no_extra_and_the_others_name_it(tmp_path: Path) -> None:
    for name in ("httpx", "fastapi", "uvicorn", "docker", "prometheus_client"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})")
    script = """
import sys
from stepcoder.cli import main
from stepcoder.errors import StepCoderError
from stepcoder.sandbox import open_sandbox
open_sandbox("local", 1).close()
for address in ("http://127.0.0.1:1", "docker"):
    try:
        open_sandbox(address)
    except StepCoderError as error:
        print(error)
main(["sandbox", "serve"])
"""

    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.stdout.count("is not installed: pip install 'stepcoder[service]'") == 2, ended.stderr
    assert ended.returncode == 1
    assert "pip install 'stepcoder[service]'" in ended.stderr
