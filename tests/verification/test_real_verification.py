import json
from pathlib import Path

import pytest

from stepcoder.verification import VerifyConfig, verify

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")]


def verified(tmp_path, format, name):
    """Records accepted, and reason by id of the rejected; one run each, for time.

    MBPP's 123 takes 2.4 s of a fast core, so the limit of 3 s is no question of right and wrong here.
    """
    source, out = str(DATA / name), str(tmp_path / "dataset")
    config = VerifyConfig(problems=source, format=format, out=out, repeats=1, cpu_seconds=30, wall_seconds=90)
    card = verify(config)
    rows = [json.loads(line) for line in (tmp_path / "dataset" / "rejected.jsonl").read_text().splitlines()]
    return card, {row["id"]: row["reason"] for row in rows}


def test_every_humaneval_record_is_accepted(tmp_path):
    card, reasons = verified(tmp_path, "humaneval", "humaneval.jsonl.gz")
    assert (card.accepted, card.all.constant_answers, reasons) == (164, 1, {})


@pytest.mark.slow
def test_every_apps_plus_record_is_accepted(tmp_path):
    card, reasons = verified(tmp_path, "apps_plus", "apps_plus_sample.jsonl")
    assert (card.accepted, card.all.constant_answers, reasons) == (387, 81, {})


@pytest.mark.slow
def test_mbpp_records_are_rejected_for_known_reasons(tmp_path):
    card, reasons = verified(tmp_path, "mbpp", "mbpp.jsonl")
    assert card.accepted == 966
    # These four return a Counter or a defaultdict where a dictionary is expected: types are compared exactly.
    assert {key for key, reason in reasons.items() if reason == "wrong_answer"} == {"40", "88", "653", "902"}
    # Each has the statement of another record, whose id sorts before its own.
    assert {key for key, reason in reasons.items() if reason == "duplicate"} == {"76", "602", "704", "872"}


@pytest.mark.slow
def test_leetcode_records_are_rejected_for_known_reasons(tmp_path):
    card, reasons = verified(tmp_path, "leetcode", "leetcode_v0.2.0_train.jsonl.gz")
    assert card.accepted == 1887
    assert reasons == {
        "deep-dark-fraction": "empty_field",
        "guess-numbers": "empty_field",
        # Any order of the ladders is right; the reference's own follows that of a set.
        "word-ladder-ii": "wrong_answer",
    }
