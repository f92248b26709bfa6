"""Addresses in an object store, against a real one: what comes back, what counts as there, and what names content."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import logs, storage
from stepcoder.platform.storage import manifest, s3, s3_transfers
from stepcoder.platform.storage.manifest import MANIFEST, MARKER
from tests.platform.stores import folder_of, put, raw

pytestmark = pytest.mark.s3


def test_a_folder_comes_back_as_it_went_and_has_the_digest_that_it_has_on_disk(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b/c": "2", "ü ß": "3", "empty": ""})
    storage.publish(source, f"{store}/runs/policy")
    back = storage.fetch(f"{store}/runs/policy/")
    assert storage.digest(back) == storage.digest(source) == storage.address_digest(f"{store}/runs/policy")
    assert back.name == "policy"
    assert sorted(path.name for path in back.iterdir()) == ["a", "b", "empty", "ü ß"]
    name = store.removeprefix("s3://")
    assert storage.fetch(f"minio://{name}/runs/policy/b/c").read_text() == "2"
    assert storage.address_digest(f"{store}/runs/policy/b/c") == storage.digest(source / "b" / "c")


def test_the_manifest_tells_size_and_content_of_every_file(store: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "source", {"a": "abc", "b/c": ""}), f"{store}/out")
    content = json.loads(storage.fetch(f"{store}/out/{MANIFEST}").read_text())
    # The SHA-256 of "abc" and of nothing, as FIPS 180 gives them.
    assert {name: (entry["size"], entry["sha256"]) for name, entry in content["files"].items()} == {
        "a": (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        "b/c": (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    }
    assert set(raw(f"{store}/out")) == {"a", "b/c", MANIFEST}


def test_a_whole_bucket_can_be_a_folder_and_a_folder_can_be_empty(store: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "source", {"a": "1", "b/c": "2"}), store)
    assert storage.digest(storage.fetch(store)) == storage.digest(tmp_path / "source")
    storage.remove(store)
    assert not storage.exists(store)
    (tmp_path / "nothing").mkdir()
    storage.publish(tmp_path / "nothing", f"{store}/nothing")
    assert list(storage.fetch(f"{store}/nothing").iterdir()) == []


def test_large_files_go_in_parts_and_their_digest_is_still_that_of_the_content(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_transfers, "PART", 5 << 20)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(bytes(range(256)) * 44000)
    storage.publish(tmp_path / "source", f"{store}/out")
    assert s3.list_objects(f"{store}/out/weights")[0].etag.endswith("-3")
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(tmp_path / "source")
    first = storage.address_digest(f"{store}/out")
    monkeypatch.setattr(s3_transfers, "PART", 6 << 20)
    storage.remove(f"{store}/out")
    storage.publish(tmp_path / "source", f"{store}/out")
    assert s3.list_objects(f"{store}/out/weights")[0].etag.endswith("-2")
    assert storage.address_digest(f"{store}/out") == first == storage.digest(tmp_path / "source")


def test_a_name_that_only_begins_alike_is_another_folder(store: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "1", {"a": "1"}), f"{store}/runs/policy")
    storage.publish(folder_of(tmp_path / "2", {"x": "2"}), f"{store}/runs/policy-2")
    assert [item.name for item in storage.list_objects(f"{store}/runs/policy")] == ["a"]
    assert not storage.exists(f"{store}/runs/pol")


def test_changed_content_is_downloaded_anew_and_has_another_digest(store: str, tmp_path: Path) -> None:
    address = f"{store}/problems.jsonl"
    (tmp_path / "file").write_text("1")
    storage.publish(tmp_path / "file", address)
    first, digest = storage.fetch(address), storage.address_digest(address)
    assert storage.fetch(address) == first
    (tmp_path / "file").write_text("2")
    storage.publish(tmp_path / "file", address)
    assert storage.fetch(address).read_text() == "2"
    assert storage.address_digest(address) != digest == storage.text_digest("1")


def test_publishing_a_folder_again_leaves_nothing_of_the_earlier_one(store: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "1", {"a": "1", "old": "1"}), f"{store}/out")
    with storage.staged(f"{store}/out") as folder:
        (folder / "a").write_text("2")
    assert set(raw(f"{store}/out")) == {"a", MANIFEST}
    assert storage.fetch(f"{store}/out/a").read_text() == "2"
    storage.remove(f"{store}/out")
    assert raw(f"{store}/out") == {}
    assert not storage.exists(f"{store}/out")
    storage.remove(f"{store}/out")


def test_a_file_and_a_folder_replace_each_other(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1"})
    storage.publish(source, f"{store}/out")
    storage.publish(source / "a", f"{store}/out")
    assert storage.fetch(f"{store}/out").read_text() == "1"
    assert raw(f"{store}/out") == {}
    storage.publish(source, f"{store}/out")
    assert (storage.fetch(f"{store}/out") / "a").read_text() == "1"


def test_what_is_there_already_is_not_uploaded_again(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b": "2"})
    storage.publish(source, f"{store}/out")
    name, _ = s3.split(store)
    when = {key: s3.connect().head_object(Bucket=name, Key=f"out/{key}")["LastModified"] for key in ("a", MANIFEST)}
    sent: list[str] = []
    s3.connect().meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.url))
    storage.publish(source, f"{store}/out")
    assert sent == []
    (source / "b").write_text("3")
    storage.publish(source, f"{store}/out")
    assert [url.rpartition("/")[2] for url in sent] == [MARKER, "b", MANIFEST]
    assert s3.connect().head_object(Bucket=name, Key="out/a")["LastModified"] == when["a"]
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)


@pytest.mark.parametrize("had", [None, "old"])
def test_an_upload_that_was_interrupted_is_not_there_and_says_so(store: str, tmp_path: Path, had: str | None) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b": "2"})
    storage.publish(source, f"{store}/whole")
    intended = storage.fetch(f"{store}/whole/{MANIFEST}").read_text()
    put(f"{store}/out/{MARKER}", intended)
    if had:
        put(f"{store}/out/{MANIFEST}", manifest.Manifest.of({"a": manifest.Entry(size=1, sha256=had)}).text())
    put(f"{store}/out/a", "1")
    assert not storage.exists(f"{store}/out")
    for use in (storage.fetch, storage.address_digest, storage.list_objects):
        with pytest.raises(DataError, match=r"out: an upload or a removal was interrupted here"):
            use(f"{store}/out")
    storage.publish(source, f"{store}/out")
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)
    assert set(raw(f"{store}/out")) == {"a", "b", MANIFEST}


def test_an_upload_that_lacked_only_its_tidying_is_there(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1"})
    storage.publish(source, f"{store}/out")
    put(f"{store}/out/{MARKER}", storage.fetch(f"{store}/out/{MANIFEST}").read_text())
    put(f"{store}/out/stale", "of the earlier folder")
    assert storage.exists(f"{store}/out")
    assert [path.name for path in storage.fetch(f"{store}/out").iterdir()] == ["a"]
    storage.publish(source, f"{store}/out")
    assert set(raw(f"{store}/out")) == {"a", MANIFEST}


def test_a_folder_of_other_tools_is_taken_as_listed_and_the_log_says_that_it_is_not_verified(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info")
    for name, text in {"a": "1", "b/c": "2", MANIFEST: '{"of": "another tool"}'}.items():
        put(f"{store}/theirs/{name}", text)
    assert storage.exists(f"{store}/theirs")
    back = storage.fetch(f"{store}/theirs")
    assert (back / "b" / "c").read_text() == "2"
    assert (back / MANIFEST).exists()
    assert capsys.readouterr().err.count("not verified by content") == 1
    before = storage.address_digest(f"{store}/theirs")
    put(f"{store}/theirs/a", "3")
    assert storage.address_digest(f"{store}/theirs") != before
    with pytest.raises(DataError, match=f"{MANIFEST} has a name that is needed"):
        storage.publish(back, f"{store}/ours")


def test_a_file_that_others_have_changed_changes_the_digest_and_is_refused(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b": "22"})
    storage.publish(source, f"{store}/out")
    put(f"{store}/out/b", "33")
    assert storage.address_digest(f"{store}/out") != storage.digest(source)
    with pytest.raises(DataError, match=r"out/b: its SHA-256 is .* publish it again"):
        storage.fetch(f"{store}/out")
    put(f"{store}/out/b", "333")
    with pytest.raises(DataError, match=r"b has 3 bytes, but manifest\.json lists 2"):
        storage.fetch(f"{store}/out")
    s3.connect().delete_object(Bucket=s3.split(store)[0], Key="out/b")
    with pytest.raises(DataError, match="b is missing"):
        storage.fetch(f"{store}/out")


def test_a_copy_by_other_tools_has_the_same_digest(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_transfers, "PART", 5 << 20)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"x" * (6 << 20))
    storage.publish(tmp_path / "source", f"{store}/out")
    name, _ = s3.split(store)
    for key in ("weights", MANIFEST):
        s3.connect().copy_object(Bucket=name, Key=f"copy/{key}", CopySource={"Bucket": name, "Key": f"out/{key}"})
    assert s3.list_objects(f"{store}/copy/weights")[0].etag != s3.list_objects(f"{store}/out/weights")[0].etag
    assert storage.address_digest(f"{store}/copy") == storage.digest(tmp_path / "source")
    assert storage.digest(storage.fetch(f"{store}/copy")) == storage.digest(tmp_path / "source")


def test_a_damaged_manifest_is_an_error_and_publishing_again_mends_it(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1"})
    storage.publish(source, f"{store}/out")
    name, _ = s3.split(store)
    noted = s3.connect().head_object(Bucket=name, Key=f"out/{MANIFEST}")["Metadata"]
    s3.connect().put_object(Bucket=name, Key=f"out/{MANIFEST}", Body=b'{"files": {}}', Metadata=noted)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        storage.fetch(f"{store}/out")
    storage.publish(source, f"{store}/out")
    assert storage.digest(storage.fetch(f"{store}/out")) == storage.digest(source)


def test_a_manifest_that_others_have_downloaded_is_no_content(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1"})
    storage.publish(source, f"{store}/out")
    copied = folder_of(tmp_path / "copied", {"a": "1"})
    (copied / MANIFEST).write_text(storage.fetch(f"{store}/out/{MANIFEST}").read_text())
    assert storage.digest(copied) == storage.digest(source)
    storage.publish(copied, f"{store}/again")
    assert storage.address_digest(f"{store}/again") == storage.digest(source)


def test_a_step_does_not_replace_a_folder_that_no_step_has_written(store: str) -> None:
    put(f"{store}/thesis/chapter.tex", "years of work")
    with pytest.raises(DataError, match="holds something else"), storage.staged(f"{store}/thesis"):
        pytest.fail("the step must not start")
    assert raw(f"{store}/thesis") == {"chapter.tex": 13}


def test_a_manifest_of_another_tool_does_not_make_a_folder_a_step_s_output(store: str) -> None:
    for name, text in {"manifest.json": '{"name": "a web page"}', "index.html": "years of work"}.items():
        put(f"{store}/page/{name}", text)
    with pytest.raises(DataError, match="holds something else"), storage.staged(f"{store}/page"):
        pytest.fail("the step must not start")
    assert set(raw(f"{store}/page")) == {"manifest.json", "index.html"}


def test_more_objects_than_one_answer_holds_are_listed_and_deleted(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_BATCH", 7)
    source = folder_of(tmp_path / "source", {f"{number:03}": "" for number in range(25)})
    storage.publish(source, f"{store}/many")
    assert len(storage.list_objects(f"{store}/many")) == 25
    storage.remove(f"{store}/many")
    assert raw(f"{store}/many") == {}


def test_a_link_that_cannot_be_uploaded_is_an_error_and_one_to_a_file_is_the_file(store: str, tmp_path: Path) -> None:
    source, elsewhere = folder_of(tmp_path / "source", {"a": "1"}), folder_of(tmp_path / "elsewhere", {"b": "2"})
    (source / "b").symlink_to(elsewhere / "b")
    storage.publish(source, f"{store}/out")
    assert (storage.fetch(f"{store}/out") / "b").read_text() == "2"
    for target in (elsewhere, tmp_path / "gone"):
        (source / "link").symlink_to(target)
        with pytest.raises(DataError, match="link: is a link to a folder or to nothing"):
            storage.publish(source, f"{store}/out")
        (source / "link").unlink()
    assert set(raw(f"{store}/out")) == {"a", "b", MANIFEST}


def test_who_fetches_the_same_at_once_disturbs_nobody_who_reads_it(store: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {f"{number:02}": "x" for number in range(20)})
    storage.publish(source, f"{store}/out")
    begin, expected = threading.Barrier(6), storage.digest(source)

    def fetch_and_read(_: int) -> set[str]:
        begin.wait()
        back = storage.fetch(f"{store}/out")
        return {storage.digest(back) for _ in range(50)}

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(fetch_and_read, range(6))) == [{expected}] * 6
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == ["out"]


def test_a_name_that_no_list_of_deletions_can_hold_is_deleted(store: str, tmp_path: Path) -> None:
    storage.publish(folder_of(tmp_path / "source", {"bell\x07": "1", "a": "1"}), f"{store}/out")
    storage.remove(f"{store}/out")
    assert raw(f"{store}/out") == {}


def test_a_name_that_leads_out_of_the_folder_is_refused(store: str) -> None:
    put(f"{store}/theirs/../../outside", "1")
    with pytest.raises(DataError, match="cannot be a file here"):
        storage.fetch(f"{store}/theirs")


def test_what_is_not_there_is_bad_input_and_no_access_a_fault(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="nothing at this address"):
        storage.fetch(f"{store}/nowhere")
    with pytest.raises(DataError, match="no such bucket"):
        storage.fetch("s3://no-such-bucket-here/nowhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StepCoderError, match="refuses access") as caught:
        storage.fetch(f"{store}/nowhere")
    assert "wrong-secret" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StepCoderError, match="cannot reach") as caught:
        storage.fetch(f"{store}/nowhere")
    assert caught.value.exit_status == 1


def test_endpoint_region_and_style_come_from_where_aws_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert s3.connect().meta.region_name == "eu-north-1"
    assert s3.connect().meta.endpoint_url == "https://s3.eu-north-1.amazonaws.com"
    assert (s3.connect().meta.config.s3 or {}).get("addressing_style") != "path"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://store.example")
    assert s3.connect().meta.endpoint_url == "https://store.example"
    assert s3.connect().meta.config.s3 == {"addressing_style": "path"}
    (tmp_path / "config").write_text("[profile virtual]\ns3 =\n    addressing_style = virtual\n")
    monkeypatch.setenv("AWS_PROFILE", "virtual")
    assert s3.connect().meta.config.s3 == {"addressing_style": "virtual"}
