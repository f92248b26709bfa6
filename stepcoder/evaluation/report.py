"""`report.html`: one page that needs no network, no script to be read, and does not trust what it shows.

This file decides what is said; `report.html`, `report.css` and `report.js` beside it decide how it looks.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stepcoder.evaluation import charts
from stepcoder.evaluation.history import History, Stage, Validation
from stepcoder.evaluation.listing import clipped, listing, visible
from stepcoder.evaluation.metrics import Figure, GroupMetrics, Metrics, difficulty_of
from stepcoder.evaluation.samples import GROUPS, JudgedSample
from stepcoder.problems.problem import Problem

NAMES: Final = {"base": "Base", "sft": "SFT", "candidate": "Candidate", "champion": "Champion"}

_THE: Final = {"base": "the base model", "sft": "the SFT policy", "champion": "the champion"}

OUTCOMES: Final = {
    "pass": "pass",
    "wrong_answer": "wrong answer",
    "runtime_error": "runtime error",
    "timeout": "timeout",
    "compile_error": "compile error",
    "other": "other",
}


@dataclass(frozen=True)
class _Curve:
    key: str
    title: str
    unit: str
    y_range: tuple[float, float] | None = None
    percent: bool = False


_MAIN: Final = (
    _Curve("reward", "Reward", "mean reward a sample"),
    _Curve("pass_rate", "Pass rate", "share of samples", (0.0, 0.0), percent=True),
    _Curve("kl", "KL to the reference", "nats a token", (0.0, 0.0)),
    _Curve("entropy", "Entropy", "nats a token", (0.0, 0.0)),
)
_MORE: Final = (
    _Curve("loss", "SFT loss", "nats a token", (0.0, 0.0)),
    _Curve("learning_rate", "Learning rate", "a step", (0.0, 0.0)),
    _Curve("executed_fraction", "Executed tokens", "share of tokens", (0.0, 1.0), percent=True),
    _Curve("level_mean", "Mean curriculum level", "level", (0.0, 0.0)),
    _Curve("response_length", "Response length", "tokens", (0.0, 0.0)),
    _Curve("truncated", "Responses cut at the limit", "share of samples", (0.0, 0.0), percent=True),
    _Curve("policy_loss", "Policy loss", "loss"),
    _Curve("value_loss", "Value loss", "loss", (0.0, 0.0)),
    _Curve("explained_variance", "Explained variance", "of the returns"),
    _Curve("clip_fraction", "Clipped ratios", "share of tokens", (0.0, 0.0), percent=True),
)


def render(
    metrics: Metrics,
    problems: Sequence[Problem],
    samples: Mapping[str, Sequence[JudgedSample]],
    history: History,
    *,
    shown: int,
) -> str:
    """Writes the page.

    Args:
        metrics: what was measured.
        problems: the test problems.
        samples: by model, its samples.
        history: what the training steps left.
        shown: how many sampled programs to show for each model and outcome.
    """
    environment = Environment(
        loader=PackageLoader("stepcoder", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": charts.percent_text,
        "round_percent": charts.percent_tick,
        "points": lambda share: charts.percent_text(share, signed=True),
        "visible": visible,
        "clipped": clipped,
    }
    script = Markup(resources.files("stepcoder.evaluation").joinpath("report.js").read_text(encoding="utf-8"))
    return environment.get_template("report.html").render(
        metrics=metrics,
        names=NAMES,
        outcomes=OUTCOMES,
        groups=_groups(metrics),
        style=Markup(resources.files("stepcoder.evaluation").joinpath("report.css").read_text(encoding="utf-8")),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=_headline(metrics),
        model_chart=_model_chart(metrics),
        difference_chart=_difference_chart(metrics),
        stage_chart=charts.point_chart("pass@1 through the stages", stage_bars(history), y_label="pass@1"),
        history=history,
        main_curves=[chart for curve in _MAIN if (chart := _curve(curve, history))],
        more_curves=[chart for curve in _MORE if (chart := _curve(curve, history))],
        levels=_levels(history),
        shown=_shown(problems, samples, shown),
    )


def finding(difference: Figure | None, than: str) -> str:
    """What a difference shows, in words, no more than its interval allows."""
    if difference is None:
        return f"cannot be compared with {than}: no problem was judged for both"
    if difference.low > 0.0:
        return f"better than {than}: the whole interval lies above zero"
    if difference.high < 0.0:
        return f"worse than {than}: the whole interval lies below zero"
    return f"not shown to differ from {than}: the interval holds zero"


def stage_bars(history: History) -> list[charts.Bar]:
    """pass@1 on the validation problems: before the first stage, then after each."""
    bars = []
    if history.stages and (first := history.stages[0].before):
        bars.append(_stage_bar("base" if history.stages[0].kind == "sft" else "start", first))
    bars += [_stage_bar(stage.name, stage.after) for stage in history.stages if stage.after]
    return bars


def level_shares(stages: Sequence[Stage]) -> tuple[list[int], list[list[float]], list[charts.Boundary]]:
    """The share of the problems at every curriculum level.

    Returns:
        The levels that occur, ascending; for each step their shares, `(steps, levels)`; where each stage begins.
        The steps count on from stage to stage, from 1.
    """
    rows: list[dict[int, float]] = []
    boundaries = []
    for stage in stages:
        begin = len(rows)
        for row in stage.rows:
            counts = row.get("level_counts")
            if isinstance(counts, dict) and counts:
                rows.append({int(level): float(count) for level, count in counts.items()})
        if len(rows) > begin:
            boundaries.append(charts.Boundary(begin + 1, stage.name))
    levels = sorted({level for row in rows for level in row})
    shares = [[row.get(level, 0.0) / (sum(row.values()) or 1.0) for level in levels] for row in rows]
    return levels, shares, boundaries


def _headline(metrics: Metrics) -> dict[str, Any]:
    than = next((name for name in ("champion", "sft", "base") if name in metrics.models), None)
    difference = metrics.compared("candidate", than) if than else None
    return {
        "candidate": metrics.models["candidate"].overall.pass_at_k.get("1"),
        "than": than,
        "difference": difference,
        "finding": finding(difference, _THE[than]) if than else "measured alone: there is nothing to compare it with",
    }


def _groups(metrics: Metrics) -> list[tuple[str, dict[str, GroupMetrics]]]:
    """All problems, then every difficulty; in each the models."""
    groups = [("all", {name: model.overall for name, model in metrics.models.items()})]
    groups += [
        (difficulty, {name: model.by_difficulty[difficulty] for name, model in metrics.models.items()})
        for difficulty in metrics.dataset.by_difficulty
    ]
    return groups


def _model_chart(metrics: Metrics) -> Markup:
    bars = []
    for name, model in metrics.models.items():
        if figure := model.overall.pass_at_k.get("1"):
            note = f"{charts.percent_text(figure.value)} [{_span(figure)}]"
            css = "s1" if name == "candidate" else "s0"
            bars.append(charts.Bar(NAMES[name], figure.value, figure.low, figure.high, note, css))
    title = f"pass@1 on the test problems with {_confidence(metrics)} intervals"
    return charts.interval_chart(title, bars, x_label="pass@1")


def _difference_chart(metrics: Metrics) -> Markup:
    bars = []
    for comparison in metrics.comparisons:
        if figure := comparison.difference:
            note = f"{charts.percent_text(figure.value, signed=True)} [{_span(figure, signed=True)}]"
            name = f"{NAMES[comparison.model]} − {NAMES[comparison.than]}"
            css = "s1" if figure.low > 0.0 or figure.high < 0.0 else "s0"
            bars.append(charts.Bar(name, figure.value, figure.low, figure.high, note, css))
    title = f"Differences in pass@1 on the same problems with paired {_confidence(metrics)} intervals"
    return charts.interval_chart(title, bars, x_label="difference in percentage points", zero=True)


def _curve(curve: _Curve, history: History) -> dict[str, Any] | None:
    segments: list[list[charts.Point]] = []
    boundaries = []
    done = missing = 0
    for stage in history.stages:
        values = [row[curve.key] for row in stage.rows if curve.key in row]
        if not values:
            continue
        boundaries.append(charts.Boundary(done + 1, stage.name))
        numbers = [value if isinstance(value, int | float) else math.nan for value in values]
        missing += sum(not math.isfinite(number) for number in numbers)
        segments.append([(done + 1 + index, float(number)) for index, number in enumerate(numbers)])
        done += len(values)
    svg = charts.line_chart(
        curve.title,
        segments,
        boundaries,
        x_label="optimiser step" if curve.key in {"loss", "learning_rate"} else "PPO step",
        y_label=curve.unit,
        y_range=curve.y_range,
        percent=curve.percent,
    )
    return {"title": curve.title, "svg": svg, "missing": missing} if svg else None


def _levels(history: History) -> dict[str, Any] | None:
    levels, shares, boundaries = level_shares(history.stages)
    if not shares:
        return None
    names = ["level 0 (from scratch)" if level == 0 else f"level {level}" for level in levels]
    svg = charts.stacked_shares(
        "Problems at each curriculum level",
        [float(step) for step in range(1, len(shares) + 1)],
        shares,
        names,
        boundaries,
        x_label="PPO step",
        y_label="share of problems",
    )
    return {"svg": svg, "names": [(name, charts.shade(level, len(names))) for level, name in enumerate(names)]}


def _shown(
    problems: Sequence[Problem], samples: Mapping[str, Sequence[JudgedSample]], shown: int
) -> list[dict[str, Any]]:
    """Some samples of every model and outcome, each of another problem where there are enough.

    Problems are taken in the order of a hash of their id, so that the models are seen on the same ones as far as
    possible, and nobody has picked the good ones.
    """
    known = {problem.id: problem for problem in problems}
    chosen = []
    for model, outcome in itertools.product(samples, GROUPS):
        found: dict[str, list[JudgedSample]] = defaultdict(list)
        for sample in samples[model]:
            if sample.judged and sample.group == outcome and sample.problem_id in known:
                found[sample.problem_id].append(sample)
        order = sorted(found, key=lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest())
        rounds = itertools.zip_longest(*(found[name] for name in order))
        some = itertools.islice((sample for turn in rounds for sample in turn if sample is not None), shown)
        for sample in some:
            problem = known[sample.problem_id]
            chosen.append(
                {
                    "model": model,
                    "outcome": outcome,
                    "sample": sample,
                    "problem": problem,
                    "difficulty": difficulty_of(problem),
                    "listing": listing(sample),
                }
            )
    return chosen


def _stage_bar(name: str, validation: Validation) -> charts.Bar:
    value, error = validation.pass_at_1, validation.se_at_most
    note = f"{charts.percent_text(value)} (s.e. at most {100.0 * error:.1f} pt, {validation.problems} problems)"
    return charts.Bar(name, value, max(0.0, value - error), min(1.0, value + error), note)


def _span(figure: Figure, signed: bool = False) -> str:
    return f"{charts.percent_text(figure.low, signed)}, {charts.percent_text(figure.high, signed)}"


def _confidence(metrics: Metrics) -> str:
    return charts.percent_tick(metrics.confidence)
