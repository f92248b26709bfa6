"""Checkpoints in a folder and in an object store: the newest whole one is found, whatever a kill or crash has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepcoder.platform import storage
from stepcoder.platform.checkpoints import MARKER, Checkpoints
from tests.training.rank_steps import Config

IDENTITY = {"run": 1}


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where checkpoints go; temporary files of this process and its children go to the test's folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("STEPCODER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "scratch").mkdir()
    if request.param == "folder":
        yield str(tmp_path / "checkpoints")
        return
    store = request.getfixturevalue("swift")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    yield f"s3://{store.bucket()}/checkpoints"


def write(text: str) -> Callable[[Path], None]:
    def writing(folder: Path) -> None:
        (folder / "policy").mkdir(exist_ok=True)
        (folder / "policy" / "weights").write_text(text)
        (folder / "metrics.jsonl").write_text("{}\n")

    return writing


def newest(place: str) -> tuple[int, str] | None:
    found = Checkpoints(place, IDENTITY).newest()
    return None if found is None else (found[0], (found[1] / "policy" / "weights").read_text())


def names(place: str) -> set[str]:
    """The files below a place, without the folder named by the identity."""
    if storage.is_remote(place):
        listed = [item.name for item in storage.list_objects(place)]
    else:
        listed = [path.relative_to(place).as_posix() for path in Path(place).rglob("*") if path.is_file()]
    return {name.partition("/")[2] for name in listed}


def overwrite(place: str, name: str, text: str) -> None:
    address = f"{Checkpoints(place, IDENTITY).place}/{name}"
    if storage.is_remote(address):
        source = Path(tempfile.mkdtemp()) / "file"
        source.write_text(text)
        storage.publish(source, address)
    else:
        Path(address).write_text(text)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_newest_is_found_and_as_many_as_asked_for_are_kept(place: str) -> None:
    assert newest(place) is None
    checkpoints = Checkpoints(place, IDENTITY, keep=3)
    for step in range(2, 12, 2):
        checkpoints.save(step, write(f"step {step}"))
    assert newest(place) == (10, "step 10")
    assert {name.split("/")[0] for name in names(place)} == {"step-00000006", "step-00000008", "step-00000010"}
    assert Checkpoints(place, {"run": 2}).newest() is None
    checkpoints.finish(f"{place}/policy")
    assert names(place) == set()


def test_the_newest_outlives_a_step_whose_output_only_this_machine_has(place: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(place, IDENTITY, keep=2)
    for step in (1, 2):
        checkpoints.save(step, write(f"step {step}"))
    checkpoints.finish(str(tmp_path / "policy"))
    # Local checkpoints are no safer than the output beside them.
    assert newest(place) == ((2, "step 2") if storage.is_remote(place) else None)
    assert {name.split("/")[0] for name in names(place)} == ({"step-00000002"} if storage.is_remote(place) else set())


def test_nothing_is_written_without_an_address() -> None:
    checkpoints = Checkpoints("", IDENTITY)
    checkpoints.save(1, lambda folder: pytest.fail("written"))
    assert checkpoints.newest() is None
    checkpoints.finish("policy")


@pytest.mark.parametrize(
    ("name", "text"),
    [("policy/weights", "stop 2"), ("policy/weights", "step"), (MARKER, '{"step": 2, "fi'), (MARKER, "{}")],
    ids=["other content of the same size", "cut short", "marker cut short", "marker of another version"],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_written_anew(
    name: str, text: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(place, IDENTITY)
    for step in (1, 2):
        checkpoints.save(step, write(f"step {step}"))
    overwrite(place, f"step-00000002/{name}", text)
    from stepcoder.platform import logs

    logs.configure()
    assert newest(place) == (1, "step 1")
    assert 'event="checkpoint passed over"' in capsys.readouterr().err
    checkpoints.save(2, write("again"))
    assert newest(place) == (2, "again")


def test_what_was_passed_over_does_not_push_the_whole_ones_out(place: str) -> None:
    checkpoints = Checkpoints(place, IDENTITY)
    for step in (1, 2, 3):
        checkpoints.save(step, write(f"step {step}"))
    for step in (2, 3):
        overwrite(place, f"step-0000000{step}/policy/weights", "??????")
    Checkpoints(place, IDENTITY, keep=3).save(1, write("step 1"))
    assert newest(place) == (1, "step 1")
    assert {name.split("/")[0] for name in names(place)} == {"step-00000001"}


def test_a_failing_write_leaves_the_earlier_checkpoint_alone(place: str) -> None:
    checkpoints = Checkpoints(place, IDENTITY)
    checkpoints.save(1, write("step 1"))

    def failing(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        checkpoints.save(2, failing)
    assert newest(place) == (1, "step 1")
    checkpoints.save(2, write("step 2"))
    assert not any("half" in name for name in names(place))


KILLED = """
import sys, time
from pathlib import Path
from stepcoder.platform import storage
from stepcoder.platform.checkpoints import Checkpoints

place, ready, when = sys.argv[1:]

def stop():
    Path(ready).touch()
    time.sleep(600)

def write(folder):
    (folder / "policy").mkdir()
    (folder / "policy" / "weights").write_text("half")
    if when == "written":
        stop()

publish = storage.publish
def publish_one(*arguments):
    publish(*arguments)
    stop()
if when == "uploaded":
    storage.publish = publish_one
Checkpoints(place, {"run": 1}).save(2, write)
"""


@pytest.mark.parametrize("when", ["written", "uploaded"])
def test_a_kill_while_a_checkpoint_is_made_leaves_the_older_one_and_the_next_save_clears_up(
    when: str, place: str, tmp_path: Path
) -> None:
    if when == "uploaded" and not storage.is_remote(place):
        pytest.skip("nothing is uploaded into a folder")
    Checkpoints(place, IDENTITY).save(1, write("step 1"))
    before = names(place)
    with subprocess.Popen([sys.executable, "-c", KILLED, place, str(tmp_path / "ready"), when]) as process:
        wait_for((tmp_path / "ready").exists)
        process.kill()
    scratch = tmp_path / "scratch"
    assert names(place) != before or list(scratch.rglob("weights"))
    assert newest(place) == (1, "step 1")
    Checkpoints(place, IDENTITY).save(3, write("step 3"))
    assert newest(place) == (3, "step 3")
    assert {name.split("/")[0] for name in names(place)} == {"step-00000001", "step-00000003"}
    assert not list(scratch.rglob("weights"))


@pytest.mark.slow
def test_two_ranks_killed_while_they_write_resume_together_from_the_older_checkpoint(
    place: str, tmp_path: Path
) -> None:
    config = Config(out=str(tmp_path), what=place).model_dump_json()
    command = [sys.executable, "-m", "tests.training.rank_steps", "checkpoint", config]
    (tmp_path / "hang").touch()
    with subprocess.Popen(command) as process:
        wait_for((tmp_path / "ready").exists)
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
        assert process.wait(30) == 1
    (tmp_path / "hang").unlink()
    subprocess.run(command, check=True, timeout=60)
    for rank in range(2):
        assert (tmp_path / f"resumed-{rank}").read_text() == "2 ['rank 0 step 2', 'rank 1 step 2']"
    parts = ("part-0", "part-1", MARKER)
    assert names(place) == {f"step-0000000{step}/{name}" for step in (4, 5) for name in parts}
    found = Checkpoints(place, IDENTITY).newest()
    assert found is not None
    assert json.loads((found[1] / MARKER).read_text())["ranks"] == 2
    assert not [path for path in (tmp_path / "scratch").iterdir() if "checkpoint" in path.name]
