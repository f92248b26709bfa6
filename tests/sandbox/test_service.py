"""The service over HTTP: what it takes, what it refuses and how it says so, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from services import TOKEN, Service, serving

from stepcoder.cli import main
from stepcoder.problems import CallTest, Test
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, Verdict, open_sandbox, wire
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.service import body
from stepcoder.sandbox.service.app import build_app
from stepcoder.sandbox.service.config import ServeConfig
from stepcoder.sandbox.service.intake import Intake
from stepcoder.sandbox.service.models import JudgeAnswer
from stepcoder.sandbox.service.refusal import RefusalError
from stepcoder.sandbox.service.selftest import SelfTest

ADD: tuple[Test, ...] = (CallTest.of((1, 2), 3), CallTest.of((5, 5), 10))
TEXT = wire.dump_tests(ADD)
DIGEST = wire.digest_of(TEXT)
RIGHT = "def f(a, b):\n    return a + b\n"
SLOW = "import time\ndef f(a, b):\n    time.sleep({seconds})\n    return a + b\n"
SLOW_LIMITS = Limits(cpu_seconds=3.0, wall_seconds=30.0)
JSON = {"content-type": "application/json"}


def job(program: str = RIGHT, name: str = "x", **more: Any) -> dict[str, Any]:
    return wire.job_to_data(Job(name, program, ADD, "f", **more), DIGEST)


def post(service: Service, jobs: list[Any], tests: Any = None, **more: Any) -> httpx.Response:
    text = json.dumps({"jobs": jobs, "tests": tests if tests is not None else {DIGEST: json.loads(TEXT)}})
    return httpx.post(f"{service.address}/v1/judge", content=text, headers=JSON | more.pop("headers", {}), timeout=60)


def raw(service: Service, body: bytes) -> httpx.Response:
    return httpx.post(f"{service.address}/v1/judge", content=body, headers=JSON, timeout=60)


def places(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {place["place"]: place["fault"] for place in response.json()["places"]}


def wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + 30
    while httpx.get(f"{service.address}/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = ("--max-cpu-seconds", "5", "--max-wall-seconds", "40", "--max-memory-mib", "1024")
    with serving("--slots", "1", "--body-mib", "2", "--program-kib", "16", "--queue", "256", *limits) as running:
        wait_until_ready(running)
        yield running


def test_a_request_with_its_tests_is_answered_in_order(service: Service) -> None:
    response = post(service, [job(name="a"), job("def f(a, b): return 0", name="b")])
    assert response.status_code == 200
    verdicts = response.json()["verdicts"]
    assert [(v["id"], v["outcome"]) for v in verdicts] == [("a", "pass"), ("b", "wrong_answer")]
    assert [s[4] for s in verdicts[0]["statements"]] == [True, True]
    JudgeAnswer.model_validate_json(response.content)  # the model of the answer, which only describes it


def test_tests_that_the_server_lacks_are_named_and_then_kept(service: Service) -> None:
    tests: tuple[Test, ...] = (CallTest.of((1, 2), 3), CallTest.of((7, 7), 14))
    text = wire.dump_tests(tests)
    digest = wire.digest_of(text)
    response = post(service, [job() | {"tests": digest}, job() | {"tests": digest}], {})
    assert response.status_code == 409
    assert response.json()["missing"] == [digest]
    for sent in ({digest: json.loads(text)}, {}):
        assert post(service, [job() | {"tests": digest}], sent).json()["verdicts"][0]["outcome"] == "pass"


def test_tests_under_a_wrong_digest_are_refused_and_not_kept(service: Service) -> None:
    forged = "0" * 64
    response = post(service, [job() | {"tests": forged}], {forged: json.loads(TEXT)})
    assert "not the digest" in places(response)[f"tests.{forged}"]
    assert post(service, [job() | {"tests": forged}], {}).status_code == 409


@pytest.mark.parametrize(
    ("body", "place", "fault"),
    [
        (b"", "body", "no strict JSON"),
        (b"[]", "body", "valid dictionary"),
        (b"null", "body", "valid dictionary"),
        (b'{"jobs": [NaN]}', "body", "NaN is no JSON"),
        (b'{"jobs": [-Infinity]}', "body", "-Infinity is no JSON"),
        (b'{"jobs": [1e999]}', "body", "1e999 is too large"),
        (b'{"jobs": [' + b"9" * 5000 + b"]}", "body", "no strict JSON"),
        (b'{"jobs": "\xff"}', "body", "no strict JSON"),
        (b'\xff\xfe{\x00"\x00', "body", "no strict JSON"),
        (b'{"jobs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body", "nested too deep"),
        (b'{"jobs": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "body", "nested too deep"),
        (b"{}", "jobs", "required"),
        (b'{"jobs": [], "more": 1}', "more", "not permitted"),
        (b'{"jobs": [{}]}', "jobs.0.program", "required"),
        (b'{"jobs": [], "tests": {"x": []}}', "tests.x.[key]", "pattern"),
        (b'{"jobs": [], "tests": {"%s": [{"kind": "call", "expected": {"$float": 1%s}}]}}', "tests", "OverflowError"),
        (b'{"jobs": [], "tests": {"%s": [{"kind": "call", "expected": {"$set": [[]]}}]}}', "tests", "malformed"),
        (b'{"jobs": [], "tests": {"%s": [{"kind": "other"}]}}', "tests", "call"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_body_is_refused_with_its_place(service: Service, body: bytes, place: str, fault: str) -> None:
    if body.count(b"%s") == 2:
        body %= (b"0" * 64, b"0" * 400)
    elif body.count(b"%s") == 1:
        body %= b"0" * 64
    found = places(raw(service, body))
    assert any(name.startswith(place) and fault in why for name, why in found.items()), found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"limits": {"cpu_seconds": 5.5}}, "limits.cpu_seconds"),
        ({"limits": {"wall_seconds": 41}}, "limits.wall_seconds"),
        ({"limits": {"memory_mib": 1025}}, "limits.memory_mib"),
        ({"limits": {"output_bytes": 1 << 40}}, "limits.output_bytes"),
        ({"limits": {"cpu_seconds": 0}}, "limits.cpu_seconds"),
        ({"limits": {"cpu_seconds": "1"}}, "limits.cpu_seconds"),
        ({"limits": {"cpu_seconds": True}}, "limits.cpu_seconds"),
        ({"limits": {"memory_mib": 1.5}}, "limits.memory_mib"),
        ({"limits": {"threads": 1}}, "limits.threads"),
        ({"program": "x" * (16 * 1024 + 1)}, "program"),
        ({"program": "é" * (8 * 1024 + 1)}, "program"),
        ({"preamble": "x" * (16 * 1024 + 1)}, "preamble"),
        ({"program": None}, "program"),
        ({"trace": "yes"}, "trace"),
        ({"run": 2**63}, "run"),
        ({"tests": "abc"}, "tests"),
    ],
    ids=str,
)
def test_a_job_that_asks_too_much_is_refused_with_its_place(
    service: Service, change: dict[str, Any], place: str
) -> None:
    assert list(places(post(service, [job(), job() | change]))) == [f"jobs.1.{place}"]


def test_values_nested_too_deep_to_be_judged_are_refused(service: Service) -> None:
    deep = json.loads('{"kind": "call", "args": [], "kwargs": {}, "expected": ' + "[" * 300 + "]" * 300 + "}")
    digest = wire.digest_of(json.dumps([deep], separators=(",", ":")))
    response = post(service, [job() | {"tests": digest}], {digest: [deep]})
    assert "nested" in places(response)["jobs.0.tests"]
    assert post(service, [job()]).status_code == 200


def test_more_jobs_than_256_are_refused(service: Service) -> None:
    assert list(places(post(service, [job()] * 257))) == ["jobs"]
    assert len(post(service, [job()] * 256).json()["verdicts"]) == 256


def test_a_body_that_is_too_large_is_refused_however_it_comes(service: Service) -> None:
    body = b'{"jobs": [], "more": "' + b"x" * (2 << 20) + b'"}'
    assert raw(service, body).status_code == 413
    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    response = httpx.post(f"{service.address}/v1/judge", content=chunks, headers=JSON)
    assert response.status_code == 413
    assert "2 MiB" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"jobs": [' + b"0," * 900_000 + b"0]}", 422),
        (b'{"jobs": [], "tests": {"%s": [' % (b"0" * 64) + b"0," * 900_000 + b"0]}}", 422),
        (b"{" + b",".join(b'"%d":0' % n for n in range(150_000)) + b"}", 422),
        (b'{"jobs": [], "tests": {' + b",".join(b'"%064d":[]' % n for n in range(257)) + b"}}", 422),
    ],
    ids=["jobs", "tests", "keys", "lists"],
)
def test_a_flood_of_faults_is_answered_in_brief(service: Service, body: bytes, status: int) -> None:
    response = raw(service, body)
    assert response.status_code == status
    assert 1 <= len(response.json()["places"]) <= 20
    assert len(response.content) < 4000


def test_a_body_of_too_many_values_is_refused_unread() -> None:
    with pytest.raises(RefusalError, match="2000000 values"):
        body.parse(b'{"jobs": [' + b"0," * 2_000_001 + b"0]}", ServeConfig())


def test_only_json_is_taken(service: Service) -> None:
    response = httpx.post(
        f"{service.address}/v1/judge", content=b'{"jobs": []}', headers={"content-type": "text/plain"}
    )
    assert response.status_code == 415


def test_a_full_queue_says_when_to_come_again(service: Service) -> None:
    # Equal jobs are run once, and each of them takes a place in the queue.
    many = [job(SLOW.format(seconds=1), limits=SLOW_LIMITS)] * 256
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post(service, many)))
    thread.start()
    time.sleep(0.7)
    response = post(service, [job()])
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert "stepcoder_sandbox_queue_depth 255.0" in httpx.get(f"{service.address}/metrics").text
    thread.join()
    assert {verdict["outcome"] for verdict in answers[0].json()["verdicts"]} == {"pass"}
    assert post(service, [job()]).status_code == 200


def test_lone_surrogates_come_through(service: Service) -> None:
    program = "def f(a, b):\n    print('\\ud800')\n    return a + b  # \ud800"
    verdict = post(service, [job(program, name="\udfff")]).json()["verdicts"][0]
    with open_sandbox(slots=1) as pool:
        local = pool.judge([Job("\udfff", program, ADD, "f")])[0]
    assert verdict["id"] == "\udfff"
    assert verdict["outcome"] == local.outcome


def test_metrics_count_outcomes_hits_and_refusals(service: Service) -> None:
    def figures() -> dict[str, float]:
        response = httpx.get(f"{service.address}/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        return {
            name: float(value)
            for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", response.text, re.MULTILINE)
        }

    before = figures()
    once = job("def f(a, b): return 'metrics'")
    assert post(service, [once]).status_code == post(service, [once]).status_code == 200
    assert raw(service, b"{").status_code == 422
    after = figures()
    for name, more in {
        'stepcoder_sandbox_programs_total{outcome="wrong_answer"}': 2,
        "stepcoder_sandbox_judge_seconds_count": 2,
        "stepcoder_sandbox_cache_hits_total": 1,
        'stepcoder_sandbox_rejected_total{status="422"}': 1,
    }.items():
        assert after[name] - before.get(name, 0) == more, name
    assert after["stepcoder_sandbox_in_flight"] == after["stepcoder_sandbox_queue_depth"] == 0


def test_the_token_opens_everything_but_health_and_stays_secret() -> None:
    secret = "s3cret-token"
    with serving("--slots", "1", token=secret) as service:
        wait_until_ready(service)
        assert httpx.get(f"{service.address}/healthz").json() == {"status": "alive"}
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": secret},
            {"authorization": "Bearer \xff"},
        ):
            response = post(service, [job()], headers={k: v.encode("latin-1") for k, v in headers.items()})
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert httpx.get(f"{service.address}/metrics").status_code == 401
        assert post(service, [job()], headers={"authorization": f"Bearer {secret}"}).status_code == 200
        assert secret not in Path(f"/proc/{service.process.pid}/cmdline").read_text()
        assert service.end() == 0
        assert secret not in "".join(service.lines)


def test_sigterm_finishes_what_was_taken_and_refuses_what_comes() -> None:
    with serving("--slots", "2") as service:
        wait_until_ready(service)
        slow = [job(SLOW.format(seconds=1) + f"# {i}", name=str(i), limits=SLOW_LIMITS) for i in range(2)]
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(post(service, slow)))
        thread.start()
        time.sleep(0.6)
        service.process.terminate()
        time.sleep(0.2)
        ready = httpx.get(f"{service.address}/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "draining")
        refused = post(service, [job()])
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert httpx.get(f"{service.address}/healthz").status_code == 200
        thread.join()
        assert [verdict["outcome"] for verdict in answers[0].json()["verdicts"]] == ["pass", "pass"]
        assert service.process.wait(timeout=20) == 0


def test_a_client_that_stops_sending_does_not_keep_the_service_from_ending() -> None:
    with serving("--slots", "1") as service, socket.create_connection(("127.0.0.1", service.port)) as half:
        wait_until_ready(service)
        half.sendall(
            b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        time.sleep(0.3)
        started = time.monotonic()
        assert service.end() == 0
        assert time.monotonic() - started < 30


def test_clients_that_hang_up_leave_nothing_open(service: Service) -> None:
    text = json.dumps(
        {"jobs": [job(SLOW.format(seconds=0.5), limits=SLOW_LIMITS)], "tests": {DIGEST: json.loads(TEXT)}}
    )
    head = (
        f"POST /v1/judge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    for sent in (head + text, head + text[:50], head):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", service.port)) as client:
                client.sendall(sent.encode())
    time.sleep(1.5)
    assert "stepcoder_sandbox_in_flight 0.0" in httpx.get(f"{service.address}/metrics").text
    assert post(service, [job()]).status_code == 200
    assert not [line for line in service.lines if "Traceback" in line]


def test_a_second_signal_ends_it_at_once_and_nobody_gets_a_verdict_of_a_stopped_judge() -> None:
    with serving("--slots", "1") as service:
        wait_until_ready(service)
        slow = job(SLOW.format(seconds=20), limits=SLOW_LIMITS)

        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(post(service, [slow])))
        thread.start()
        time.sleep(0.5)
        service.process.terminate()
        time.sleep(0.3)
        started = time.monotonic()
        assert service.end() == 0
        assert time.monotonic() - started < 10
        thread.join()
        assert answers[0].status_code == 503


def test_a_unix_socket_is_taken_over_from_the_dead_but_not_from_the_living(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving("--uds", str(path), "--slots", "1") as service:
        assert service.address == f"http+unix://{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://x/healthz").status_code == 200
        with pytest.raises(AssertionError, match="another service does"):
            Service("--uds", str(path))
        assert service.end() == 0
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(AssertionError, match="is no socket"):
        Service("--uds", str(path))
    assert path.read_text() == "precious"
    with pytest.raises(AssertionError, match="107 bytes"):
        Service("--uds", str(tmp_path / ("x" * 120)))


def test_an_address_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["sandbox", "serve", "--port", str(taken.getsockname()[1]), "--slots", "1"])
    assert ended.value.code == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


class Faulty:
    """A judge with a fault of its own. No program should bring the pool to this."""

    def submit(self, job: Job) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_exception(OSError("out of descriptors"))
        return future


def test_a_fault_of_the_judge_ends_the_request_and_keeps_no_place_in_the_queue() -> None:
    async def ask() -> None:
        intake = Intake(Faulty(), ServeConfig(), 1)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="descriptors"):
            await asyncio.wait_for(intake.judge([Job("x", RIGHT, ADD, "f")]), timeout=5)
        assert b"stepcoder_sandbox_in_flight 0.0" in intake.metrics.text()

    asyncio.run(ask())


class Gullible:
    """A judge that believes everything. A real one that does so would have to be broken first."""

    def judge(self, jobs: list[Job]) -> list[Verdict]:
        return [Verdict(job.id, Outcome.PASS, (), lacking=("landlock",)) for job in jobs]


def test_a_judge_that_lets_cheats_pass_never_becomes_ready() -> None:
    test = SelfTest(Gullible())  # type: ignore[arg-type]
    test.run()
    assert test.state == "failed"
    assert test.detail.count("passed") == 5
    assert test.lacking == ("landlock",)


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    recent: Recent[str, str] = Recent(3, 10)
    recent.put("a", "A", 4)
    recent.put("b", "B", 4)
    assert recent.get("a") == "A"
    recent.put("c", "C", 4)
    assert (recent.get("b"), recent.get("a"), recent.bytes) == (None, "A", 8)
    recent.put("a", "D", 1)
    assert (recent.get("a"), recent.get("c"), recent.bytes) == ("D", "C", 5)
    recent.put("large", "E", 11)
    assert (recent.get("a"), recent.get("large"), recent.bytes) == (None, "E", 11)
    for name in "wxyz":
        recent.put(name, name)
    assert [recent.get(name) for name in ("large", "w", "x", "y", "z")] == [None, None, "x", "y", "z"]


def _app(sandbox: Sandbox) -> Any:
    config = ServeConfig(max_cpu_seconds=0.2, max_wall_seconds=1.0, body_mib=1)
    intake = Intake(sandbox, config, 1)
    intake.self_test.run()
    return build_app(intake)


CONFORMANCE = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_answers_are_as_the_openapi_document_says(one_slot: Sandbox, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", _app(one_slot))
    asked: set[tuple[str, int]] = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @seed(7)
        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            response = case.call()
            asked.add((case.path, response.status_code))
            case.validate_response(response, checks=CONFORMANCE)

        with suppress(Unsatisfiable):  # what has no input cannot be given a wrong one
            ask()
    if mode is schemathesis.GenerationMode.POSITIVE:
        assert {("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/judge", 200)} <= asked
    else:
        assert ("/v1/judge", 422) in asked


def test_the_document_tells_every_status_and_the_token(one_slot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "abc")
    document = _app(one_slot).openapi()
    judge = document["paths"]["/v1/judge"]["post"]
    assert sorted(judge["responses"]) == ["200", "401", "408", "409", "413", "415", "422", "429", "503"]
    assert judge["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/readyz"]["get"]
    text = json.dumps(document)
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= document["components"]["schemas"].keys()
    assert {"JudgeRequest", "CallTest", "StdinTest", "CheckTest", "VerdictMessage"} <= names
    assert "abc" not in text
