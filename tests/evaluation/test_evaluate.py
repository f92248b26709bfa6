"""The whole step on hand-made samples: only the sampling from a model is stood in for."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest

from stepcoder.errors import DataError, StepCoderError
from stepcoder.evaluation import EvaluationConfig, evaluate
from stepcoder.evaluation.metrics import Figure
from stepcoder.evaluation.report import finding
from stepcoder.platform.config import parse
from stepcoder.problems import dump_problems
from stepcoder.sandbox.job import Outcome, Span, Statement, TestResult, Verdict

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory):
    """One database for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def place(tmp_path, monkeypatch, make_problem, mlflow_store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    names = [f"p{number}" for number in range(6)]
    difficulties = ["introductory", "interview", "competition"] * 2
    dump_problems([make_problem(*pair) for pair in zip(names, difficulties, strict=True)], dataset / "test.jsonl")
    for model in ("base", "sft", "candidate", "champion"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "weights").write_text(model)
    return tmp_path


class Sampling:
    """Stands in for the model alone: so many of a problem's samples pass, by the checkpoint's name."""

    passes: ClassVar = {"base": 0, "sft": 1, "candidate": 3, "champion": 2}

    def __init__(self, make_raw_sample):
        self.make = make_raw_sample
        self.calls = []

    def __call__(self, config, checkpoint, problems):
        name = checkpoint.rstrip("/").rpartition("/")[2]
        self.calls.append(name)
        return [
            self.make(problem.id, index, Outcome.PASS if index < self.passes[name] else Outcome.WRONG_ANSWER)
            for problem in problems
            for index in range(config.samples)
        ]


@pytest.fixture
def sampling(make_raw_sample):
    return Sampling(make_raw_sample)


def config(place, **changes):
    models = {name: str(place / name) for name in ("base", "sft", "candidate", "champion")}
    settings = {"samples": 4, "ks": (1, 2, 10), "resamples": 200, "sandbox_slots": 1}
    return EvaluationConfig(dataset=str(place / "dataset"), out=str(place / "out"), **models | settings | changes)


def test_all_models_are_measured_on_the_same_problems(place, sampling):
    metrics = evaluate(config(place), sampling)
    assert sampling.calls == ["base", "sft", "candidate", "champion"]
    shares = {name: model.overall.pass_at_k["1"].value for name, model in metrics.models.items()}
    assert shares == {"base": 0.0, "sft": 0.25, "candidate": 0.75, "champion": 0.5}
    assert list(metrics.models["candidate"].overall.pass_at_k) == ["1", "2"]  # 10 needs more samples than there are
    assert metrics.compared("candidate", "champion").value == 0.25
    written = json.loads((place / "out" / "metrics.json").read_text())
    assert written["models"]["candidate"]["counts"] == {f"p{number}": [3, 4] for number in range(6)}
    lines = (place / "out" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 6 * 4
    assert json.loads(lines[0])["model"] == "base"
    assert json.loads((place / "out" / "config.json").read_text())["samples"] == 4
    assert sorted(path.name for path in (place / "out").iterdir()) == [
        "config.json",
        "metrics.json",
        "report.html",
        "samples.jsonl",
    ]


def test_a_model_that_was_measured_before_is_read_and_not_sampled(place, sampling):
    measured = str(place / "measured")
    first = evaluate(config(place, measured=measured), sampling)
    # Next week: last week's candidate, by content, is the champion, and lies elsewhere.
    (place / "candidate").rename(place / "renamed")
    (place / "candidate").mkdir()
    (place / "candidate" / "weights").write_text("a new policy")
    sampling.calls.clear()
    again = evaluate(config(place, measured=measured, champion=str(place / "renamed")), sampling)
    assert sampling.calls == ["candidate"]
    assert again.models["champion"].reused
    assert again.models["champion"].counts == first.models["candidate"].counts
    assert not again.models["candidate"].reused


def test_what_the_judge_failed_on_is_measured_anew(place, sampling, make_raw_sample):
    measured = str(place / "measured")

    def failing(config, checkpoint, problems):
        samples = sampling(config, checkpoint, problems)
        return [make_raw_sample(samples[0].problem_id, 0, Outcome.INFRA_ERROR), *samples[1:]]

    assert evaluate(config(place, measured=measured), failing).models["champion"].infra_errors == 1
    again = evaluate(config(place, measured=measured), sampling)
    assert not again.models["champion"].reused
    assert again.models["champion"].infra_errors == 0


def test_with_a_known_digest_and_a_measurement_the_weights_are_not_needed(place, sampling):
    measured = str(place / "measured")
    digest = evaluate(config(place, measured=measured), sampling).models["champion"].digest
    settings = {"champion": "s3://nowhere/champion", "champion_digest": digest}
    again = evaluate(config(place, measured=measured, **settings), sampling)
    assert again.models["champion"].overall.pass_at_k["1"].value == 0.5


@pytest.mark.parametrize("changes", [{"seed": 2}, {"temperature": 0.8}, {"samples": 5}, {"max_new_tokens": 9}])
def test_other_settings_are_another_measurement(place, sampling, changes):
    measured = str(place / "measured")
    evaluate(config(place, measured=measured), sampling)
    sampling.calls.clear()
    evaluate(config(place, measured=measured, **changes), sampling)
    assert len(sampling.calls) == 4


def test_other_problems_are_another_measurement(place, sampling, make_problem):
    measured = str(place / "measured")
    evaluate(config(place, measured=measured), sampling)
    sampling.calls.clear()
    dump_problems([make_problem("new")], place / "dataset" / "test.jsonl")
    evaluate(config(place, measured=measured), sampling)
    assert len(sampling.calls) == 4


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_measurement_is_made_anew(place, sampling, damage):
    measured = place / "measured"
    evaluate(config(place, measured=str(measured)), sampling)
    for path in measured.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text({"cut": "".join(lines[:-1]), "garbage": lines[0] + "{}\n", "empty": ""}[damage])
    sampling.calls.clear()
    evaluate(config(place, measured=str(measured)), sampling)
    assert len(sampling.calls) == 4
    sampling.calls.clear()
    evaluate(config(place, measured=str(measured)), sampling)
    assert sampling.calls == []


def test_an_evaluation_that_was_stopped_keeps_the_models_it_had_finished(place, sampling):
    def stops(settings, checkpoint, problems):
        if checkpoint.endswith("candidate"):
            raise KeyboardInterrupt
        return sampling(settings, checkpoint, problems)

    with pytest.raises(KeyboardInterrupt):
        evaluate(config(place, measured=str(place / "measured")), stops)
    assert not (place / "out").exists()
    sampling.calls.clear()
    evaluate(config(place, measured=str(place / "measured")), sampling)
    assert sampling.calls == ["candidate", "champion"]
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_two_names_for_one_checkpoint_are_sampled_once(place, sampling):
    metrics = evaluate(config(place, champion=str(place / "candidate")), sampling)
    assert sampling.calls == ["base", "sft", "candidate"]
    assert metrics.compared("candidate", "champion").value == 0.0


def test_absent_models_are_left_out(place, sampling):
    metrics = evaluate(config(place, base="", sft="", champion=""), sampling)
    assert list(metrics.models) == ["candidate"]
    assert metrics.comparisons == []


def test_fewer_problems_are_the_same_ones_whatever_the_order(place, sampling):
    metrics = evaluate(config(place, problems=3), sampling)
    path = place / "dataset" / "test.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    again = evaluate(config(place, problems=3), sampling)
    assert len(metrics.models["base"].counts) == 3
    assert set(again.models["base"].counts) == set(metrics.models["base"].counts)
    assert again.dataset.problems_digest == metrics.dataset.problems_digest


def test_a_dataset_without_test_problems_is_refused(place, sampling):
    (place / "dataset" / "test.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no problems"):
        evaluate(config(place), sampling)
    (place / "dataset" / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no test\.jsonl"):
        evaluate(config(place), sampling)


def test_a_missing_model_is_named(place, sampling):
    with pytest.raises(DataError, match="nowhere"):
        evaluate(config(place, champion=str(place / "nowhere")), sampling)
    assert not (place / "out").exists()


def test_a_full_disk_leaves_nothing_behind(place, sampling, monkeypatch):
    def full(path, lines):
        # /dev/full answers every write as a full disk does.
        Path("/dev/full").write_text("x")

    monkeypatch.setattr("stepcoder.evaluation.step.write_samples", full)
    with pytest.raises(StepCoderError, match="disk is full"):
        evaluate(config(place), sampling)
    assert not (place / "out").exists()
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("changes", [{"ks": (0,)}, {"temperature": 0.0}, {"samples": 0}, {"unknown": 1}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(DataError, match="evaluation"):
        parse(EvaluationConfig, changes, where="evaluation", dataset="d", candidate="c", out="o")


def test_neither_torch_nor_kfp_is_imported():
    script = (
        "import sys, stepcoder.evaluation; print([m for m in ('torch', 'transformers', 'kfp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The report ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.addresses, self.handlers, self.samples = [], [], [], [], []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.addresses += [value for name, value in attributes if name in {"src", "href", "action"}]
        values = dict(attributes)
        if values.get("class") == "sample":
            self.samples.append((values["data-model"], values["data-outcome"]))
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)


@pytest.fixture
def hostile(place, make_raw_sample, make_problem):
    """An evaluation in which every text that a stranger can choose is an attack."""
    name = f"p-{EVIL}"
    dump_problems([make_problem(name)], place / "dataset" / "test.jsonl")
    program = f"def double(number):\n    return '{EVIL}'  # \u202e\x00\n"
    statements = (Statement(Span(1, 0, 1, 19), True), Statement(Span(2, 4, 2, 20), False))
    test = TestResult(Outcome.RUNTIME_ERROR, exception=EVIL, line=2, stdout_tail=EVIL, detail=EVIL)
    verdict = Verdict("x", Outcome.RUNTIME_ERROR, (test,), statements)

    def sampler(settings, checkpoint, problems):
        tail = f"```\n{EVIL}\ud800"
        completion = program.removeprefix("def double(number):\n") + tail
        return [make_raw_sample(name, 0, Outcome.RUNTIME_ERROR, program, verdict=verdict, completion=completion)]

    history = place / EVIL.replace("/", "_")
    evaluate(config(place, samples=1, history=(str(history),)), sampler)
    return (place / "out" / "report.html").read_text()


def test_hostile_texts_are_shown_and_do_nothing(hostile):
    page = Page(hostile)
    assert hostile.count("alert(1)") >= 6
    assert page.tags.count("script") == 1
    assert not {"img", "iframe", "object", "link", "base", "form"} & set(page.tags)
    assert page.handlers == []
    assert page.addresses == []
    assert "\u202e" not in hostile
    assert "⟨U+202E⟩" in hostile


def test_the_page_allows_its_own_script_alone_and_no_network(hostile):
    (script,) = Page(hostile).scripts
    allowed = re.search(r"script-src 'sha256-([^']+)'", hostile)[1].replace("&#43;", "+")
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert "default-src 'none'" in hostile
    assert "http://" not in hostile
    assert "https://" not in hostile


def test_the_report_says_what_was_found_and_how_sure_it_is(place, sampling):
    evaluate(config(place, history=(str(place / "gone"),)), sampling)
    page = (place / "out" / "report.html").read_text()
    assert "The candidate is better than the champion: the whole interval lies above zero." in page
    assert "75.0%" in page
    assert "6 test problems by 4 samples" in page
    assert "gone/metrics.jsonl" in page
    shown = Page(page).samples
    assert shown.count(("candidate", "pass")) == 3
    assert shown.count(("base", "wrong_answer")) == 3
    assert ("base", "pass") not in shown


def test_a_finding_claims_no_more_than_its_interval():
    def figure(low, high):
        return Figure(value=(low + high) / 2, low=low, high=high, se=0.1, problems=9)

    assert "better than" in finding(figure(0.001, 0.2), "the champion")
    assert "worse than" in finding(figure(-0.2, -0.001), "the champion")
    assert "not shown to differ" in finding(figure(0.0, 0.2), "the champion")
    assert "cannot be compared" in finding(None, "the champion")
