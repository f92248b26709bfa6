"""Harm on the way to an object store: all is whole and right, or there is a clear error and nothing looks whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import logs, storage
from stepcoder.platform.storage import s3, s3_transfers
from stepcoder.platform.storage.manifest import MANIFEST, MARKER
from tests.platform.stores import folder_of, put, raw
from tests.servers.proxy import Fault, Proxy, proxy
from tests.servers.swift import Swift

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def way(swift: Swift) -> Iterator[Proxy]:
    """The way to the store; one for all tests, since a client for another address is made anew."""
    with proxy(swift.endpoint) as found:
        yield found


@contextmanager
def through(way: Proxy, *faults: Fault) -> Iterator[Proxy]:
    """Inside, all requests go this way; outside, straight to the store."""
    way.reset(*faults)
    straight = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = way.endpoint
    try:
        yield way
    finally:
        os.environ["AWS_ENDPOINT_URL"] = straight
        way.reset()


def outcome(act: Callable[[], object]) -> StepCoderError | None:
    try:
        act()
    except StepCoderError as error:
        return error
    return None


PASSING = ["refuse", "lose answer", "cut request", "cut answer", "flip request", "500 InternalError", "503 SlowDown"]


@pytest.mark.parametrize("harm", PASSING)
def test_an_upload_survives_what_passes(harm: str, store: str, way: Proxy, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1" * 99, "b/c": "2" * 99})
    with through(way, *(Fault(harm, "PUT", path) for path in ("out/a", "out/b/c", MANIFEST, MARKER))):  # type: ignore[arg-type]
        storage.publish(source, f"{store}/out")
        assert not [fault for fault in way.faults if fault.times]
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)


@pytest.mark.parametrize("harm", [*PASSING, "truncate answer", "flip answer"])
def test_a_download_survives_what_passes(harm: str, store: str, way: Proxy, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1" * 99, "b/c": "2" * 99})
    storage.publish(source, f"{store}/out")
    with through(way, *(Fault(harm, "GET", path) for path in ("out/a", "out/b/c", MANIFEST))):  # type: ignore[arg-type]
        assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)
        assert not [fault for fault in way.faults if fault.times]


@pytest.mark.parametrize("harm", ["cut request", "flip request", "lose answer"])
def test_a_large_file_loses_only_the_part_that_failed(
    harm: str, store: str, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_transfers, "PART", 5 << 20)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(os.urandom(11 << 20))
    faults = [Fault(harm, "PUT", "partNumber=2"), Fault(harm, "POST", "uploadId=")]  # type: ignore[arg-type]
    with through(way, *faults):
        storage.publish(tmp_path / "source", f"{store}/out")
        parts = [path for method, path in way.seen if method == "PUT" and "partNumber" in path]
    assert len(parts) == 3 + 1
    with through(way, Fault("cut answer", "GET", "weights", times=2), Fault("503 SlowDown", "GET", "weights")):
        assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(tmp_path / "source")


@pytest.mark.parametrize("harm", ["truncate answer", "flip answer"])
def test_a_file_that_stays_wrong_is_fetched_twice_and_then_named(
    harm: str, store: str, way: Proxy, tmp_path: Path
) -> None:
    storage.publish(folder_of(tmp_path / "source", {"a": "1" * 99, "b": "2" * 99}), f"{store}/out")
    with (
        through(way, Fault(harm, "GET", "out/b", times=99)),  # type: ignore[arg-type]
        pytest.raises(DataError, match=r"out/b: .* instead of .* publish it again"),
    ):
        storage.fetch(f"{store}/out")
    assert not list((tmp_path / "cache").rglob("b"))
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(tmp_path / "source")


def test_a_single_file_is_checked_by_what_its_uploader_has_noted(store: str, way: Proxy, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text("1" * 99)
    storage.publish(tmp_path / "problems.jsonl", f"{store}/problems.jsonl")
    with through(way, Fault("flip answer", "GET", "problems")):
        assert storage.fetch(f"{store}/problems.jsonl").read_text() == "1" * 99
    put(f"{store}/theirs.jsonl", "1" * 99)
    with through(way, Fault("truncate answer", "GET", "/theirs", times=99)), pytest.raises(DataError, match="theirs"):
        storage.fetch(f"{store}/theirs.jsonl")


@pytest.mark.parametrize(
    ("harm", "says"), [("400 ExpiredToken", "have expired"), ("403 AccessDenied", "refuses access")]
)
def test_what_cannot_be_helped_ends_at_once_with_a_clear_error(
    harm: str, says: str, store: str, way: Proxy, tmp_path: Path
) -> None:
    source = folder_of(tmp_path / "source", {"a": "1"})
    with through(way, Fault(harm, "PUT", "out/a", times=99)):  # type: ignore[arg-type]
        with pytest.raises(StepCoderError, match=f"out/a: .*{says}"):
            storage.publish(source, f"{store}/out")
        assert len([path for method, path in way.seen if method == "PUT" and "out/a" in path]) == 1
    assert not storage.exists(f"{store}/out")
    with through(way, Fault(harm, times=99)):  # type: ignore[arg-type]
        with pytest.raises(StepCoderError, match=says):
            storage.fetch(f"{store}/out")
        assert len(way.seen) == 1


def test_a_store_that_stays_away_is_told_after_as_many_attempts_as_allowed(
    store: str, way: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
    with through(way, Fault("503 SlowDown", times=99)):
        with pytest.raises(StepCoderError, match="answered SlowDown"):
            storage.fetch(f"{store}/out")
        assert len(way.seen) == 4
    assert 'event="trying again"' in capsys.readouterr().err


def test_a_silent_store_is_asked_again(store: str, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.3)
    (tmp_path / "file").write_text("1")
    storage.publish(tmp_path / "file", f"{store}/file")
    with through(way, Fault("stall", "GET", seconds=1.0)):
        assert storage.fetch(f"{store}/file").read_text() == "1"


def test_a_store_that_deletes_one_object_at_a_time_is_enough(store: str, way: Proxy, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "source", {"a": "1", "b": "2"}), f"{store}/out")
    with through(way, Fault("501 NotImplemented", "POST", "delete", times=99)):
        storage.remove(f"{store}/out")
    assert raw(f"{store}/out") == {}


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl, which is not here")
def test_https_needs_a_certificate_that_is_known(
    swift: Swift, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, key = tmp_path / "both.pem", tmp_path / "key.pem"
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=store -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *made.split(), "-keyout", key, "-out", both], check=True, capture_output=True)
    (tmp_path / "with-key.pem").write_text(key.read_text() + both.read_text())
    source = folder_of(tmp_path / "source", {"a": "1"})
    with proxy(swift.endpoint, tmp_path / "with-key.pem") as secure:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.endpoint)
        with pytest.raises(StepCoderError, match="AWS_CA_BUNDLE"):
            storage.publish(source, f"{store}/out")
        assert secure.seen == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(both))
        storage.publish(source, f"{store}/out")
        assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)
        assert secure.seen


def test_no_credential_is_in_an_error_or_a_log(
    store: str, way: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug")
    secrets = {"AWS_SECRET_ACCESS_KEY": "hidden-secret", "AWS_SESSION_TOKEN": "hidden-token"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for endpoint in ("http://user:hidden-password@127.0.0.1:9", "http://user:hidden-password@bad host"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StepCoderError) as caught:
            storage.fetch(f"{store}/out")
        told = "".join(traceback.format_exception(caught.value)) + capsys.readouterr().err
        assert "hidden" not in told
    with pytest.raises(DataError) as refused:
        storage.fetch("s3://key:hidden@bucket/out")
    assert "hidden" not in str(refused.value)


def test_a_replacement_that_ends_at_any_request_leaves_the_old_the_new_or_nothing(
    store: str, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill does: from one request on, nothing reaches the store any more, no tidying either."""
    old = folder_of(tmp_path / "old", {"a": "1", "gone": "1"})
    new = folder_of(tmp_path / "new", {"a": "2", "b/c": "2"})
    expected = {storage.digest(old): "old", storage.digest(new): "new"}
    found: list[str] = []
    while found[-1:] != ["published"]:
        address = f"{store}/{len(found)}"
        storage.publish(old, address)
        with monkeypatch.context() as once, through(way, Fault("refuse", skip=len(found), times=999)):
            once.setenv("AWS_MAX_ATTEMPTS", "1")
            error = outcome(lambda address=address: storage.publish(new, address))  # type: ignore[misc]
        there = storage.exists(address)
        if outcome(lambda address=address: storage.fetch(address)):  # type: ignore[misc]
            assert not there
            found.append("nothing")
        else:
            assert there
            found.append(expected[storage.digest(storage.fetch(address))])
            assert storage.address_digest(address) in expected
        storage.publish(new, address)
        assert storage.digest(storage.fetch(address)) == storage.digest(new)
        assert set(raw(address)) == {"a", "b/c", MANIFEST}
        if error is None:
            assert found[-1] == "new"
            found[-1] = "published"
    assert [state for state, after in zip(found, [*found[1:], ""], strict=True) if state != after] == [
        "old",
        "nothing",
        "new",
        "published",
    ]


def test_going_back_to_the_old_content_after_half_a_replacement_is_never_taken_for_whole(
    store: str, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old manifest is the one that this upload intends, but a file is the new one's, of the same size."""
    old = folder_of(tmp_path / "old", {"a": "1", "b": "1"})
    new = folder_of(tmp_path / "new", {"a": "2", "b": "1"})
    storage.publish(new, f"{store}/new")
    for requests in range(20):
        address = f"{store}/{requests}"
        storage.publish(old, address)
        put(f"{address}/{MARKER}", storage.fetch(f"{store}/new/{MANIFEST}").read_text())
        put(f"{address}/a", "2")
        with monkeypatch.context() as once, through(way, Fault("refuse", skip=requests, times=999)):
            once.setenv("AWS_MAX_ATTEMPTS", "1")
            error = outcome(lambda address=address: storage.publish(old, address))  # type: ignore[misc]
        if storage.exists(address):
            assert storage.digest(storage.fetch(address)) == storage.digest(old)
        if error is None:
            return
    pytest.fail("it never ended")


def test_a_removal_that_ends_at_any_request_leaves_all_or_nothing(
    store: str, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b": "1"})
    monkeypatch.setattr(s3, "_BATCH", 1)
    for requests in range(20):
        address = f"{store}/{requests}"
        storage.publish(source, address)
        with monkeypatch.context() as once, through(way, Fault("refuse", skip=requests, times=999)):
            once.setenv("AWS_MAX_ATTEMPTS", "1")
            error = outcome(lambda address=address: storage.remove(address))  # type: ignore[misc]
        if storage.exists(address):
            assert storage.digest(storage.fetch(address)) == storage.digest(source)
        storage.remove(address)
        assert raw(address) == {}
        if error is None:
            return
    pytest.fail("it never ended")


HARM = st.builds(
    Fault,
    harm=st.sampled_from([*PASSING, "truncate answer", "flip answer", "400 ExpiredToken"]),
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST|DELETE"]),
    path=st.sampled_from(["", "out/a", "list-type", MANIFEST, MARKER]),
    times=st.sampled_from([1, 2, 99]),
    skip=st.integers(0, 2),
)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(upload=st.lists(HARM, max_size=3), download=st.lists(HARM, max_size=3))
@example(upload=[], download=[Fault("flip answer", "GET", MANIFEST, times=99)])
@example(upload=[Fault("lose answer", "PUT", "out/a", times=99)], download=[])
def test_whatever_happens_it_is_whole_and_right_or_a_clear_error(
    store: str, way: Proxy, upload: list[Fault], download: list[Fault]
) -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["STEPCODER_CACHE"] = f"{scratch}/cache"
        old = folder_of(folder / "old", {"a": "1" * 50, "b": "1"})
        new = folder_of(folder / "new", {"a": "2" * 50, "c": "2"})
        storage.remove(f"{store}/out")
        storage.publish(old, f"{store}/out")
        with through(way, *upload):
            error = outcome(lambda: storage.publish(new, f"{store}/out"))
        right = {storage.digest(new)} if error is None else {storage.digest(old), storage.digest(new)}
        if error is None or storage.exists(f"{store}/out"):
            assert storage.address_digest(f"{store}/out") in right
        back: list[Path] = []
        with through(way, *download):
            outcome(lambda: back.append(storage.fetch(f"{store}/out", folder / "through")))
        assert not back or storage.digest(back[0]) in right
        storage.publish(new, f"{store}/out")
        assert storage.digest(storage.fetch(f"{store}/out", folder / "end")) == storage.digest(new)


PUBLISH = """
import sys
from pathlib import Path
from stepcoder.platform import storage
from stepcoder.platform.storage import s3_transfers
s3_transfers.PART = 5 << 20
storage.publish(Path(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_upload_is_not_there_and_the_same_command_goes_on_with_what_is_missing(
    store: str, way: Proxy, tmp_path: Path
) -> None:
    source = folder_of(tmp_path / "source", {f"{number}": str(number) * 99 for number in range(12)})
    (source / "weights").write_bytes(os.urandom(11 << 20))
    command = [sys.executable, "-c", PUBLISH, str(source), f"{store}/out"]
    late = Fault("delay", "PUT", "partNumber=3", times=99, seconds=60)
    with through(way, late), subprocess.Popen(command) as process:
        end = time.monotonic() + 60
        while len(way.answered) < 15 or not any("partNumber=3" in path for _, path in way.seen):
            assert time.monotonic() < end, way.seen
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert MARKER in raw(f"{store}/out")
    assert not storage.exists(f"{store}/out")
    with pytest.raises(DataError, match="interrupted"):
        storage.fetch(f"{store}/out")
    bucket, _ = s3.split(store)
    assert s3.connect().list_multipart_uploads(Bucket=bucket).get("Uploads")
    done = set(raw(f"{store}/out")) - {MARKER}
    assert done
    with through(way):
        subprocess.run(command, check=True)
        sent = {path.rpartition("/")[2].partition("?")[0] for method, path in way.answered if method == "PUT"}
    assert not sent & done
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)
    assert not s3.connect().list_multipart_uploads(Bucket=bucket).get("Uploads")
