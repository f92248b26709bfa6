"""Log lines can be read back as key=value pairs."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.platform import logs


@given(st.text())
def test_a_quoted_value_is_one_line_without_bare_spaces_and_reads_back(text: str) -> None:
    shown = logs.quoted(text)
    assert shown.splitlines() == [shown]
    assert (json.loads(shown) if shown.startswith('"') else shown) == text


def test_lines_carry_the_step_the_event_and_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logs.get_logger("sft").info("epoch done", epoch=2, loss=0.123456789, path="a b")
    logs.get_logger("sft").debug("not shown")
    line = capsys.readouterr().err
    pairs = dict(part.split("=", 1) for part in shlex.split(line))
    assert pairs.pop("time").endswith("Z")
    expected = {"level": "INFO", "step": "sft", "event": "epoch done", "epoch": "2", "loss": "0.123457", "path": "a b"}
    assert pairs == expected


def test_progress_tells_what_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LINE_SECONDS", 0.0)
    logs.configure("info")
    with logs.Progress(range(4), "sampling") as bar:
        bar.advance(3, reward=0.5)
    line = capsys.readouterr().err
    assert "event=sampling done=3 total=4 left=" in line
    assert line.rstrip().endswith("reward=0.5")
    assert list(logs.Progress(["a", "b"], "reading")) == ["a", "b"]


def test_a_faulty_number_of_seconds_is_told_and_the_default_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.LINE, "soon")
    logs.configure("info")
    with logs.Progress(range(4), "sampling") as bar:
        bar.advance(4)
    assert f"variable={logs.LINE} default=10" in capsys.readouterr().err
    monkeypatch.setenv(logs.LINE, "0")
    with logs.Progress(range(4), "sampling") as bar:
        bar.advance(1)
    assert "done=1" in capsys.readouterr().err


def test_progress_of_a_transfer_tells_bytes_rate_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINE_SECONDS", 0.0)
    logs.configure("info")
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=iter([0.0, 0.0, 2.0]).__next__))
    with logs.Progress(range(9_000_000), "uploading", in_bytes=True) as bar:
        bar.advance(3_000_000)
    # 3 MB in 2 s are 1.5 MB/s, so 6 MB need 4 s.
    assert 'event=uploading done="3.0 MB" total="9.0 MB" rate="1.5 MB/s" left=4s' in capsys.readouterr().err
