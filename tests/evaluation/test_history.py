import json

import pytest

from stepcoder.evaluation.history import Validation, read_history
from stepcoder.evaluation.report import level_shares, stage_bars


def write(folder, rows=(), summary=None):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)


def result(before, after):
    return {"validation": {"before": valid(before), "after": valid(after)}}


def valid(share):
    return {"pass_at_1": share, "problems": 100, "samples": 400}


def test_stages_come_in_the_order_of_training_with_their_names(tmp_path):
    sft = write(tmp_path / "sft", [{"step": 1, "loss": 2.0}], {"step_name": "sft", "stage": 0, **result(0.0, 0.2)})
    ppo = write(tmp_path / "ppo", [{"step": 1, "reward": 0.1}], {"step_name": "ppo", "stage": 1, **result(0.2, 0.3)})
    history = read_history([sft, ppo])
    assert [stage.name for stage in history.stages] == ["SFT", "PPO 1"]
    assert history.stages[0].rows == ({"step": 1, "loss": 2.0},)
    assert history.stages[1].after == Validation(0.3, 100, 400)
    assert history.missing == ()
    assert [(bar.name, bar.value) for bar in stage_bars(history)] == [("base", 0.0), ("SFT", 0.2), ("PPO 1", 0.3)]


def test_a_resumed_step_counts_once_and_in_order(tmp_path):
    rows = [{"step": 2, "reward": 0.2}, {"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.9}]
    folder = write(tmp_path / "ppo", rows, {"step_name": "ppo", "stage": 1})
    assert [row["reward"] for row in read_history([folder]).stages[0].rows] == [0.1, 0.9]


def test_a_validation_in_a_line_of_its_own_does_not_hide_the_step(tmp_path):
    rows = [{"step": 1, "reward": 0.1, "stage": 1}, {"step": 1, "stage": 1, "validation_pass_at_1": 0.5}]
    folder = write(tmp_path / "ppo", rows, {"step_name": "ppo", "stage": 1})
    assert read_history([folder]).stages[0].rows == ({**rows[0], **rows[1]},)


def test_what_is_missing_is_said_and_does_no_harm(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\nnot json\n[1]\n{"reward": 1}\n')
    (broken / "summary.json").write_text("[]")
    history = read_history([str(tmp_path / "nowhere"), str(broken)])
    assert [stage.name for stage in history.stages] == ["PPO 1"]
    assert len(history.stages[0].rows) == 1
    assert len(history.missing) == 4
    assert "nowhere/metrics.jsonl" in history.missing[0]
    assert "3 lines cannot be read" in history.missing[2]


@pytest.mark.parametrize("share", [None, "x", float("nan")])
def test_a_validation_that_is_not_a_number_is_no_validation(tmp_path, share):
    folder = write(tmp_path / "ppo", [], {"step_name": "ppo", "stage": 1, **result(0.1, share)})
    assert read_history([folder]).stages[0].after is None


def test_the_error_bound_is_that_of_problems_that_always_or_never_pass():
    assert Validation(0.5, 100, 800).se_at_most == pytest.approx(0.05)
    assert Validation(1.0, 100, 800).se_at_most == 0.0


def test_level_shares_sum_to_one_over_all_stages(tmp_path):
    first = write(tmp_path / "1", [{"step": 1, "level_counts": {"0": 1, "2": 3}}, {"step": 2, "reward": 1.0}])
    second = write(tmp_path / "2", [{"step": 1, "level_counts": {"0": 3, "1": 1}}])
    levels, shares, boundaries = level_shares(read_history([first, second]).stages)
    assert levels == [0, 1, 2]
    assert shares == [[0.25, 0.0, 0.75], [0.75, 0.25, 0.0]]
    assert [boundary.at for boundary in boundaries] == [1, 2]
