"""Addresses, digests and publishing on a file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import storage


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_file_digest_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert storage.digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_digest_sees_names_contents_and_nesting_but_not_order(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "1", {"a": "x", "b/c": "y"})
    same = folder_of(tmp_path / "2", {"b/c": "y", "a": "x"})
    assert storage.digest(first) == storage.digest(same)
    for number, files in enumerate([{"a": "x", "b/c": "z"}, {"a": "x", "b": "y"}, {"a": "x"}, {"a": "xb/cy"}]):
        assert storage.digest(folder_of(tmp_path / f"other{number}", files)) != storage.digest(first)


@given(st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_plain_paths_are_not_remote(name: str) -> None:
    assert not storage.is_remote(name)
    assert not storage.is_remote(f"/{name}/s3")
    assert storage.is_remote(f"s3://{name}")


@pytest.mark.parametrize("address", ["gs://bucket/key", "https://host/file"])
def test_an_unknown_scheme_is_refused_by_name(address: str) -> None:
    with pytest.raises(DataError, match=address.split(":")[0]):
        storage.is_remote(address)


def test_fetch_gives_an_existing_path_back_and_refuses_a_missing_one(tmp_path: Path) -> None:
    assert storage.fetch(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match="nowhere"):
        storage.fetch(str(tmp_path / "nowhere"))


def test_publishing_replaces_the_whole_earlier_folder(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "out", {"old": "1", "deep/old": "2"})
    with storage.publishing(target) as partial:
        (partial / "new").write_text("3")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_a_failure_leaves_the_earlier_output_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = folder_of(tmp_path / "out", {"old": "1"})

    def write() -> None:
        with storage.publishing(target) as partial:
            (partial / "new").write_text("3")
            raise error

    with pytest.raises(type(error)):
        write()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "x"), RuntimeError("I/O error: No space left on device (28)")])
def test_a_full_disk_is_a_run_time_fault_that_names_the_target(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StepCoderError, match=r"out.*disk is full") as caught, storage.publishing(tmp_path / "out"):
        raise error
    assert caught.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists on Linux only")
def test_a_disk_that_is_really_full_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StepCoderError, match="disk is full"), storage.publishing(tmp_path / "out"):
        Path("/dev/full").write_text("x")


def test_the_published_folder_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with storage.publishing(tmp_path / "out"):
        pass
    assert os.stat(tmp_path / "out").st_mode == os.stat(tmp_path / "plain").st_mode


def test_publish_copies_files_and_folders(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"a": "1", "b/c": "2"})
    storage.publish(source, str(tmp_path / "copy"))
    assert storage.digest(tmp_path / "copy") == storage.digest(source)
    storage.publish(source / "a", str(tmp_path / "one" / "file"))
    assert (tmp_path / "one" / "file").read_text() == "1"
    storage.publish(source / "b" / "c", str(tmp_path / "one" / "file"))
    assert (tmp_path / "one" / "file").read_text() == "2"


def test_write_text_replaces_or_leaves_alone(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "deep" / "a.json", "1")
    storage.write_text(tmp_path / "deep" / "a.json", "2")
    assert (tmp_path / "deep" / "a.json").read_text() == "2"
    with pytest.raises(UnicodeEncodeError):
        storage.write_text(tmp_path / "deep" / "a.json", "\ud800")
    assert [(path.name, path.read_text()) for path in (tmp_path / "deep").iterdir()] == [("a.json", "2")]


def test_staged_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with storage.staged(str(tmp_path / "out")) as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "out" / "a").read_text() == "1"
    with pytest.raises(ValueError, match="wrong"), storage.staged(str(tmp_path / "other")):
        raise ValueError("wrong")
    storage.remove(str(tmp_path / "out"))
    storage.remove(str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_step_does_not_replace_a_folder_that_no_step_has_written(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with (
        pytest.raises(DataError, match=r"thesis: holds something else \(chapter\.tex\)"),
        storage.staged(str(tmp_path / "thesis")),
    ):
        pytest.fail("the step must not start")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_manifest_of_another_tool_does_not_make_a_folder_a_step_s_output(tmp_path: Path) -> None:
    page = folder_of(tmp_path / "page", {"manifest.json": '{"name": "a web page"}', "index.html": "years of work"})
    with pytest.raises(DataError, match="holds something else"), storage.staged(str(page)):
        pytest.fail("the step must not start")
    assert (page / "index.html").read_text() == "years of work"


def test_a_step_replaces_its_own_earlier_output_and_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for turn in ("first", "second"):
        with storage.staged(str(tmp_path / "out")) as folder:
            (folder / "stepcoder.json").write_text(turn)
    assert (tmp_path / "out" / "stepcoder.json").read_text() == "second"
