import json
import random
from pathlib import Path

import pytest
from verify_records import ACCEPTED, BROKEN_LINE, CASES, CORRECTIONS, GOOD, lines, record

from stepcoder.errors import DataError
from stepcoder.problems import load_problems
from stepcoder.verification import Reason, verify

SETTINGS = {"corrections": CORRECTIONS, "max_chars": 900, "output_bytes": 50000}
FILES = ["card.json", "rejected.jsonl", "test.jsonl", "train.jsonl", "validation.jsonl"]


def rejected(folder):
    return [json.loads(line) for line in (Path(folder) / "rejected.jsonl").read_text().splitlines()]


def accepted(folder):
    return [problem for name in FILES[2:] for problem in load_problems(Path(folder) / name)]


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """One run over all cases, for the tests that only look at its result."""
    folder = tmp_path_factory.mktemp("verified")
    from stepcoder.verification import VerifyConfig

    (folder / "records.jsonl").write_text("\n".join(lines()))
    (folder / "corrections.jsonl").write_text("\n".join(map(json.dumps, CORRECTIONS)))
    config = VerifyConfig(
        problems=str(folder / "records.jsonl"),
        format="apps_plus",
        out=str(folder / "dataset"),
        corrections=str(folder / "corrections.jsonl"),
        max_chars=900,
        output_bytes=50000,
        cpu_seconds=0.5,
    )
    return config, verify(config)


def test_every_record_ends_accepted_or_rejected_with_its_reason(verified):
    config, card = verified
    found = {row["id"]: (row["reason"], row["detail"]) for row in rejected(config.out)}
    for identity, (_, reason, detail) in CASES.items():
        assert found[identity][0] == reason, (identity, found[identity])
        assert detail in found[identity][1]
    assert {problem.id for problem in accepted(config.out)} == set(ACCEPTED)
    assert card.records == len(lines()) == card.accepted + card.rejected
    assert sum(card.reasons.values()) == card.rejected


def test_every_reason_but_two_has_a_case(verified):
    # Leaks have a test of their own; what the sandbox forbids depends on the machine.
    reasons = {row["reason"] for row in rejected(verified[0].out)}
    assert reasons == {reason.value for reason in Reason} - {"leakage", "security", "constant_answer"}


def test_a_broken_line_is_rejected_by_its_place(verified):
    (row,) = [row for row in rejected(verified[0].out) if row["reason"] == "broken_json"]
    assert row["source"] == f"records.jsonl:{len(lines())}"
    assert row["record"] == BROKEN_LINE.strip()


def test_the_log_names_the_place_of_a_rejected_record(configure, caplog):
    lines = [json.dumps(record(f"a{number}", GOOD)) for number in range(20)]
    lines[16] = lines[16][:40]
    verify(configure(lines, validation=0, test=0))
    (told,) = [entry.getMessage() for entry in caplog.records if "event=rejected" in entry.getMessage()]
    assert "records.jsonl:17" in told
    assert "broken JSON at column" in told


def test_an_equal_record_is_kept_once(verified):
    (row,) = [row for row in rejected(verified[0].out) if row["id"] == "fine"]
    assert (row["reason"], row["detail"]) == ("duplicate", "equal to another record 'fine', which is kept")


def test_the_dataset_is_a_folder_of_five_files_and_nothing_is_left_beside(verified):
    config, _ = verified
    assert sorted(path.name for path in Path(config.out).iterdir()) == FILES
    assert sorted(path.name for path in Path(config.out).parent.iterdir()) == [
        "corrections.jsonl",
        "dataset",
        "records.jsonl",
    ]


def test_the_card_counts_and_names_its_source(verified):
    config, card = verified
    written = json.loads((Path(config.out) / "card.json").read_text())
    assert written == card.model_dump(mode="json")
    assert (
        card.counts["accepted"] == len(ACCEPTED) == sum(card.counts[name] for name in ("train", "validation", "test"))
    )
    assert card.corrections == {"drop": 1, "outputs": 1}
    assert card.all.encodings == {"call": len(ACCEPTED)}
    assert card.all.difficulties == {"introductory": len(ACCEPTED)}
    assert card.all.conditionals.total == 0
    assert card.source.address == config.problems
    assert "workers" not in card.settings
    assert "out" not in card.settings
    assert card.settings["max_chars"] == 900


def test_neither_order_nor_workers_change_a_byte(verified, configure):
    config, _ = verified
    shuffled = lines()
    random.Random(3).shuffle(shuffled)
    again = configure(shuffled, **SETTINGS, workers=1, repeats=3)
    verify(again)
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl"):
        assert (Path(again.out) / name).read_bytes() == (Path(config.out) / name).read_bytes()

    def told(out):
        # Of a line that is no JSON the place is all that is known; how a coin fell is told as it fell.
        rows = [row | {"source": ""} if row["reason"] == "broken_json" else row for row in rejected(out)]
        return [row | {"detail": ""} if row["reason"] == "flaky" else row for row in rows]

    assert told(again.out) == told(config.out)


def test_a_corrected_output_replaces_the_wrong_one(verified):
    (problem,) = [problem for problem in accepted(verified[0].out) if problem.id == "corrected"]
    assert [test.expected for test in problem.tests] == [2, 4]


@pytest.mark.parametrize(
    ("correction", "says"),
    [
        ({"id": "nobody", "action": "drop", "why": "x"}, "no record has the id 'nobody'"),
        ({"id": "fine", "action": "drop"}, "drop.why: Field required"),
        ({"id": "fine", "action": "delete", "why": "x"}, "delete"),
        ({"id": "fine", "action": "outputs", "outputs": {"2": 1}, "why": "x"}, "outputs.2: the record has 2 tests"),
        ({"id": "fine", "action": "outputs", "outputs": {}, "why": "x"}, "at least 1 item"),
        ({"id": "print", "action": "outputs", "outputs": {"0": 1}, "why": "x"}, "outputs.0: standard output must be"),
        ({"id": "no-key", "action": "outputs", "outputs": {"0": 1}, "why": "x"}, "cannot be read"),
        ("nothing", "nothing"),
    ],
)
def test_a_correction_that_fits_no_record_is_refused(configure, correction, says):
    printing = {"starter_code": "def f():\n", "inputs": [""], "outputs": ["1"]}
    rows = [record("fine", GOOD), record("print", "def f():\n    print(1)\n", **printing), CASES["no-key"][0]]
    config = configure(rows, [correction])
    with pytest.raises(DataError) as caught:
        verify(config)
    assert "corrections.jsonl:1" in str(caught.value)
    assert says in str(caught.value) or correction == "nothing"
    assert not Path(config.out).exists()


def test_two_corrections_of_one_record_are_refused(configure):
    drop = {"id": "fine", "action": "drop", "why": "x"}
    with pytest.raises(DataError, match="there is another correction of 'fine'"):
        verify(configure([record("fine", GOOD)], [drop, drop]))


def test_solutions_found_in_an_evaluation_set_are_rejected(configure, tmp_path):
    evaluation = tmp_path / "evaluation.jsonl"
    evaluation.write_text(json.dumps(record("e", "def f(n):\n    total = n\n    total += n\n    return total\n")))
    leaked = record("leaked", "def f(n):\n    total = n\n    total += n\n    print(total)\n    return total\n")
    half = record("half", "def f(n):\n    total = n\n    double = total * 2\n    return double\n")
    config = configure([leaked, half], evaluation_sets=[f"apps_plus={evaluation}"], validation=0, test=0)
    card = verify(config)
    (row,) = rejected(config.out)
    assert (row["id"], row["reason"]) == ("leaked", "leakage")
    assert row["detail"].startswith("80% of the solution's lines stand in solutions of apps_plus=")
    assert card.leakage[f"apps_plus={evaluation}"].model_dump() == {"lines": 4, "leaked": 1, "share": 0.5}


def test_a_threshold_of_one_reports_leaks_only(configure, tmp_path):
    evaluation = tmp_path / "evaluation.jsonl"
    evaluation.write_text(json.dumps(record("e", GOOD)))
    config = configure([record("same", GOOD)], evaluation_sets=[f"apps_plus={evaluation}"], leakage_threshold=1, test=0)
    assert verify(config.model_copy(update={"validation": 0.0})).accepted == 1


def test_no_accepted_record_is_an_error_that_quotes_reasons(configure):
    config = configure([CASES["wrong"][0], CASES["no-tests"][0]])
    with pytest.raises(DataError) as caught:
        verify(config)
    told = str(caught.value).split("\n")
    assert told[0].endswith("none of 2 records is accepted (empty_field 1, wrong_answer 1)")
    assert told[1] == f"{config.problems}:2: no-tests: empty_field: inputs: is empty; outputs: is empty"
    assert told[2].startswith(f"{config.problems}:1: wrong: wrong_answer: test 1 of 2")
    assert [path.name for path in Path(config.out).parent.iterdir()] == ["records.jsonl"]


def test_an_empty_train_split_is_an_error(configure):
    config = configure([record(f"x{number}", GOOD) for number in range(3)], validation=0.98, test=0.01)
    with pytest.raises(DataError, match="3 of 3 records are accepted, but none of them falls into the train split"):
        verify(config)
    assert not Path(config.out).exists()


def test_a_preamble_that_fails_is_the_records_fault(configure):
    row = {
        "task_id": "double",
        "prompt": "x = 1 // 0\n",
        "completion": "class Solution:\n    def f(self, n):\n        return 2 * n\n",
        "entry_point": "Solution().f",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        "query": "Double it.",
        "meta": {"difficulty": "Easy"},
    }
    good = row | {"task_id": "good", "prompt": "x = 1\n", "query": "Double it again."}
    config = configure([row, good], format="leetcode", validation=0, test=0)
    verify(config)
    (found,) = rejected(config.out)
    assert (found["id"], found["reason"]) == ("double", "runtime_error")
    assert "the preamble fails: ZeroDivisionError" in found["detail"]


def test_what_is_no_dataset_is_not_replaced(configure, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="is there already and is no dataset"):
        verify(configure([record("fine", GOOD)], out=str(tmp_path / "home")))
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_an_earlier_dataset_is_replaced(configure):
    config = configure([record("a", GOOD)], validation=0, test=0)
    verify(config)
    verify(configure([record("b", GOOD)], validation=0, test=0))
    assert [problem.id for problem in accepted(config.out)] == ["b"]


def test_a_missing_file_is_named(configure, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        verify(configure([], problems=str(tmp_path / "nowhere.jsonl")))


def test_corrections_list_all_accepted_outputs_of_a_record_with_any_of(configure):
    call = record("call", GOOD, checker="any_of", outputs=[[9, 2], [9]])
    stdin = {
        "canonical_solution": "def f():\n    print(4)\n",
        "starter_code": "def f():\n",
        "inputs": ["", ""],
        "checker": "any_of",
    }
    lines = [call, record("stdin", GOOD, outputs=[["4", "5"], ["6"]], **stdin)]
    corrections = [
        {"id": "call", "action": "outputs", "outputs": {"1": [3, 4]}, "why": "both"},
        {"id": "stdin", "action": "outputs", "outputs": {"1": ["7", "4"]}, "why": "both"},
    ]
    config = configure(lines, corrections, validation=0, test=0)
    assert verify(config).accepted == 2
    call, stdin = accepted(config.out)
    assert call.tests[1].expected == [3, 4]
    assert (stdin.tests[1].stdout, stdin.tests[1].alternatives) == ("7", ("4",))
    for outputs, says in [({"1": 4}, "non-empty list"), ({"1": []}, "non-empty list")]:
        wrong = [{"id": "call", "action": "outputs", "outputs": outputs, "why": "x"}]
        with pytest.raises(DataError, match=says):
            verify(configure(lines, wrong))


def test_a_record_is_judged_again_when_its_checker_changes(configure):
    from stepcoder.problems import Exact, Unordered
    from stepcoder.verification.verify import _key

    config = configure([json.dumps(record("a", GOOD))], validation=0, test=0)
    verify(config)
    (problem,) = accepted(config.out)
    other = problem.model_copy(update={"checker": Unordered()})
    assert problem.checker == Exact()
    assert _key(problem, config) != _key(other, config)
