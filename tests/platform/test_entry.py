"""What surrounds a step: exit statuses, one line a fault, nothing half-written after a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform import tracking
from stepcoder.platform.entry import running
from stepcoder.platform.tracking import pipeline_run


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (DataError("line 17: no tests\nline 19: no tests"), 2, 'error="line 19: no tests" exit_status=2'),
        (StepCoderError("disk full"), 1, 'error="disk full" exit_status=1'),
        (ValueError("odd"), 1, 'error="ValueError: odd" exit_status=1'),
        (KeyboardInterrupt(), 130, "event=interrupted"),
    ],
)
def test_a_fault_becomes_log_lines_and_an_exit_status(
    error: BaseException, status: int, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tracking.RUN_ID, raising=False)
    with pytest.raises(SystemExit) as caught, running("sft"):
        raise error
    assert caught.value.code == status
    printed = capsys.readouterr().err
    assert shown in printed
    assert ("Traceback" in printed) == isinstance(error, ValueError)


def test_no_secret_is_in_the_traceback_of_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tracking.RUN_ID, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hidden-token")
    with pytest.raises(SystemExit), running("sft"):
        raise ValueError("401 for hidden-token at http://user:hidden@host")
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "hidden" not in printed


def test_a_fault_inside_a_pipeline_is_told_to_its_mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv(tracking.RUN_ID, "weekly-7")
    with pytest.raises(SystemExit), running("ppo-stage-2"):
        raise DataError("no reference model")
    assert pipeline_run.reported_failure() == ("ppo-stage-2", "no reference model")


def test_a_terminated_step_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from stepcoder.platform.entry import running\nfrom stepcoder.platform.storage import publishing\n"
        "with running('sft'), publishing(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != tracking.RUN_ID}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "out")], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []
