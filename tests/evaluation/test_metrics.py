import pytest

from stepcoder.evaluation.metrics import Metrics, compare, flat, measure
from stepcoder.evaluation.samples import read_samples, write_samples
from stepcoder.sandbox.job import Outcome

SETTINGS = {"resamples": 500, "confidence": 0.95, "seed": 1}
PASS, WRONG, INFRA = Outcome.PASS, Outcome.WRONG_ANSWER, Outcome.INFRA_ERROR


@pytest.fixture
def measured(make_problem, make_sample):
    def run(outcomes, ks=(1, 2), per_problem=2):
        """Measures a model from `{problem: (difficulty, outcomes)}`."""
        problems = [make_problem(name, difficulty) for name, (difficulty, _) in outcomes.items()]
        samples = [
            make_sample(name, index, outcome)
            for name, (_, drawn) in outcomes.items()
            for index, outcome in enumerate(drawn)
        ]
        place = {"address": "policy", "digest": "d", "reused": False}
        return measure(problems, samples, ks, per_problem=per_problem, **place, **SETTINGS)

    return run


def test_figures_are_means_over_problems(measured):
    model = measured(
        {
            "a": ("introductory", [PASS, PASS]),
            "b": ("introductory", [PASS, WRONG]),
            "c": ("competition", [WRONG, Outcome.TIMEOUT]),
        }
    )
    assert model.counts == {"a": (2, 2), "b": (1, 2), "c": (0, 2)}
    assert model.overall.pass_at_k["1"].value == pytest.approx(1 / 2)
    assert model.overall.pass_at_k["2"].value == pytest.approx(2 / 3)
    assert model.by_difficulty["introductory"].pass_at_k["1"].value == pytest.approx(3 / 4)
    assert model.by_difficulty["competition"].pass_at_k["1"].value == 0.0
    assert list(model.by_difficulty) == ["introductory", "competition"]
    assert model.mean_tokens == 20.0


def test_outcomes_are_counted_in_the_groups_that_reports_tell_apart(measured):
    every = [PASS, WRONG, Outcome.RUNTIME_ERROR, Outcome.TIMEOUT, Outcome.COMPILE_ERROR]
    rest = [Outcome.MEMORY, Outcome.OUTPUT_LIMIT, Outcome.SECURITY]
    group = measured({"a": (None, [*every, *rest])}, per_problem=8).overall
    assert group.outcomes == {
        "pass": 1,
        "wrong_answer": 1,
        "runtime_error": 1,
        "timeout": 1,
        "compile_error": 1,
        "other": 3,
    }
    assert group.share("other") == 3 / 8
    assert sum(group.share(name) for name in group.outcomes) == pytest.approx(1.0)


def test_a_fault_of_the_judge_is_neither_pass_nor_failure(measured):
    model = measured({"a": (None, [PASS, INFRA]), "b": (None, [INFRA, INFRA]), "c": (None, [WRONG, WRONG])})
    assert model.counts == {"a": (1, 1), "b": (0, 0), "c": (0, 2)}
    assert model.infra_errors == 3
    assert model.overall.samples == 3
    assert model.overall.pass_at_k["1"].value == pytest.approx(1 / 2)
    assert model.overall.pass_at_k["1"].problems == 2
    assert model.overall.pass_at_k["2"].problems == 1  # only c has two judged samples


def test_nothing_judged_gives_no_figure(measured):
    model = measured({"a": (None, [INFRA, INFRA])})
    assert model.overall.pass_at_k == {"1": None, "2": None}
    assert model.by_difficulty["unrated"].share("pass") == 0.0


def test_a_problem_that_could_not_be_asked_counts_as_failed(measured):
    model = measured({"a": (None, [PASS, PASS]), "b": (None, [])})
    assert model.counts["b"] == (0, 2)
    assert model.unasked == 1
    assert model.overall.pass_at_k["1"].value == 0.5


def test_models_are_compared_problem_by_problem(measured):
    better = measured({"a": (None, [PASS, PASS]), "b": (None, [PASS, WRONG])})
    worse = measured({"a": (None, [PASS, WRONG]), "b": (None, [WRONG, WRONG])})
    (comparison,) = compare({"candidate": better, "sft": worse}, **SETTINGS)
    assert (comparison.model, comparison.than) == ("candidate", "sft")
    # Both problems differ by one half: every resample does.
    assert (comparison.difference.value, comparison.difference.low, comparison.difference.high) == (0.5, 0.5, 0.5)


def test_metrics_survive_their_file_and_give_legal_tracker_names(measured):
    model = measured({"a": (None, [PASS, WRONG]), "b": (None, [INFRA, INFRA])})
    facts = {"address": "d", "digest": "d", "problems_digest": "p", "problems": 2, "by_difficulty": {"unrated": 2}}
    settings = {"samples": 2, "temperature": 0.2, "top_p": 0.95, "max_new_tokens": 8}
    metrics = Metrics(
        code_version="0",
        dataset=facts,
        models={"candidate": model, "champion": model},
        comparisons=compare({"candidate": model, "champion": model}, **SETTINGS),
        **settings,
        **SETTINGS,
    )
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics
    assert metrics.compared("candidate", "champion").value == 0.0
    assert metrics.compared("candidate", "sft") is None
    figures = flat(metrics)
    assert figures["candidate_pass_at_1"] == 0.5
    assert figures["candidate_minus_champion"] == 0.0
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz_0123456789") for name in figures)


def test_samples_survive_their_file_and_lone_surrogates(tmp_path, make_sample):
    plain = make_sample("a", 0, PASS)
    odd = make_sample("b\u2028", 1, WRONG, program="x = '\ud800'\r\n\x00", completion="\udfff")
    assert odd.program == "x = '?'\r\n\x00"
    path = tmp_path / "samples.jsonl"
    write_samples(path, [({}, plain), ({}, odd)], head={"lines": 2})
    assert list(read_samples(path, skip_lines=1)) == [plain, odd]
