"""Whatever a program's process sends is a claim like others: no pass that it has not earned, no broken judge."""

from __future__ import annotations

import json
import os
import socket
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcoder.problems import CallTest, values
from stepcoder.problems.checker import AnyOf, Exact, Float, Unordered
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox
from stepcoder.sandbox.answers import rule_on_claim
from stepcoder.sandbox.children import Child, EndedError
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.prepared import prepare

KINDS = [frames.CLAIM, frames.LOADED, frames.STARTED, frames.BROKEN, frames.ASK, b"\0", b""]
NEVER = {Outcome.PASS, Outcome.INFRA_ERROR}

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, -(2**70)])
)
tags = st.sampled_from(
    ["$int", "$float", "$tuple", "$set", "$frozenset", "$dict", "$bytes", "$complex", "$opaque", "$ref", "$", "a"]
)
json_data = st.recursive(
    scalars | st.sampled_from(["0x1f", "inf", "nan", "1e400", "zz", "0" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tags | st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
reports = st.dictionaries(
    st.sampled_from(
        ["test", "value", "exception", "type", "line", "memory", "status", "graph", "too_deep", "too_long", "x"]
    ),
    json_data,
    max_size=5,
)
messages = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from(KINDS), reports.map(json.dumps).map(str.encode) | st.binary(max_size=20)).map(
        lambda parts: frames.pack(*parts)
    ),
    st.integers(0, 2**32 - 1).map(lambda length: frames.HEADER.pack(length) + b"R{}"),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sent=st.lists(messages, max_size=4).map(b"".join))
def test_bytes_are_messages_or_an_end(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    child = Child(os.getpid(), ours)
    child.mark()
    theirs.sendall(sent)
    theirs.close()
    received, cause = b"", "exit"
    try:
        for _ in range(10):
            kind, payload = child.receive(60.0, 60.0, 1 << 16)
            assert len(kind) <= 1
            received += frames.HEADER.pack(len(kind + payload)) + kind + payload
    except EndedError as end:
        cause = end.cause
    finally:
        child.close()
    assert cause in ("exit", "flood")
    assert sent.startswith(received)


EXPECTED: list[Any] = [1, [1, 2.5, "a"], {"a": [1]}, {1: 2}, {1, 2}, (1, (2, 3)), b"\x01", 1 + 2j, None, True, 2**80]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expected=st.sampled_from(EXPECTED), claim=json_data, checker=st.sampled_from([Exact(), Float(), Unordered()]))
def test_a_claim_passes_only_if_it_stands_for_something_equal(expected: Any, claim: Any, checker: Any) -> None:
    bench: Any = SimpleNamespace(job=SimpleNamespace(checker=checker))
    (test,) = prepare((CallTest.of((), expected),))
    ruling = rule_on_claim(bench, test, {"test": 0, "value": json.loads(json.dumps(claim))})
    assert ruling.outcome in (Outcome.PASS, Outcome.WRONG_ANSWER, Outcome.SECURITY)
    if ruling.outcome is Outcome.PASS:
        value = values.decode(claim)
        plain: Any = list(value) if isinstance(value, tuple) and isinstance(expected, list) else value
        assert plain == expected or value == expected or isinstance(checker, Float | Unordered)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(claim=json_data)
def test_any_of_nothing_accepts_nothing(claim: Any) -> None:
    bench: Any = SimpleNamespace(job=SimpleNamespace(checker=AnyOf()))
    (test,) = prepare((CallTest.of((), []),))
    assert rule_on_claim(bench, test, {"test": 0, "value": claim}).outcome is not Outcome.PASS


PROGRAM = """
import os
def f(x):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, bytes.fromhex({sent!r}))
        except OSError:
            pass
    {then}
"""


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    sent=st.lists(messages, min_size=1, max_size=3).map(b"".join).filter(bool),
    then=st.sampled_from(["return 41", "os._exit(0)", "raise SystemExit", "os.read(0, 1)"]),
    run=st.integers(0, 10**9),
)
def test_what_a_program_writes_to_its_descriptors_earns_it_nothing(
    one_slot: Sandbox, sent: bytes, then: str, run: int
) -> None:
    limits = Limits(cpu_seconds=0.5, wall_seconds=2)
    tests = (CallTest.of((1,), 8_675_309), CallTest.of((2,), -8_675_309))
    job = Job("x", PROGRAM.format(sent=sent.hex(), then=then), tests, "f", limits=limits, run=run)
    verdict = one_slot.judge([job])[0]
    assert not {test.outcome for test in verdict.tests} & NEVER
    right = Job("y", f"def f(x):\n    return 8_675_309 * (1 if x == 1 else -1)\n# {run}", tests, "f")
    assert one_slot.judge([right])[0].passed
